//! One rule: which messages it applies to, and what it checks in them.

use elbus_plugin_api::Op;
use elbus_protocol::{
    name::mask_matches,
    rpc::{self, RpcFrame, decode_rpc},
    topic,
};
use serde::{Deserialize, Serialize};

use crate::{document::Fault, schema::Schema};

/// The method of a rule for every call.
const EVERY_METHOD: &str = "*";

/// `format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    Json,
    Msgpack,
    Utf8,
}

/// A compiled rule.
#[derive(Debug)]
pub(crate) struct Rule {
    filters: Vec<String>,
    names: Vec<String>,
    method: Option<String>,
    pub(crate) format: Encoding,
    pub(crate) schema: Option<Schema>,
}

/// The part of a payload that a rule checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject<'a> {
    /// All of it.
    Payload(&'a [u8]),
    /// The parameters of a call; none are zero bytes.
    Params(&'a [u8]),
}

impl Rule {
    pub(crate) fn new(
        filters: Vec<String>,
        names: Vec<String>,
        method: Option<String>,
        format: Encoding,
        schema: Option<Schema>,
    ) -> Self {
        Rule { filters, names, method, format, schema }
    }

    /// Returns whether the rule can apply to messages of an operation on a target. It applies to a broadcast
    /// that can reach one of its names.
    pub(crate) fn applies_to(&self, op: Op, target: &str) -> bool {
        match op {
            Op::Publish | Op::PublishFor => self.filters.iter().any(|filter| topic::matches(filter, target)),
            Op::Message => self.names.iter().any(|mask| mask_matches(mask, target)),
            Op::Broadcast => self.names.iter().any(|mask| masks_overlap(mask, target)),
            Op::Subscribe | Op::Unsubscribe | Op::Exclude | Op::Unexclude => false,
        }
    }

    /// Returns what the rule checks in a payload; `None` if it is for calls, and the payload is not such a
    /// call.
    pub(crate) fn subject<'a>(&self, payload: &'a [u8]) -> Result<Option<Subject<'a>>, Fault> {
        let Some(ours) = &self.method else { return Ok(Some(Subject::Payload(payload))) };
        match decode_rpc(payload) {
            Ok(RpcFrame::Request { method, params, .. }) => {
                let applies = ours == EVERY_METHOD || ours.as_bytes() == method;
                Ok(applies.then_some(Subject::Params(params)))
            }
            // the callee might see the method in it
            Err(_) if payload.first() == Some(&rpc::REQUEST) => Err(Fault::NotACall),
            _ => Ok(None),
        }
    }
}

/// Returns whether there can be a name that matches both masks.
fn masks_overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) | (Some("*"), Some(_)) | (Some(_), Some("*")) => return true,
            (None, _) | (_, None) => return false,
            (Some(one), Some(other)) if one == other || one == "?" || other == "?" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_overlap_if_a_name_matches_both() {
        for (one, other, expected) in [
            ("plc.*", "plc.1", true),
            ("plc.*", "*", true),
            ("plc.*", "plc", false),
            ("plc.*", "?.?", true),
            ("plc.*", "hmi.*", false),
            ("plc.?.x", "?.1.*", true),
            ("plc.?", "plc.1.x", false),
            ("plc.1", "plc.1", true),
            ("plc.?", "?.2", true),
        ] {
            assert_eq!(masks_overlap(one, other), expected, "{one} {other}");
            assert_eq!(masks_overlap(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_rule_for_a_method_checks_the_parameters_of_its_calls() {
        let rule =
            |method: &str| Rule::new(vec![], vec!["*".into()], Some(method.into()), Encoding::Msgpack, None);
        let call = rpc::encode_request(7, "set", b"\x80").unwrap();
        assert_eq!(rule("set").subject(&call), Ok(Some(Subject::Params(b"\x80"))));
        assert_eq!(rule("*").subject(&call), Ok(Some(Subject::Params(b"\x80"))));
        assert_eq!(rule("get").subject(&call), Ok(None));
        for other in
            [rpc::encode_notification(b"set\0"), rpc::encode_reply(1, b"set\0"), b"set\0".to_vec(), vec![]]
        {
            assert_eq!(rule("*").subject(&other), Ok(None));
        }
        for cut in 1..call.len() - 1 {
            assert_eq!(rule("get").subject(&call[..cut]), Err(Fault::NotACall));
        }
    }
}
