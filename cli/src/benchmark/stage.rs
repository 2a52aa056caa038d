//! The stages of a run: their names, how one picks them, and what help says about them. What they do is in `work`.

use std::fmt;

/// One kind of load. The first seven are those of the field's own benchmark, under its names and in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Calls of the broker.
    Call,
    /// Calls of the caller itself, which serves them.
    CallHandled,
    /// Calls with id 0 of a name that is not registered.
    CallZero,
    /// Messages without acknowledgement to a name that is not registered.
    Send,
    /// The same, acknowledged.
    SendProcessed,
    /// Messages without acknowledgement to oneself.
    SendReceive,
    /// The same, acknowledged.
    SendReceiveProcessed,
    /// Publications of one client to several subscribers.
    Publish,
}

impl Stage {
    /// All of them, in the order they run in.
    pub(super) const ALL: [Stage; 8] = [
        Stage::Call,
        Stage::CallHandled,
        Stage::CallZero,
        Stage::Send,
        Stage::SendProcessed,
        Stage::SendReceive,
        Stage::SendReceiveProcessed,
        Stage::Publish,
    ];

    /// The name `--stages` and the report know it by.
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
        }
    }

    /// Parses a value of `--stages`; clap says which option it belongs to.
    pub(super) fn parse(text: &str) -> Result<Stage, String> {
        Stage::ALL.into_iter().find(|stage| stage.name() == text).ok_or_else(|| {
            let names: Vec<_> = Stage::ALL.iter().map(|stage| stage.name()).collect();
            format!("there is no such stage; the stages are {}", names.join(", "))
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
    fn an_unknown_stage_is_answered_with_those_there_are() {
        let said = Stage::parse("rpc").err().unwrap_or_default();
        for stage in Stage::ALL {
            assert!(said.contains(stage.name()), "{stage} is missing in {said:?}");
        }
    }
}
