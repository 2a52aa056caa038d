//! The text of a log event, for what does not use the formatter of `tracing`. [`fields`] escapes and
//! truncates values.

use std::fmt::{Debug, Write};
use tracing::field::{Field, Visit};

use super::fields;

/// The text of an event, escaped and truncated.
#[derive(Default)]
pub(super) struct EventText {
    pub(super) message: String,
    /// The other fields, each after a blank.
    pub(super) fields: String,
    /// The target of a line that was forwarded through the crate `log`, as those of loaded plugins are.
    pub(super) target: Option<String>,
}

impl Visit for EventText {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            self.target = Some(value.to_owned());
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        _ = if field.name() == "message" {
            fields::write(&mut self.message, field, value)
        } else if field.name().starts_with("log.") {
            Ok(())
        } else {
            self.fields.write_char(' ').and_then(|()| fields::write(&mut self.fields, field, value))
        };
    }
}
