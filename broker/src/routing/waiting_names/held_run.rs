//! A run of messages that waits for its receiver: a copy that needs nothing of its sender any more.

use elbus_plugin_api::{Code, Completion, Encoding, FrameKind, Payload, Qos, Run, SharedBytes};
use std::sync::{Arc, Weak};

use crate::routing::registered_client::RegisteredClient;

/// The memory of a run without its bytes, and that of a message, in bytes: empty messages are limited too.
const RUN_BYTES: usize = 256;
const MESSAGE_BYTES: usize = 16;

/// A run that waits. Dropping it fails it.
pub(in crate::routing) struct HeldRun {
    kind: FrameKind,
    qos: Qos,
    sender: Arc<str>,
    sender_id: u64,
    /// The sender, as far as it was registered; its rights are checked again.
    pub(in crate::routing) from: Weak<RegisteredClient>,
    topic: Box<str>,
    /// All payloads, one after the other, unless they are shared.
    bytes: Vec<u8>,
    /// Where each payload ends.
    ends: Vec<usize>,
    shared: Option<SharedBytes>,
    pub(in crate::routing) body_bytes: usize,
    completion: Option<Completion>,
}

impl HeldRun {
    /// Copies a run, and defers its result if it can be deferred.
    pub(in crate::routing) fn new(run: &mut Run<'_>, body_bytes: usize) -> Self {
        let shared = run.shared().cloned();
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(run.payloads().len()));
        if shared.is_none() {
            bytes.reserve_exact(run.payloads().iter().map(|payload| payload.len()).sum());
            for payload in run.payloads() {
                bytes.extend_from_slice(payload);
                ends.push(bytes.len());
            }
        }
        HeldRun {
            kind: run.kind(),
            qos: run.qos(),
            sender: run.sender().into(),
            sender_id: run.sender_id(),
            from: Weak::new(),
            topic: run.topic().into(),
            bytes,
            ends,
            shared,
            body_bytes,
            completion: run.defer(),
        }
    }

    /// Returns the bytes of memory that it counts for.
    pub(super) fn cost(&self) -> usize {
        let shared = self.shared.as_ref().map_or(0, |shared| shared.len());
        let payloads = self.bytes.len() + shared + self.frames() * MESSAGE_BYTES;
        RUN_BYTES + self.sender.len() + self.topic.len() + payloads
    }

    /// Returns the number of its messages.
    pub(in crate::routing) fn frames(&self) -> usize {
        if self.shared.is_some() { 1 } else { self.ends.len() }
    }

    /// Hands it to `deliver`.
    pub(in crate::routing) fn with_run<R>(&self, deliver: impl FnOnce(&mut Run<'_>) -> R) -> R {
        let mut encoding = Encoding::new();
        let mut begin = 0;
        let own = self.ends.iter().map(|end| {
            let payload = self.bytes.get(begin..*end).unwrap_or_default();
            begin = *end;
            Payload::from(payload)
        });
        let payloads: Vec<_> = match &self.shared {
            Some(shared) => vec![Payload::from(&shared[..])],
            None => own.collect(),
        };
        let shared = self.shared.as_ref();
        let run = Run::new(self.kind, self.qos, &self.sender, &self.topic, &payloads, shared, &mut encoding);
        deliver(&mut run.with_sender_id(self.sender_id))
    }

    /// Supplies its result.
    pub(in crate::routing) fn complete(self, code: Code) {
        if let Some(completion) = self.completion {
            completion.complete(code);
        }
    }
}
