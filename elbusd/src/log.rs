//! The log on standard error, written by a separate thread: an unread pipe, a full disk or a closed
//! descriptor does not block a thread that logs. Lines beyond the buffer are lost, and their number is
//! logged. [`throttle`] limits the lines that clients can cause, [`fields`] formats them, [`recent`] keeps
//! the last ones.

mod event_text;
pub(crate) mod exiting_thread;
pub(crate) mod fields;
pub(crate) mod instance;
pub(crate) mod recent;
pub(crate) mod throttle;

use parking_lot::{Condvar, Mutex};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};
use tracing_subscriber::fmt::MakeWriter;

/// Maximum bytes buffered.
const MAX_BUFFERED_BYTES: usize = 1 << 20;
/// Time from the first suppressed message to the report.
const SUPPRESSED_REPORT_DELAY: Duration = Duration::from_secs(10);
/// Targets whose suppressed messages are counted separately; the others count as one.
const MAX_SUPPRESSED_TARGETS: usize = 64;
/// Timeout for writing the last lines before the exit.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// The log's buffer. Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    changed: Condvar,
}

#[derive(Default)]
struct Buffer {
    text: Vec<u8>,
    /// Lines lost since the last report.
    lost: u64,
    /// Suppressed messages since the last report, by target.
    suppressed: BTreeMap<String, u64>,
    /// When to report them.
    report_at: Option<Instant>,
    /// Whether the thread is writing.
    busy: bool,
    /// Whether the last write failed. The next line causes the next attempt.
    failing: bool,
}

impl Buffer {
    fn is_written(&self) -> bool {
        !self.busy && self.text.is_empty() && self.suppressed.is_empty() && (self.lost == 0 || self.failing)
    }

    /// Appends a line for each target of suppressed messages.
    fn report_suppressed(&mut self) {
        for (target, count) in std::mem::take(&mut self.suppressed) {
            let mut line = format!("elbusd: {count} messages suppressed target=");
            // a plugin can choose any target
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
    /// The thread cannot be started.
    pub(crate) fn start(mut output: impl Write + Send + 'static) -> io::Result<Self> {
        let log = Log::default();
        let shared = log.0.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || shared.write(&mut output))?;
        Ok(log)
    }

    /// Buffers a line, or counts it as lost. Never blocks for longer than copying another line takes.
    pub(crate) fn line(&self, line: &[u8]) {
        let mut buffer = self.0.buffer.lock();
        if buffer.text.len() + line.len() > MAX_BUFFERED_BYTES {
            buffer.lost += 1;
            return;
        }
        buffer.text.extend_from_slice(line);
        self.0.changed.notify_all();
    }

    /// Counts a message that [`throttle`] has suppressed.
    pub(crate) fn suppress(&self, target: &str) {
        let mut buffer = self.0.buffer.lock();
        let known = buffer.suppressed.contains_key(target);
        let target = if known || buffer.suppressed.len() < MAX_SUPPRESSED_TARGETS { target } else { "other" };
        *buffer.suppressed.entry(target.to_owned()).or_default() += 1;
        if buffer.report_at.is_none() {
            buffer.report_at = Some(Instant::now() + SUPPRESSED_REPORT_DELAY);
            self.0.changed.notify_all();
        }
    }

    /// Waits until everything is written, for a limited time.
    pub(crate) fn finish(&self) {
        self.finish_within(FINISH_TIMEOUT);
    }

    /// As [`finish`](Self::finish), with another time limit.
    pub(crate) fn finish_within(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut buffer = self.0.buffer.lock();
        buffer.report_suppressed();
        self.0.changed.notify_all();
        while !buffer.is_written() {
            if self.0.changed.wait_until(&mut buffer, end).timed_out() {
                return;
            }
        }
    }
}

impl Shared {
    fn write(&self, output: &mut impl Write) {
        let mut writer = Writer { output, mid_line: false, error: None };
        loop {
            let (text, lost) = self.next();
            // a full disk may have room again later; until then lost lines are counted
            let mut failed = writer.write(&text);
            if lost > 0 && failed == 0 {
                let error = writer.error.take();
                let error = error.unwrap_or_else(|| "it was not read or written fast enough".to_owned());
                let report = format!("elbusd: {lost} log lines lost here error={error}\n");
                failed = if writer.write(report.as_bytes()) == 0 { 0 } else { lost };
            } else {
                failed += lost;
            }
            let mut buffer = self.buffer.lock();
            (buffer.busy, buffer.failing) = (false, failed > 0);
            buffer.lost += failed;
        }
    }

