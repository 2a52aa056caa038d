//! Probes a library in a separate process before it is loaded: a damaged library ends that process instead of
//! the broker. Owns both sides of the probe and its limits. Cannot detect faults of code that runs only
//! later.

use elbus_plugin_api::{
    abi::{IntoRaw, RawContext},
    testing::FakeHost,
};
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

use super::{inspect::inspect, mapping};

/// The only argument of a program that runs as a probe.
const ARGUMENT: &str = "--probe-library";
/// Time limit for loading a library and checking its layout.
const LOAD_LIMIT: Duration = Duration::from_secs(20);
/// Time limit for creating and dropping an instance. A slower one has not crashed the process, so it passes.
const CREATE_LIMIT: Duration = Duration::from_secs(1);
/// CPU time limit of a probe, in seconds.
const CPU_SECONDS: u64 = 20;
/// Memory limit of a probe, in addition to mapped files.
const MEMORY_BYTES: u64 = 4 << 30;
/// Maximum length of a probe's answer.
const MAX_ANSWER_BYTES: usize = 8 * 1024;
/// Written by a probe when the library is loaded and its layout matches.
const LOADED: &str = "loaded\n";
/// Written by a probe when an instance was created and dropped.
const CREATED: &str = "created\n";

/// Probes libraries with a program that calls [`run_library_probe`] first in its `main`.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    program: PathBuf,
}

impl Probe {
    pub(crate) fn new(program: PathBuf) -> Self {
        Probe { program }
    }

    /// Loads the sealed copy in another process, creates an instance with this name and table, and drops it.
    ///
    /// # Errors
    /// Why the library must not be loaded. If the probe itself cannot run, that is logged and the library
    /// passes.
    pub(super) fn run(&self, path: &Path, copy: &File, instance: &str, config: &str) -> Result<(), String> {
        let begun = Instant::now();
        let mut child = match self.start(copy, instance, config) {
            Ok(child) => child,
            Err(error) => {
                tracing::warn!(
                    path = %path.display(), program = %self.program.display(), %error,
                    "library is loaded without a probe: cannot start the probe program"
                );
                return Ok(());
            }
        };
        let answer = child.stdout.take().map(|output| read_answer(output, begun)).unwrap_or_default();
        let status = wait_or_kill(&mut child);
        let milliseconds = begun.elapsed().as_millis();
        tracing::debug!(path = %path.display(), milliseconds, "library probed");
        evaluate(&answer, status)
    }

    fn start(&self, copy: &File, instance: &str, config: &str) -> std::io::Result<Child> {
        let mut input = File::from(rustix::fs::memfd_create("probe", rustix::fs::MemfdFlags::CLOEXEC)?);
        write!(input, "{}\n{config}", instance.replace('\n', " "))?;
        input.rewind()?;
        Command::new(&self.program)
            .arg(ARGUMENT)
            .stdin(copy.try_clone()?)
            // the only other file descriptor that `Command` can pass: the probe reads from it
            .stderr(OwnedFd::from(input))
            .stdout(Stdio::piped())
            .spawn()
    }
}

/// The output of a probe.
#[derive(Debug, Default)]
struct Answer {
    text: String,
    /// The probe has closed its output; it was not cut off.
    complete: bool,
}

/// Reads until the probe closes its output or exceeds its time limit.
fn read_answer(mut output: ChildStdout, begun: Instant) -> Answer {
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
                Ok(read) if bytes.len() + read <= MAX_ANSWER_BYTES => {
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

/// Waits for a process that has closed its output; kills any other.
fn wait_or_kill(child: &mut Child) -> Option<ExitStatus> {
    let limit = Instant::now() + CREATE_LIMIT;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < limit => std::thread::sleep(Duration::from_micros(200)),
            _ => break,
        }
    }
    // fails if the process has ended meanwhile
    _ = child.kill();
    _ = child.wait();
    None
}

