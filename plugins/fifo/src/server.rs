//! The thread that reads a FIFO and sends what its lines ask for. Never opens or removes the FIFO, never
//! holds more than one read and one line of it: where receivers do not keep up, writers wait in the kernel.

use elbus_plugin_api::{
    BROKER_NAME, Client, Code, Host, Op, Payload, PluginError, PluginThread, Qos, Request,
};
use rustix::{event::epoll, io::Errno};
use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    command::{self, Command},
    complaint::Complaints,
    lines::{Line, Lines},
    pipe::Pipe,
    signal::Signal,
};

/// As much as a pipe holds.
const READ_BYTES: usize = 64 * 1024;
/// A receiver that takes nothing is disconnected by its transport much sooner; this is for one that is not.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What lines may be, and what they may ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_line_bytes: usize,
    /// They may publish to the topics of the broker itself.
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
        let outgoing = Outgoing { sender, complaints: Complaints::new(Instant::now()), limits };
        let mut reader = Reader { pipe, signal, outgoing };
        if let Err(error) = reader.run() {
            tracing::error!(path = %reader.pipe.path().display(), %error, "fifo no longer read");
        }
        let suppressed = reader.outgoing.complaints.suppressed();
        if suppressed > 0 {
            tracing::warn!(path = %reader.pipe.path().display(), suppressed, "lines of the fifo were wrong and not logged");
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
    complaints: Complaints,
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
        // after whatever clears the signal the flag is looked at before the next wait, so that no stop is
        // missed
        while !self.signal.is_stopping() {
            match self.pipe.read(&mut bytes) {
                Ok(0) => {
                    // the last writer has left: what it has not ended is not joined to what the next one
                    // writes
                    if let Some(line) = lines.cut() {
                        self.outgoing.complain(&line, &"its writer left before the end of the line");
                    }
                    self.wait(&events)?;
                }
                Ok(read) => {
                    let read = bytes.get(..read).unwrap_or_default();
                    lines.feed(read, |line| self.outgoing.take(line));
                    self.finish_batch();
                }
                Err(Errno::AGAIN) => self.wait(&events)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until there is something to read, a writer leaves, or the instance ends.
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

    /// Sends the batch on its way, and waits where a receiver is over its limit.
    fn finish_batch(&mut self) {
        if !self.outgoing.sender.end_batch() {
            return;
        }
        let (notifier, ready) = self.signal.ready();
        self.outgoing.sender.when_ready(notifier);
        if !self.signal.wait_for(&ready, LONGEST_WAIT) {
            tracing::warn!(
                path = %self.pipe.path().display(),
                "a receiver is still over its limit after {} s, reading on",
                LONGEST_WAIT.as_secs()
            );
        }
    }
}

impl Outgoing {
    fn take(&mut self, line: Line<'_>) {
        match line {
            Line::TooLong(start) => {
                let limit = self.limits.max_line_bytes;
                self.complain(start, &format_args!("line exceeds {limit} bytes (max_line_bytes)"));
            }
            Line::Whole(line) => match command::parse(line) {
                Ok(None) => {}
                // receivers could not tell it from what the broker itself publishes
                Ok(Some(command))
                    if command.op == Op::Publish && is_own(command.target) && !self.limits.admin =>
                {
                    self.complain(line, &"topics of the broker need `admin = true`");
                }
                Ok(Some(command)) => self.send(&command),
                Err(wrong) => self.complain(line, &wrong),
            },
        }
    }

    fn send(&mut self, command: &Command<'_>) {
        let payloads = [Payload::from(&*command.payload)];
        let result = self.sender.dispatch(&Request::new(command.op, Qos::NO, command.target, &payloads));
        // the broker logs what its access rules deny, and the rule
        if !matches!(result.code(), Code::Ok | Code::AccessDenied)
            && let Some(suppressed) = self.complaints.may_log(Instant::now())
        {
            let target = command::beginning(command.target);
            tracing::warn!(?target, op = ?command.op, suppressed, "line of the fifo not sent: {}", result.code());
        }
    }

    fn complain(&mut self, line: &[u8], why: &dyn std::fmt::Display) {
        if let Some(suppressed) = self.complaints.may_log(Instant::now()) {
            // the cut may go through a character, hence more bytes than are shown
            let start = String::from_utf8_lossy(line.get(..256).unwrap_or(line));
            tracing::warn!(line = ?command::beginning(&start), suppressed, "line of the fifo skipped: {why}");
        }
    }
}

/// Whether a topic is one of those that the broker publishes to.
fn is_own(topic: &str) -> bool {
    topic.strip_prefix(BROKER_NAME).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi_stable::{sabi_trait::TD_Opaque, std_types::RStr};
    use elbus_plugin_api::{
        Dispatch,
        abi::{NotifierObject, RawClient, RawClient_TO},
        testing::FakeHost,
    };
    use parking_lot::{Condvar, Mutex};
    use std::io::Write;

    /// What happened, in order, and the notifier that was left with the broker.
    #[derive(Default)]
    struct Course {
        steps: Mutex<(Vec<String>, Option<NotifierObject>)>,
        changed: Condvar,
    }

    impl Course {
        fn note(&self, step: String, notifier: Option<NotifierObject>) {
            let mut steps = self.steps.lock();
            steps.0.push(step);
            steps.1 = notifier.or(steps.1.take());
            self.changed.notify_all();
        }

        fn wait_for(&self, step: &str) -> Option<NotifierObject> {
            let mut steps = self.steps.lock();
            let until = Instant::now() + Duration::from_secs(30);
            while !steps.0.iter().any(|s| s == step) {
                assert!(!self.changed.wait_until(&mut steps, until).timed_out(), "{step}: {:?}", steps.0);
            }
            steps.1.take()
        }
    }

    /// Somebody whose receivers are always over their limit.
    struct Crowded(Arc<Course>);

    impl RawClient for Crowded {
        fn dispatch(&mut self, request: &Request<'_>) -> Dispatch {
            self.0.note(format!("to {}", request.target()), None);
            Dispatch::new(Code::Ok, 1)
        }
        fn end_batch(&mut self) -> bool {
            true
        }
        fn when_ready(&mut self, notifier: NotifierObject) {
            self.0.note("waits".to_owned(), Some(notifier));
        }
        fn set_close_reason(&mut self, _: RStr<'_>) {}
    }

    #[test]
    fn it_reads_on_when_receivers_have_drained_and_ends_while_it_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let pipe = Arc::new(Pipe::open(&path, 0o600, None).unwrap());
        let signal = Arc::new(Signal::new().unwrap());
        let course = Arc::new(Course::default());
        let crowded = Client::from_object(RawClient_TO::from_value(Crowded(course.clone()), TD_Opaque));
        let server = spawn(
            &FakeHost::new().host("test"),
            pipe,
            signal.clone(),
            crowded,
            Limits { max_line_bytes: 100, admin: false },
        )
        .unwrap();
        let mut fifo = std::fs::File::options().write(true).open(&path).unwrap();
        fifo.write_all(b"first x\n").unwrap();
        let notifier = course.wait_for("waits").unwrap();
        fifo.write_all(b"second x\n").unwrap();
        course.note("woken".to_owned(), None);
        notifier.notify();
        course.wait_for("to second");
        assert_eq!(course.steps.lock().0[..4], ["to first", "waits", "woken", "to second"]);
        signal.stop();
        assert!(server.ended_within(Duration::from_secs(30)));
    }
}
