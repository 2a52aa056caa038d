//! Log lines of exiting threads: once a thread's thread-locals are destroyed, formatting through `tracing`
//! panics, which in a panic hook ends the process. Writes such lines without it; other lines never pass
//! through here. [`fields`] escapes and truncates values.

use std::cell::Cell;
use tracing::{Event, Subscriber};
use tracing_subscriber::{Layer, layer::Context};

use super::{Log, event_text::EventText, fields};

thread_local! {
    /// Has no destructor, so it can be read until the thread has exited.
    static EXITING: Cell<bool> = const { Cell::new(false) };
    static SENTINEL: Sentinel = const { Sentinel };
}

/// Destroyed before the thread-locals that were initialised earlier.
struct Sentinel;

impl Drop for Sentinel {
    fn drop(&mut self) {
        EXITING.set(true);
    }
}

/// Initialises the sentinel. Called while a line is formatted: the formatter's thread-locals are older than
/// the sentinel and therefore outlive it.
pub(crate) fn init_sentinel() {
    // fails in an exiting thread
    _ = SENTINEL.try_with(|_| ());
}

/// Writes the lines of exiting threads, and passes all others on.
pub(crate) struct ExitingThreadLayer(pub(crate) Log);

impl<S: Subscriber> Layer<S> for ExitingThreadLayer {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if !EXITING.get() {
            return true;
        }
        self.0.line(line_of(event).as_bytes());
        false
    }
}

fn line_of(event: &Event<'_>) -> String {
    let mut text = EventText::default();
    event.record(&mut text);
    let metadata = event.metadata();
    let mut target = String::new();
    _ = fields::escape(&mut target, &format_args!("{}", text.target.as_deref().unwrap_or(metadata.target())));
    format!("{:>5} {target}: {}{}\n", metadata.level(), text.message, text.fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        sync::{Arc, Mutex},
    };
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_exiting_threads_are_escaped_and_truncated() {
        let output = Output::default();
        let log = Log::start(output.clone()).unwrap();
        let lines = tracing_subscriber::registry().with(ExitingThreadLayer(log.clone()));
        tracing::subscriber::with_default(lines, || {
            EXITING.set(true);
            let (forged, long) = ("a\n2026 ERROR forged\u{1b}[31m\u{202e}", "x".repeat(100_000));
            tracing::warn!(client = %forged, %long, "{forged}");
            EXITING.set(false);
        });
        log.finish();
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        let escaped = r"a\n2026 ERROR forged\u{1b}[31m\u{202e}";
        let start = format!(" WARN elbusd::log::exiting_thread::tests: {escaped} client={escaped} long=xxx");
        assert!(text.starts_with(&start), "{text}");
        assert!(text.ends_with("... (98976 more bytes)\n"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
