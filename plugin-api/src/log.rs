//! Forwards the tracing events of a loaded library to the broker, which filters and writes them.
//!
//! A loaded library has its own copy of `tracing`, hence no subscriber; linked in, a plugin shares the
//! program's.

use abi_stable::std_types::RStr;
use std::fmt::{Debug, Write};
use tracing_core::{
    Event, Interest, Level, LevelFilter, Metadata, Subscriber,
    dispatcher::{self, Dispatch},
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::{abi::catch, host::Host};

/// Returns the number of a level as it crosses the boundary: 1 error to 5 trace.
fn number(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        _ => 5,
    }
}

/// Installs the subscriber, once per library: the host of the first instance takes the events of all.
pub(crate) fn install(host: Host) {
    if !dispatcher::has_been_set() {
        // fails only if another thread has set one meanwhile, which serves as well
        let _ = dispatcher::set_global_default(Dispatch::new(Forwarder(host)));
    }
}

struct Forwarder(Host);

impl Subscriber for Forwarder {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && self.0.object().log_enabled(number(metadata.level()), RStr::from_str(metadata.target()))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.0.object().max_log_level() {
            0 => LevelFilter::OFF,
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        if let Some(instance) = catch::current_name() {
            let _ = write!(text.fields, "plugin={instance:?}");
        }
        self.0.object().log(
            number(metadata.level()),
            RStr::from_str(metadata.target()),
            RStr::from_str(&text.message),
            RStr::from_str(text.fields.trim_end()),
        );
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            let _ = write!(self.fields, "{}={value:?} ", field.name());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let _ = write!(self.fields, "{}={value:?} ", field.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::FakeHost;
    use tracing_core::dispatcher::{Dispatch, with_default};

    #[test]
    fn events_reach_the_host_with_their_fields() {
        let fake = FakeHost::new();
        let dispatch = Dispatch::new(super::Forwarder(fake.host("log")));
        with_default(&dispatch, || {
            tracing::warn!(target: "some::module", client = "a.b", bytes = 7, "queue {}", "full");
        });
        let lines = fake.logged();
        assert_eq!(lines, ["2 some::module queue full client=\"a.b\" bytes=7"]);
    }
}