/// Decides from the answer and exit status of a probe whether the library passes.
fn evaluate(answer: &Answer, status: Option<ExitStatus>) -> Result<(), String> {
    let text = &answer.text;
    let step = if text.starts_with(LOADED) { "creating an instance of it" } else { "loading it" };
    if let Some(signal) = status.and_then(|status| status.signal()) {
        let name = signal_name(signal);
        return Err(format!("{step} ended the probe process by signal {signal}{name}; the file is damaged"));
    }
    if let Some(rest) = text.strip_prefix(LOADED) {
        let ended = answer.complete && status.is_some();
        return match status.and_then(|status| status.code()) {
            // the output of a slow probe is not read after the time limit
            Some(0) if rest == CREATED || !answer.complete => Ok(()),
            // slow: the broker's own limits apply when it creates the instance
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

fn signal_name(number: i32) -> String {
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

/// Runs as a probe if the program was started as one, and returns the exit code that `main` must then return
/// at once; `None` otherwise. Must be called first in the `main` of the program that
/// [`BrokerBuilder::library_probe`](crate::BrokerBuilder::library_probe) names.
///
/// ```no_run
/// use elbus_broker::{Broker, run_library_probe};
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     if let Some(code) = run_library_probe() {
///         return code;
///     }
///     let builder = Broker::builder().library_probe("/proc/self/exe");
///     // ...
///     ExitCode::SUCCESS
/// }
/// ```
pub fn run_library_probe() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ARGUMENT || arguments.next().is_some() {
        return None;
    }
    set_limits();
    // panic messages of the library are not printed
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
    // a limit that cannot be set is not enforced
    _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    for (resource, limit) in
        [(Resource::Core, 0), (Resource::Cpu, CPU_SECONDS), (Resource::Data, MEMORY_BYTES)]
    {
        _ = rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) });
    }
}

fn probe(answer: impl Fn(&str)) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the probe cannot read it: {error}");
    // opened again, since the passed descriptor shares its position with the broker's
    let mut copy = File::open("/proc/self/fd/0").map_err(failed)?;
    let mut bytes = Vec::new();
    copy.read_to_end(&mut bytes).map_err(failed)?;
    let mut input = String::new();
    File::open("/proc/self/fd/2").and_then(|mut file| file.read_to_string(&mut input)).map_err(failed)?;
    let manifest = inspect(&bytes)?;
    drop(bytes);
    let root = mapping::map(copy, Path::new(""), &manifest)?;
    answer(LOADED);
    // in a thread of its own, as the broker does: what damaged code finds in uninitialised memory is then the
    // same in both
    let created = std::thread::Builder::new().spawn(move || {
        let (instance, config) = input.split_once('\n').unwrap_or_default();
        let host = FakeHost::new().into_raw();
        let context = RawContext { flags: 0, instance: instance.into(), config: config.into() };
        // the broker gets the same error and reports it
        if let Ok(object) = root.create()(host, &context).into_result() {
            object.stop(0);
            drop(object);
        }
    });
    created.and_then(|thread| thread.join().map_err(|_| std::io::ErrorKind::Other.into())).map_err(failed)?;
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
    fn a_library_that_crashes_the_probe_is_refused_and_a_slow_one_passes() {
        let ended = |raw: i32| Some(ExitStatus::from_raw(raw));
        assert_eq!(evaluate(&answer("loaded\ncreated\n", true), ended(0)), Ok(()));
        assert_eq!(evaluate(&answer("loaded\n", false), None), Ok(()), "creating an instance is slow");
        assert_eq!(
            evaluate(&answer("loaded\n", false), ended(0)),
            Ok(()),
            "the probe ends after the time limit"
        );
        assert_eq!(
            evaluate(&answer("refused its layout differs\n", true), ended(0)).unwrap_err(),
            "its layout differs"
        );
        let refused =
            |text: &str, complete: bool, status| evaluate(&answer(text, complete), status).unwrap_err();
        assert!(
            refused("", true, ended(11))
                .starts_with("loading it ended the probe process by signal 11 (SIGSEGV)")
        );
        assert!(
            refused("loaded\n", true, ended(6)).starts_with("creating an instance of it ended the probe")
        );
        assert!(refused("loaded\ncreated\n", true, ended(11)).contains("SIGSEGV"), "a crash in a destructor");
        assert!(refused("", false, None).contains("did not end within 20 s"));
        assert!(refused("loaded\n", true, ended(3 << 8)).contains("exit code 3"));
        assert!(refused("nonsense", true, ended(0)).contains("exit code 0"));
    }
}