    /// Takes the buffered text and the number of lost lines. Blocks while there are none.
    fn next(&self) -> (Vec<u8>, u64) {
        let mut buffer = self.buffer.lock();
        self.changed.notify_all();
        while buffer.text.is_empty() && (buffer.lost == 0 || buffer.failing) {
            let Some(at) = buffer.report_at else {
                self.changed.wait(&mut buffer);
                continue;
            };
            if self.changed.wait_until(&mut buffer, at).timed_out() {
                break;
            }
        }
        if buffer.report_at.is_some_and(|at| at <= Instant::now()) {
            buffer.report_suppressed();
        }
        buffer.busy = true;
        (std::mem::take(&mut buffer.text), std::mem::take(&mut buffer.lost))
    }
}

/// The output, and the result of the last write.
struct Writer<'a, W> {
    output: &'a mut W,
    /// Whether the last line is incomplete: the next one must not be appended to it.
    mid_line: bool,
    /// The error of the last write that failed.
    error: Option<String>,
}

impl<W: Write> Writer<'_, W> {
    /// Writes lines. Returns how many of them were not written completely.
    fn write(&mut self, text: &[u8]) -> u64 {
        let mut left = text;
        if !text.is_empty()
            && let Err(error) = self.end_line().and_then(|()| self.write_some(&mut left))
        {
            self.error = Some(error.to_string());
        }
        let written = text.len() - left.len();
        if let Some(last) = written.checked_sub(1).and_then(|last| text.get(last)) {
            self.mid_line = *last != b'\n';
        }
        left.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    fn end_line(&mut self) -> io::Result<()> {
        if self.mid_line {
            self.write_some(&mut &b"\n"[..])?;
            self.mid_line = false;
        }
        Ok(())
    }

    /// Writes as much as possible; the rest stays in `left`.
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

/// A line being formatted, which is added to the [`Log`] when dropped.
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
        exiting_thread::init_sentinel();
        Line(self, Vec::with_capacity(128))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Accepts or fails each write as `go` says.
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
    fn a_stuck_output_blocks_nothing_and_lost_lines_are_reported() {
        let ((go, wait), (got, given)) = (mpsc::channel(), mpsc::channel());
        let log = Log::start(Output { go: wait, got }).unwrap();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        // far more than the buffer holds, while nothing is written
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
    fn suppressed_messages_are_counted_by_target_in_bounded_memory() {
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
    fn a_failed_write_is_retried_with_the_next_line() {
        let ((go, wait), (got, given)) = (mpsc::channel(), mpsc::channel());
        let log = Log::start(Output { go: wait, got }).unwrap();
        go.send(false).unwrap();
        log.line(b"one\n");
        wait_until(|| log.0.buffer.lock().lost == 1);
        go.send(true).unwrap();
        go.send(true).unwrap();
        log.line(b"two\n");
        log.finish();
        let written: Vec<_> = given.try_iter().flatten().collect();
        let text = String::from_utf8(written).unwrap();
        assert!(text.starts_with("two\nelbusd: 1 log lines lost here error="), "{text}");
    }

    /// Accepts a number of bytes, then fails, as a file at its size limit does.
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
    fn a_line_cut_by_a_file_size_limit_is_counted_as_lost() {
        let output = Limited(Arc::new(Mutex::new((10, Vec::new()))));
        let log = Log::start(output.clone()).unwrap();
        log.line(b"one\ntwo\nthree\nfour\n");
        wait_until(|| log.0.buffer.lock().lost == 2);
        output.0.lock().0 = 1000;
        log.line(b"five\n");
        log.finish();
        let text = String::from_utf8(output.0.lock().1.clone()).unwrap();
        assert_eq!(text, "one\ntwo\nth\nfive\nelbusd: 2 log lines lost here error=file too large\n");
    }

    fn wait_until(mut ready: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !ready() {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
