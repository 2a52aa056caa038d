//! An observer to start from: appends a line to a file for each message, with its result.
//!
//! ```toml
//! [[plugin]]
//! name = "recorder"
//! library = "recorder"
//! [plugin.config]
//! file = "/var/log/elbus/messages"
//! filters = ["sensors/#"]      # publications to these topics
//! masks = ["plc.*"]            # messages to these clients
//! ```

use elbus_plugin_api::{
    Config, Host, Plugin, PluginError, PluginThread,
    hooks::{Hook, HookScope, Observation, Observer},
};
use serde::Deserialize;
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

/// Bytes of messages that wait to be written. What does not fit is dropped and reported in the file.
const QUEUE_BYTES: usize = 8 << 20;

#[derive(Deserialize)]
struct Settings {
    file: PathBuf,
    #[serde(default)]
    filters: Vec<String>,
    #[serde(default)]
    masks: Vec<String>,
}

/// The plugin.
pub struct Recorder {
    host: Host,
    file: PathBuf,
    scope: HookScope,
    writer: Mutex<Option<(Hook, PluginThread)>>,
}

/// Writes messages until the observer ends.
fn record(mut observer: Observer, file: File) -> std::io::Result<()> {
    let mut file = BufWriter::new(file);
    while let Some(first) = observer.receive_blocking() {
        write_line(&mut file, &first)?;
        while let Some(next) = observer.try_receive() {
            write_line(&mut file, &next)?;
        }
        file.flush()?;
    }
    Ok(())
}

fn write_line(file: &mut impl Write, seen: &Observation) -> std::io::Result<()> {
    if seen.missed() > 0 {
        writeln!(file, "{} messages missed", seen.missed())?;
    }
    let seconds = seen.time().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let payload = seen.payload().escape_ascii();
    let (sender, target, code) = (seen.sender(), seen.target(), seen.code());
    writeln!(file, "{seconds:.6} {sender} -> {target} {code} {} {payload}", seen.recipients())
}

impl Plugin for Recorder {
    const ABOUT: &'static str = "writes a line for each message";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let Settings { file, filters, masks } = config.read()?;
        if filters.is_empty() && masks.is_empty() {
            return Err(PluginError::of_key(
                "filters",
                "expected at least one topic filter, or a mask in `masks`",
            ));
        }
        let scope = HookScope::new().publications(filters).messages(masks);
        scope.check()?;
        Ok(Recorder { host, file, scope, writer: Mutex::default() })
    }

    fn start(&self) -> Result<(), PluginError> {
        let file = File::options().create(true).append(true).open(&self.file);
        let file = file.map_err(|error| PluginError::of_key("file", error.to_string()))?;
        let (hook, observer) = self.host.add_observer(&self.scope, QUEUE_BYTES)?;
        let thread = self.host.spawn(move || {
            if let Err(error) = record(observer, file) {
                tracing::error!(%error, "recording ended: cannot write");
            }
        })?;
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some((hook, thread));
        Ok(())
    }

    /// Ends the observation, and waits until everything before is written.
    fn stop(&self, deadline: Duration) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((hook, thread)) = writer {
            drop(hook);
            thread.ended_within(deadline);
        }
    }
}

elbus_plugin_api::export_plugin!(Recorder);

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::{Code, Op, testing::FakeHost};

    #[test]
    fn a_line_is_written_for_each_message() {
        let file = std::env::temp_dir().join(format!("elbus-recorder-{}", std::process::id()));
        let fake = FakeHost::new();
        let config = format!("file = {file:?}\nfilters = ['t/#']");
        let instance = fake.create::<Recorder>("recorder", &config).unwrap();
        instance.start().unwrap();
        fake.observe("sensor", Op::Publish, "t/x", &[b"20.5", b"\n"], Code::Ok, 2);
        fake.observe("sensor", Op::Publish, "u", &[b"x"], Code::Ok, 2);
        fake.observe("sensor", Op::Publish, "t/x", &[b"end"], Code::NotDelivered, 0);
        let text = || std::fs::read_to_string(&file).unwrap_or_default();
        instance.stop(Duration::from_secs(10));
        let text = text();
        let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        let expected =
            ["sensor -> t/x ok 2 20.5", r"sensor -> t/x ok 2 \n", "sensor -> t/x not delivered 0 end"];
        _ = std::fs::remove_file(&file);
        assert_eq!(lines, expected);
    }
}
