//! The stages and their names. `tasks` implements them.

use std::fmt;

/// One kind of load. The first seven match those of `busrt benchmark`, with the same names and in the same
/// order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Calls to the broker.
    Call,
    /// Calls to the worker itself, which answers them.
    CallHandled,
    /// Calls without a reply to an unregistered name.
    CallZero,
    /// Messages without acknowledgement to an unregistered name.
    Send,
    /// The same, acknowledged.
    SendProcessed,
    /// Messages without acknowledgement to the worker itself.
    SendReceive,
    /// The same, acknowledged.
    SendReceiveProcessed,
    /// Publications of one worker to several subscribers.
    Publish,
    /// The same, with many topics in turn.
    PublishTopics,
}

impl Stage {
    /// All stages, in the order in which they run.
    pub(super) const ALL: [Stage; 9] = [
        Stage::Call,
        Stage::CallHandled,
        Stage::CallZero,
        Stage::Send,
        Stage::SendProcessed,
        Stage::SendReceive,
        Stage::SendReceiveProcessed,
        Stage::Publish,
        Stage::PublishTopics,
    ];

    /// Returns the name, as in `--stages` and in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Stage::Call => "rpc.call",
            Stage::CallHandled => "rpc.call+handle",
            Stage::CallZero => "rpc.call0",
            Stage::Send => "send.qos.no",
            Stage::SendProcessed => "send.qos.processed",
            Stage::SendReceive => "send+recv.qos.no",
            Stage::SendReceiveProcessed => "send+recv.qos.processed",
            Stage::Publish => "publish",
            Stage::PublishTopics => "publish.topics-128",
        }
    }

    /// Parses a value of `--stages`; clap adds the option's name to an error.
    pub(super) fn parse(text: &str) -> Result<Stage, String> {
        Stage::ALL.into_iter().find(|stage| stage.name() == text).ok_or_else(|| {
            let names: Vec<_> = Stage::ALL.iter().map(|stage| stage.name()).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_is_found_by_its_name() {
        for stage in Stage::ALL {
            assert_eq!(Stage::parse(stage.name()), Ok(stage));
        }
    }

    #[test]
    fn the_error_for_an_unknown_stage_lists_all_stages() {
        let error = Stage::parse("rpc").err().unwrap_or_default();
        for stage in Stage::ALL {
            assert!(error.contains(stage.name()), "{stage} is missing in {error:?}");
        }
    }
}
