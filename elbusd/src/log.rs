//! The log on standard error, written by a thread of its own: a pipe that nobody reads, a full disk or a closed
//! descriptor hold up nobody who logs. What there is no room for is lost, and how much that was is said. What clients
//! can cause is limited by [`throttle`] and written by [`fields`].

pub(crate) mod fields;
pub(crate) mod instance;
pub(crate) mod throttle;

use parking_lot::{Condvar, Mutex};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait to be written.
const ROOM: usize = 1 << 20;
/// Suppressed messages are reported so long after the first of them.
const SUPPRESSED_EVERY: Duration = Duration::from_secs(10);
/// Targets that suppressed messages are counted for; the others count as one.
const MAX_SUPPRESSED_TARGETS: usize = 64;
/// What the last lines get to be written in at the end.
const LAST: Duration = Duration::from_secs(1);

/// Where lines wait. Cheap to clone; all clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    /// Lines that were not written since the last time it was said.
    lost: u64,
    /// Messages that were suppressed, by target, and when that is to be reported.
    suppressed: BTreeMap<String, u64>,
    report_at: Option<Instant>,
    /// Whether the thread is writing.
    busy: bool,
    /// Whether the last write failed: the next one is made with the next line.
    failing: bool,
}

impl Waiting {
    fn is_written(&self) -> bool {
        !self.busy && self.text.is_empty() && self.suppressed.is_empty() && (self.lost == 0 || self.failing)
    }

    /// Appends a line for each target of suppressed messages.
    fn report_suppressed(&mut self) {
        for (target, count) in std::mem::take(&mut self.suppressed) {
            let mut line = format!("elbusd: {count} messages suppressed target=");
            // a plugin may call its targets anything
            _ = fields::escape(&mut line, &format_args!("{target}"));
            line.push('\n');
            self.text.extend_from_slice(line.as_bytes());
        }
        self.report_at = None;
    }
}

impl Log {
    /// Starts the thread that writes to `output`.
    ///
    /// # Errors
    /// Where the system has none to give.
    pub(crate) fn start(mut output: impl Write + Send + 'static) -> io::Result<Self> {
        let log = Log::default();
        let shared = log.0.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || shared.write(&mut output))?;
        Ok(log)
    }

    /// Takes a whole line, or counts it as lost. Never blocks for longer than another line takes to be copied.
    pub(crate) fn line(&self, line: &[u8]) {
        let mut waiting = self.0.waiting.lock();
        if waiting.text.len() + line.len() > ROOM {
            waiting.lost += 1;
            return;
        }
        waiting.text.extend_from_slice(line);
        self.0.changed.notify_all();
    }

    /// Counts a message that was not written because there were too many like it.
    pub(crate) fn suppress(&self, target: &str) {
        let mut waiting = self.0.waiting.lock();
        let known = waiting.suppressed.contains_key(target);
        let target =
            if known || waiting.suppressed.len() < MAX_SUPPRESSED_TARGETS { target } else { "other" };
        *waiting.suppressed.entry(target.to_owned()).or_default() += 1;
        if waiting.report_at.is_none() {
            waiting.report_at = Some(Instant::now() + SUPPRESSED_EVERY);
            self.0.changed.notify_all();
        }
    }

    /// Waits until everything is written, for a moment at most.
    pub(crate) fn finish(&self) {
        self.finish_within(LAST);
    }

    /// As [`finish`](Self::finish), for so long at most.
    pub(crate) fn finish_within(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut waiting = self.0.waiting.lock();
        waiting.report_suppressed();
        self.0.changed.notify_all();
        while !waiting.is_written() {
            if self.0.changed.wait_until(&mut waiting, end).timed_out() {
                return;
            }
        }
    }
}

impl Shared {
    fn write(&self, output: &mut impl Write) {
        let mut writer = Writer { output, torn: false, why: None };
        loop {
            let (text, lost) = self.next();
            // a full disk may have room again later; until then it is counted how much is missing
            let mut failed = writer.write(&text);
            if lost > 0 && failed == 0 {
                let why = writer.why.take();
                let why = why.unwrap_or_else(|| "the log was not read or written fast enough".to_owned());
                let said = format!("elbusd: {lost} lines of the log were lost here: {why}\n");
                failed = if writer.write(said.as_bytes()) == 0 { 0 } else { lost };
            } else {
                failed += lost;
            }
            let mut waiting = self.waiting.lock();
            (waiting.busy, waiting.failing) = (false, failed > 0);
            waiting.lost += failed;
        }
    }

    /// What waits; blocks until something does.
    fn next(&self) -> (Vec<u8>, u64) {
        let mut waiting = self.waiting.lock();
        self.changed.notify_all();
        while waiting.text.is_empty() && (waiting.lost == 0 || waiting.failing) {
            let Some(at) = waiting.report_at else {
                self.changed.wait(&mut waiting);
                continue;
            };
            if self.changed.wait_until(&mut waiting, at).timed_out() {
                break;
            }
        }
        if waiting.report_at.is_some_and(|at| at <= Instant::now()) {
            waiting.report_suppressed();
        }
        waiting.busy = true;
        (std::mem::take(&mut waiting.text), std::mem::take(&mut waiting.lost))
    }
}

