//! What a session is about: the parameters of `monitor.start`, the scope of the observer that they need, and
//! which of the observed messages are selected.

use elbus_plugin_api::{
    CallError, Op,
    hooks::{HookScope, MAX_HOOK_FILTERS, Observation},
};
use elbus_protocol::{name, rpc::decode_rpc, subscription::has_options};
use serde::Deserialize;

/// The names under which sessions send begin with this. Clients cannot register such names.
pub(crate) const SENDER_PREFIX: &str = ".monitor-";
/// Bytes of a filter or mask.
const MAX_FILTER_BYTES: usize = 1024;

/// The parameters of `monitor.start`. No filter at all selects everything.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Parameters {
    /// Only publications to topics that match one of these.
    topics: Vec<String>,
    /// Only what is sent by, or to, clients whose names match one of these.
    clients: Vec<String>,
    /// Only messages of the RPC layer.
    rpc: bool,
    /// Bytes of a payload in a record.
    pub(crate) payload_bytes: Option<usize>,
}

/// Selects observed messages.
#[derive(Debug)]
pub(crate) struct Filter {
    clients: Vec<String>,
    rpc: bool,
}

impl Parameters {
    /// Reads the parameters of a call; none at all select everything.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn read(params: &[u8]) -> Result<Self, CallError> {
        if params.is_empty() || params == [0xc0] {
            return Ok(Self::default());
        }
        rmp_serde::from_slice(params).map_err(|error| {
            CallError::invalid_params(format!(
                "expected {{topics: [text], clients: [text], rpc: bool, payload_bytes: integer}}: {error}"
            ))
        })
    }

    /// Returns the filter, and the scope of the observer that it needs.
    ///
    /// # Errors
    /// There are too many filters, one is malformed, or they exclude each other.
    pub(crate) fn into_filter(self) -> Result<(Filter, HookScope), CallError> {
        let Parameters { topics, clients, rpc, .. } = self;
        for (key, list) in [("topics", &topics), ("clients", &clients)] {
            if list.len() > MAX_HOOK_FILTERS {
                let (count, limit) = (list.len(), MAX_HOOK_FILTERS);
                return Err(CallError::invalid_params(format!(
                    "{key}: {count} entries; the limit is {limit}"
                )));
            }
            if let Some(long) = list.iter().find(|entry| entry.len() > MAX_FILTER_BYTES) {
                let (bytes, limit) = (long.len(), MAX_FILTER_BYTES);
                return Err(CallError::invalid_params(format!(
                    "{key}: an entry has {bytes} bytes; the limit is {limit}"
                )));
            }
        }
        let all = topics
            .iter()
            .map(|filter| ("topics", filter))
            .chain(clients.iter().map(|mask| ("clients", mask)));
        for (key, entry) in all {
            if entry.is_empty() || entry.contains('\0') {
                return Err(CallError::invalid_params(format!("{key}: {entry:?} matches nothing")));
            }
        }
        if let Some(filter) = topics.iter().find(|filter| has_options(filter)) {
            return Err(CallError::invalid_params(format!(
                "topics: {filter:?} matches no topic: write the filter without options"
            )));
        }
        if rpc && !topics.is_empty() {
            return Err(CallError::invalid_params(
                "rpc and topics exclude each other: publications are no RPC",
            ));
        }
        let scope = if !topics.is_empty() {
            HookScope::new().publications(&topics)
        } else if rpc {
            HookScope::new().messages(["*"])
        } else {
            HookScope::everything()
        };
        Ok((Filter { clients, rpc }, scope))
    }
}

impl Filter {
    /// Returns whether the session is about a message. What sessions send themselves is never selected:
    /// monitors would observe each other without end.
    pub(crate) fn selects(&self, seen: &Observation) -> bool {
        !seen.sender().starts_with(SENDER_PREFIX) && self.selects_client(seen) && self.selects_kind(seen)
    }

    fn selects_kind(&self, seen: &Observation) -> bool {
        !self.rpc || (seen.op() == Op::Message && decode_rpc(seen.payload()).is_ok())
    }

    fn selects_client(&self, seen: &Observation) -> bool {
        let recipient = match seen.op() {
            Op::Message => seen.target(),
            Op::PublishFor => seen.receiver(),
            _ => "",
        };
        self.clients.is_empty()
            || self.clients.iter().any(|mask| {
                name::mask_matches(mask, seen.sender())
                    || (!recipient.is_empty() && name::mask_matches(mask, recipient))
            })
    }
}
