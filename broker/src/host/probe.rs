//! Probing a library in a process of its own before it is loaded: a damaged one ends that process instead of the broker.
//! Owns both sides of the probe and its limits. Proves nothing about code that runs only later.

use elbus_plugin_api::{abi::RawContext, testing::FakeHost};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Resource, Rlimit, Signal},
};
use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitCode, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use super::{inspect::inspect, library::Wanted, mapping};

/// The only argument of a program that is started as a probe.
const ARGUMENT: &str = "--probe-library";
/// Time to load a library and to check its layout.
const LOAD_LIMIT: Duration = Duration::from_secs(20);
/// Time to create and drop an instance. One that takes longer has not ended the process: it passes.
const CREATE_LIMIT: Duration = Duration::from_secs(1);
/// CPU time of a probe, in seconds.
const CPU_SECONDS: u64 = 20;
/// Memory of a probe beyond what is mapped from files.
const MEMORY_BYTES: u64 = 4 << 30;
/// What is read of a probe's answer.
const ANSWER_BYTES: usize = 8 * 1024;
/// What a probe writes when the library is loaded and its layout is right.
const LOADED: &str = "loaded\n";
/// What it writes when an instance was created and dropped.
const CREATED: &str = "created\n";

/// Probes libraries by a program that calls [`run_library_probe`] first thing in its `main`.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    program: PathBuf,
}

impl Probe {
    pub(crate) fn new(program: PathBuf) -> Self {
        Probe { program }
    }

    /// Loads the sealed copy in another process, creates an instance with the table it is wanted for, and drops it.
    ///
    /// # Errors
    /// Why the library must not be loaded. If the probe itself cannot run, that is logged and the library passes.
    pub(super) fn run(&self, path: &Path, copy: &File, wanted: &Wanted<'_>) -> Result<(), String> {
        let begun = Instant::now();
        let mut child = match self.start(copy, wanted) {
            Ok(child) => child,
            Err(error) => {
                tracing::warn!(
                    path = %path.display(), program = %self.program.display(), %error,
                    "library is loaded without a probe: the probe program cannot be started"
                );
                return Ok(());
            }
        };
        let answer = child.stdout.take().map(|output| listen(output, begun)).unwrap_or_default();
        let status = end(&mut child);
        tracing::debug!(path = %path.display(), millis = begun.elapsed().as_millis() as u64, "library probed");
        judge(&answer, status)
    }

    fn start(&self, copy: &File, wanted: &Wanted<'_>) -> std::io::Result<Child> {
        let mut input = File::from(rustix::fs::memfd_create("probe", rustix::fs::MemfdFlags::CLOEXEC)?);
        write!(input, "{}\n{}", wanted.instance.replace('\n', " "), wanted.config)?;
        input.rewind()?;
        Command::new(&self.program)
            .arg(ARGUMENT)
            .stdin(copy.try_clone()?)
            // the only other descriptor a child process can be given: it is read, not written
            .stderr(OwnedFd::from(input))
            .stdout(Stdio::piped())
            .spawn()
    }
}

/// How far a probe has come.
#[derive(Debug, Default)]
struct Answer {
    text: String,
    /// Ended by itself, rather than being cut off.
    complete: bool,
}

/// Reads until the probe closes its output or has no time left.
fn listen(mut output: ChildStdout, begun: Instant) -> Answer {
    let mut bytes = Vec::new();
    let mut end = begun + LOAD_LIMIT;
    let mut loaded = false;
    let mut chunk = [0; 1024];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        let ready = poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&timeout));
        let complete = match ready {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) | Err(_) => Some(false),
            Ok(_) => match output.read(&mut chunk) {
                Ok(0) => Some(true),
                Ok(read) if bytes.len() + read <= ANSWER_BYTES => {
                    bytes.extend_from_slice(&chunk[..read]);
                    None
                }
                Ok(_) | Err(_) => Some(false),
            },
        };
        if let Some(complete) = complete {
            return Answer { text: String::from_utf8_lossy(&bytes).into_owned(), complete };
        }
        if !loaded && bytes.starts_with(LOADED.as_bytes()) {
            (loaded, end) = (true, Instant::now() + CREATE_LIMIT);
        }
    }
}

/// Waits for a process that has closed its output, and kills one that has not.
fn end(child: &mut Child) -> Option<ExitStatus> {
    let limit = Instant::now() + CREATE_LIMIT;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < limit => std::thread::sleep(Duration::from_micros(200)),
            _ => break,
        }
    }
    // it may have ended meanwhile
    _ = child.kill();
    _ = child.wait();
    None
}