/// Where lines go, and how the last write ended.
struct Writer<'a, W> {
    output: &'a mut W,
    /// The last line is not whole: the next one must not be joined to it.
    torn: bool,
    /// Why the last write failed.
    why: Option<String>,
}

impl<W: Write> Writer<'_, W> {
    /// Writes lines, and returns how many of them are not whole in the output.
    fn write(&mut self, text: &[u8]) -> u64 {
        let mut left = text;
        if !text.is_empty()
            && let Err(error) = self.mend().and_then(|()| self.write_some(&mut left))
        {
            self.why = Some(error.to_string());
        }
        let written = text.len() - left.len();
        if let Some(last) = written.checked_sub(1).and_then(|last| text.get(last)) {
            self.torn = *last != b'\n';
        }
        left.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.write_some(&mut &b"\n"[..])?;
            self.torn = false;
        }
        Ok(())
    }

    /// Writes as much as can be written; what is left stays in `left`.
    fn write_some(&mut self, left: &mut &[u8]) -> io::Result<()> {
        while !left.is_empty() {
            match self.output.write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => *left = left.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// One event on its way to a [`Log`].
pub(crate) struct Line<'a>(&'a Log, Vec<u8>);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.0.line(&self.1);
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        crate::late::note_formatting();
        Line(self, Vec::with_capacity(128))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Takes what it is given when it is let, or fails.
    struct Output {
        go: mpsc::Receiver<bool>,
        got: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.go.recv().unwrap_or(true) {
                _ = self.got.send(bytes.to_vec());
                Ok(bytes.len())
            } else {
                Err(io::ErrorKind::StorageFull.into())
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_stuck_output_and_what_is_lost_is_said() {
        let ((go, wait), (got, given)) = (mpsc::channel(), mpsc::channel());
        let log = Log::start(Output { go: wait, got }).unwrap();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        // far more than there is room for, while nothing is written
        (0..4096).for_each(|_| log.line(&line));
        drop(go);
        log.finish();
        let written: Vec<_> = given.try_iter().flatten().collect();
        let text = String::from_utf8(written).unwrap();
        let lines = text.lines().filter(|line| line.starts_with('x')).count();
        assert!((1024..=2048).contains(&lines), "{lines}");
        let lost: usize = text
            .lines()
            .filter_map(|line| line.strip_prefix("elbusd: ")?.split(' ').next()?.parse::<usize>().ok())
            .sum();
        assert_eq!(lines + lost, 4096, "every line is accounted for");
    }

    #[test]
    fn suppressed_messages_are_counted_by_target_within_bounds() {
        let ((go, wait), (got, given)) = (mpsc::channel(), mpsc::channel());
        let log = Log::start(Output { go: wait, got }).unwrap();
        for number in 0..1000 {
            log.suppress("elbus_stream::session");
            log.suppress(&number.to_string());
        }
        drop(go);
        log.finish();
        let text = String::from_utf8(given.try_iter().flatten().collect()).unwrap();
        assert!(text.contains("elbusd: 1000 messages suppressed target=elbus_stream::session\n"), "{text}");
        assert!(text.contains("elbusd: 937 messages suppressed target=other\n"), "{text}");
    }

    #[test]
    fn a_full_disk_is_tried_again_with_the_next_line() {
        let ((go, wait), (got, given)) = (mpsc::channel(), mpsc::channel());
        let log = Log::start(Output { go: wait, got }).unwrap();
        go.send(false).unwrap();
        log.line(b"one\n");
        support_wait(|| log.0.waiting.lock().lost == 1);
        go.send(true).unwrap();
        go.send(true).unwrap();
        log.line(b"two\n");
        log.finish();
        let written: Vec<_> = given.try_iter().flatten().collect();
        let text = String::from_utf8(written).unwrap();
        assert!(text.starts_with("two\nelbusd: 1 lines of the log were lost"), "{text}");
    }

    /// Takes so many bytes, then fails, as a file does that has reached the limit of its size.
    #[derive(Clone)]
    struct Limited(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Write for Limited {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut inside = self.0.lock();
            let length = bytes.len().min(inside.0);
            if length == 0 {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            inside.0 -= length;
            inside.1.extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_file_that_is_too_large_tears_one_line_and_counts_it() {
        let output = Limited(Arc::new(Mutex::new((10, Vec::new()))));
        let log = Log::start(output.clone()).unwrap();
        log.line(b"one\ntwo\nthree\nfour\n");
        support_wait(|| log.0.waiting.lock().lost == 2);
        output.0.lock().0 = 1000;
        log.line(b"five\n");
        log.finish();
        let text = String::from_utf8(output.0.lock().1.clone()).unwrap();
        assert_eq!(text, "one\ntwo\nth\nfive\nelbusd: 2 lines of the log were lost here: file too large\n");
    }

    fn support_wait(mut ready: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !ready() {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
