//! Keeps what the client of NATS logs out of the log of the broker: the plugin logs what matters, with values
//! in fields.

use tracing::{
    Dispatch, Event, Metadata, Subscriber, dispatcher,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::{DefaultGuard, Interest},
};

/// The crate whose events are dropped.
const CLIENT: &str = "async_nats";

/// Drops the events of the client in this thread until the result is dropped.
pub(crate) fn quieten() -> DefaultGuard {
    let outer = dispatcher::get_default(Dispatch::clone);
    let level = LevelFilter::current();
    dispatcher::set_default(&Dispatch::new(Quiet { outer, level }))
}

struct Quiet {
    outer: Dispatch,
    /// The most verbose level that anybody wants.
    level: LevelFilter,
}

impl Subscriber for Quiet {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.target().starts_with(CLIENT) { Interest::never() } else { Interest::sometimes() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !metadata.target().starts_with(CLIENT) && self.outer.enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.outer.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.outer.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.outer.record_follows_from(span, follows);
    }

    fn event(&self, event: &Event<'_>) {
        self.outer.event(event);
    }

    fn enter(&self, span: &Id) {
        self.outer.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.outer.exit(span);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.outer.clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        self.outer.try_close(id)
    }
}
