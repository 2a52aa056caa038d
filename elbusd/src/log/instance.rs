//! Adds the instance name to log lines of plugins that are linked in; lines of libraries already have it.
//! Never reads the line.

use std::{cell::RefCell, fmt};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Writer},
    },
    registry::LookupSpan,
};

use super::fields::escape;

/// Targets that are not plugins'. Lines of libraries have the target `log`.
const OTHER_TARGETS: [&str; 3] = ["log", "elbusd", "elbus_broker"];

thread_local! {
    /// The instance whose line is being formatted.
    static INSTANCE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Formats events as usual, and passes the instance to [`Fields`].
#[derive(Default)]
pub(crate) struct Lines(Format);

/// Formats fields as `F` does, followed by the instance.
pub(crate) struct Fields<F>(pub(crate) F);

/// Returns the instance of a plugin that is linked in and logs an event with this target in this thread.
pub(crate) fn instance_of(target: &str) -> Option<String> {
    let root = target.split("::").next().unwrap_or(target);
    if OTHER_TARGETS.contains(&root) { None } else { elbus_plugin_api::running_instance() }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        INSTANCE.set(instance_of(event.metadata().target()));
        let formatted = self.0.format_event(context, writer, event);
        INSTANCE.set(None);
        formatted
    }
}

impl<'writer, F> FormatFields<'writer> for Fields<F>
where
    F: for<'any> FormatFields<'any>,
{
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        self.0.format_fields(writer.by_ref(), fields)?;
        match INSTANCE.take() {
            Some(instance) => {
                writer.write_str(" plugin=")?;
                escape(&mut writer, &instance)
            }
            None => Ok(()),
        }
    }
}
