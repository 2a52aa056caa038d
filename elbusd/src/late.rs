//! Log lines of threads that are ending: once a thread's thread-locals are gone, formatting through `tracing` would panic,
//! and in a panic hook that ends the process. Owns the way around; ordinary lines never take it.

use std::{
    cell::Cell,
    fmt::{Debug, Write},
};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::log::Log;

thread_local! {
    /// Has no destructor, so it can be read until the very end of the thread.
    static ENDING: Cell<bool> = const { Cell::new(false) };
    static SENTINEL: Sentinel = const { Sentinel };
}

/// Destroyed before the thread-locals that were there first.
struct Sentinel;

impl Drop for Sentinel {
    fn drop(&mut self) {
        ENDING.set(true);
    }
}

/// Called while a line is formatted, when the thread-locals of the formatter are in use: they are older than the
/// sentinel and therefore outlive it.
pub(crate) fn note_formatting() {
    // absent in a thread that is ending
    _ = SENTINEL.try_with(|_| ());
}

/// Writes the lines of threads that are ending, and lets all others pass.
pub(crate) struct Late(pub(crate) Log);

impl<S: Subscriber> Layer<S> for Late {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if !ENDING.get() {
            return true;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let target = text.target.as_deref().unwrap_or(metadata.target());
        let line = format!("{:>5} {target}: {}{}\n", metadata.level(), text.message, text.fields);
        self.0.line(line.as_bytes());
        false
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
    /// Of a line that came over the bridge from `log`, as those of loaded plugins do.
    target: Option<String>,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            self.target = Some(value.to_owned());
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name if name.starts_with("log.") => Ok(()),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
