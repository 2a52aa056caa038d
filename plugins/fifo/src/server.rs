//! The thread that reads a FIFO and sends the requests of its lines. Never opens or removes the FIFO, and
//! never stores more than one read and one line of it: if receivers are slow, writers wait in the kernel.

use elbus_plugin_api::{
    BROKER_NAME, Client, Code, Host, Op, Payload, PluginError, PluginThread, Qos, Request, rate::LogThrottle,
};
use rustix::{event::epoll, io::Errno};
use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    command::{self, Command},
    lines::{Line, Lines},
    pipe::Pipe,
    signal::Signal,
};

/// The default capacity of a pipe.
const READ_BYTES: usize = 64 * 1024;
/// The longest wait for receivers. Transports disconnect a stalled receiver much sooner; this bounds any
/// other case.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Log lines about one FIFO in a window; further ones are counted.
const LOG_LINES: u32 = 20;
const LOG_WINDOW: Duration = Duration::from_secs(10);

/// Limits of lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_line_bytes: usize,
    /// Lines can publish to the topics of the broker itself.
    pub(crate) admin: bool,
}

/// Starts the thread.
pub(crate) fn spawn(
    host: &Host,
    pipe: Arc<Pipe>,
    signal: Arc<Signal>,
    sender: Client,
    limits: Limits,
) -> Result<PluginThread, PluginError> {
    host.spawn(move || {
        let outgoing = Outgoing { sender, throttle: LogThrottle::new(LOG_LINES, LOG_WINDOW), limits };
        let mut reader = Reader { pipe, signal, outgoing };
        if let Err(error) = reader.run() {
            tracing::error!(path = %reader.pipe.path().display(), %error, "fifo is no longer read");
        }
        let suppressed = reader.outgoing.throttle.suppressed();
        if suppressed > 0 {
            tracing::warn!(path = %reader.pipe.path().display(), suppressed, "log lines about the fifo were suppressed");
        }
    })
}

struct Reader {
    pipe: Arc<Pipe>,
    signal: Arc<Signal>,
    outgoing: Outgoing,
}

struct Outgoing {
    sender: Client,
    throttle: LogThrottle,
    limits: Limits,
}

impl Reader {
    /// Reads until the instance ends.
    fn run(&mut self) -> Result<(), Errno> {
        let mut lines = Lines::new(self.outgoing.limits.max_line_bytes);
        let mut bytes = vec![0; READ_BYTES];
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        self.pipe.watch(&events, epoll::EventData::new_u64(0))?;
        epoll::add(&events, &*self.signal, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?;
        // the flag is checked between each clearing of the signal and the next wait, so that no stop is
        // missed
        while !self.signal.is_stopping() {
            match self.pipe.read(&mut bytes) {
                Ok(0) => {
                    // the last writer has closed: its unfinished line is not joined to the next writer's
                    if let Some(line) = lines.take_partial() {
                        self.outgoing.log_skipped(&line, &"its writer closed before the end of the line");
                    }
                    self.wait(&events)?;
                }
                Ok(read) => {
                    let read = bytes.get(..read).unwrap_or_default();
                    lines.feed(read, |line| self.outgoing.process(line));
                    self.finish_batch();
                }
                Err(Errno::AGAIN) => self.wait(&events)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for data, the close of a writer, or the end of the instance.
    fn wait(&self, events: &OwnedFd) -> Result<(), Errno> {
        let mut ready =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 2];
        match epoll::wait(events, &mut ready[..], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        self.signal.clear();
        Ok(())
    }

    /// Ends the batch, and waits if a receiver is over its limit.
    fn finish_batch(&mut self) {
        if !self.outgoing.sender.end_batch() {
            return;
        }
        let (notifier, ready) = self.signal.ready();
        self.outgoing.sender.when_ready(notifier);
        if !self.signal.wait_for(&ready, MAX_WAIT) {
            tracing::warn!(
                path = %self.pipe.path().display(),
                waited = ?MAX_WAIT,
                "fifo is read although a receiver is over its limit"
            );
        }
    }
}

impl Outgoing {
    fn process(&mut self, line: Line<'_>) {
        match line {
            Line::TooLong(start) => {
                let limit = self.limits.max_line_bytes;
                self.log_skipped(start, &format_args!("line exceeds {limit} bytes (max_line_bytes)"));
            }
            Line::Whole(line) => match command::parse(line) {
                Ok(None) => {}
                // receivers could not distinguish it from publications of the broker itself
                Ok(Some(command))
                    if command.op == Op::Publish && is_broker_topic(command.target) && !self.limits.admin =>
                {
                    self.log_skipped(line, &"topics of the broker need `admin = true`");
                }
                Ok(Some(command)) => self.send(&command),
                Err(error) => self.log_skipped(line, &error),
            },
        }
    }

    fn send(&mut self, command: &Command<'_>) {
        let payloads = [Payload::from(&*command.payload)];
        let result = self.sender.dispatch(&Request::new(command.op, Qos::NO, command.target, &payloads));
        // the broker logs what its access rules deny, and the rule
        if !matches!(result.code(), Code::Ok | Code::AccessDenied)
            && let Some(suppressed) = self.throttle.admit(Instant::now())
        {
            let target = command::beginning(command.target);
            let code = result.code();
            tracing::warn!(?target, op = ?command.op, %code, suppressed, "line of the fifo not sent");
        }
    }

    fn log_skipped(&mut self, line: &[u8], reason: &dyn std::fmt::Display) {
        if let Some(suppressed) = self.throttle.admit(Instant::now()) {
            // the cut can split a character, hence more bytes than are shown
            let start = String::from_utf8_lossy(line.get(..256).unwrap_or(line));
            tracing::warn!(line = ?command::beginning(&start), %reason, suppressed, "line of the fifo skipped");
        }
    }
}

/// Returns whether a topic is one that only the broker publishes to.
fn is_broker_topic(topic: &str) -> bool {
    topic.strip_prefix(BROKER_NAME).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::testing::FakeHost;
    use std::io::Write;

    const LONG: Duration = Duration::from_secs(30);

    fn targets(fake: &FakeHost) -> Vec<String> {
        fake.requests().into_iter().map(|request| request.target).collect()
    }

    #[test]
    fn reading_resumes_when_receivers_have_drained_and_a_stop_ends_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let pipe = Arc::new(Pipe::open(&path, 0o600, None).unwrap());
        let signal = Arc::new(Signal::new().unwrap());
        let fake = FakeHost::new();
        ["first", "second"].iter().for_each(|target| fake.congest(target));
        let host = fake.host("test");
        let sender = host.system_sender("fifo", false).unwrap();
        let limits = Limits { max_line_bytes: 100, admin: false };
        let server = spawn(&host, pipe, signal.clone(), sender, limits).unwrap();
        let mut fifo = std::fs::File::options().write(true).open(&path).unwrap();
        fifo.write_all(b"first x\n").unwrap();
        assert!(fake.wait_until(LONG, |fake| fake.pending_notifiers() == 1));
        fifo.write_all(b"second x\n").unwrap();
        assert_eq!(targets(&fake), ["first"]);
        fake.drain("first");
        assert!(fake.wait_until(LONG, |fake| fake.pending_notifiers() == 1));
        assert_eq!(targets(&fake), ["first", "second"]);
        signal.stop();
        assert!(server.ended_within(LONG));
    }
}