/// What a probe's answer and end mean.
fn judge(answer: &Answer, status: Option<ExitStatus>) -> Result<(), String> {
    let text = &answer.text;
    let step = if text.starts_with(LOADED) { "creating an instance of it" } else { "loading it" };
    if let Some(signal) = status.and_then(|status| status.signal()) {
        let name = name_of(signal);
        return Err(format!("{step} ended the probe process by signal {signal}{name}; the file is damaged"));
    }
    if let Some(rest) = text.strip_prefix(LOADED) {
        let ended = answer.complete && status.is_some();
        return match status.and_then(|status| status.code()) {
            // what a slow one writes after the limit is not read any more
            Some(0) if rest == CREATED || !answer.complete => Ok(()),
            // it takes its time: that is seen to when the broker creates it
            None if !ended => Ok(()),
            code => Err(format!("{step} ended the probe process (exit code {})", code.unwrap_or(-1))),
        };
    }
    if let Some(why) = text.strip_prefix("refused ") {
        return Err(why.trim_end().to_owned());
    }
    match status.and_then(|status| status.code()) {
        None => Err(format!("{step} did not end within {} s", LOAD_LIMIT.as_secs())),
        Some(code) => Err(format!("{step} ended the probe process (exit code {code})")),
    }
}

fn name_of(number: i32) -> String {
    let names = [
        (4, "ILL"),
        (6, "ABRT"),
        (7, "BUS"),
        (8, "FPE"),
        (9, "KILL"),
        (11, "SEGV"),
        (24, "XCPU"),
        (31, "SYS"),
    ];
    names.iter().find(|(n, _)| *n == number).map(|(_, name)| format!(" (SIG{name})")).unwrap_or_default()
}

/// Runs as a probe if the program was started as one, and returns the exit code that `main` then returns at once; `None`
/// otherwise. To be called first thing in the `main` of the program that
/// [`BrokerBuilder::library_probe`](crate::BrokerBuilder::library_probe) names.
pub fn run_library_probe() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ARGUMENT || arguments.next().is_some() {
        return None;
    }
    set_limits();
    // what the library says of itself is nobody's to read
    std::panic::set_hook(Box::new(|_| ()));
    let answer = |text: &str| {
        let mut output = std::io::stdout().lock();
        _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    };
    if let Err(why) = probe(answer) {
        answer(&format!("refused {}\n", why.replace('\n', " ")));
    }
    Some(ExitCode::SUCCESS)
}

fn set_limits() {
    // whatever cannot be set is not limited
    _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    for (resource, limit) in
        [(Resource::Core, 0), (Resource::Cpu, CPU_SECONDS), (Resource::Data, MEMORY_BYTES)]
    {
        _ = rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) });
    }
}

fn probe(answer: impl Fn(&str)) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the probe cannot read it: {error}");
    // a description of its own, since the position of the other one is shared with the broker
    let mut copy = File::open("/proc/self/fd/0").map_err(failed)?;
    let mut bytes = Vec::new();
    copy.read_to_end(&mut bytes).map_err(failed)?;
    let mut input = String::new();
    File::open("/proc/self/fd/2").and_then(|mut file| file.read_to_string(&mut input)).map_err(failed)?;
    let record = inspect(&bytes)?;
    drop(bytes);
    let root = mapping::map(copy, Path::new(""), &record)?;
    answer(LOADED);
    let (instance, config) = input.split_once('\n').unwrap_or_default();
    let host = FakeHost::new().object();
    let context = RawContext { flags: 0, instance: instance.into(), config: config.into() };
    // an error is reported by the broker, which gets it as well
    if let Ok(object) = root.create()(host, &context).into_result() {
        object.stop(0);
        drop(object);
    }
    answer(CREATED);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str, complete: bool) -> Answer {
        Answer { text: text.to_owned(), complete }
    }

    #[test]
    fn what_ends_the_probe_is_refused_and_what_is_slow_is_not() {
        let ended = |raw: i32| Some(ExitStatus::from_raw(raw));
        assert_eq!(judge(&answer("loaded\ncreated\n", true), ended(0)), Ok(()));
        assert_eq!(judge(&answer("loaded\n", false), None), Ok(()), "create takes its time");
        assert_eq!(judge(&answer("loaded\n", false), ended(0)), Ok(()), "and ends after its limit");
        assert_eq!(
            judge(&answer("refused its layout differs\n", true), ended(0)).unwrap_err(),
            "its layout differs"
        );
        let refused =
            |text: &str, complete: bool, status| judge(&answer(text, complete), status).unwrap_err();
        assert!(
            refused("", true, ended(11))
                .starts_with("loading it ended the probe process by signal 11 (SIGSEGV)")
        );
        assert!(
            refused("loaded\n", true, ended(6)).starts_with("creating an instance of it ended the probe")
        );
        assert!(refused("loaded\ncreated\n", true, ended(11)).contains("SIGSEGV"), "its destructors count");
        assert!(refused("", false, None).contains("did not end within 20 s"));
        assert!(refused("loaded\n", true, ended(3 << 8)).contains("exit code 3"));
        assert!(refused("nonsense", true, ended(0)).contains("exit code 0"));
    }
}
