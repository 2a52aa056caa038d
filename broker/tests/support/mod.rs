//! Clients of a broker without transports: they register through the host, as transports do, and record what
//! their sinks receive.
#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub(crate) mod model;

use elbus_broker::Broker;
use elbus_plugin_api::{
    Client, ClientInfo, Code, DeliveryStatus, Dispatch, FrameKind, Notifier, Op, Payload, Qos, Queued,
    Request, Run, Sink, SinkLimits,
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

/// One delivered message: kind, sender, topic, payload.
pub(crate) type Got = (FrameKind, String, String, Vec<u8>);

#[derive(Default)]
pub(crate) struct Record {
    pub(crate) got: Mutex<Vec<Got>>,
    /// The sender's registration for each message of `got`.
    pub(crate) ids: Mutex<Vec<u64>>,
    pub(crate) flushes: Mutex<usize>,
    pub(crate) closed: Mutex<Vec<String>>,
    pub(crate) drained: Mutex<Vec<Notifier>>,
    pub(crate) limits: Mutex<Vec<SinkLimits>>,
    /// The result of `deliver`, in addition to being dirty.
    pub(crate) answer: AtomicU8,
    /// The result of `queued`, in bytes.
    pub(crate) queued: AtomicU64,
}

struct RecordingSink(Arc<Record>);

impl Sink for RecordingSink {
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        let answer = DeliveryStatus::from_bits(self.0.answer.load(Ordering::SeqCst));
        if answer.is_taken() {
            let (kind, sender, topic) = (run.kind(), run.sender().to_owned(), run.topic().to_owned());
            let mut got = self.0.got.lock().unwrap();
            got.extend(run.payloads().iter().map(|p| (kind, sender.clone(), topic.clone(), p.to_vec())));
            self.0.ids.lock().unwrap().extend(run.payloads().iter().map(|_| run.sender_id()));
            answer | DeliveryStatus::DIRTY
        } else {
            answer
        }
    }
    fn flush(&self) {
        *self.0.flushes.lock().unwrap() += 1;
    }
    fn when_drained(&self, notifier: Notifier) {
        self.0.drained.lock().unwrap().push(notifier);
    }
    fn close(&self, reason: &str) {
        self.0.closed.lock().unwrap().push(reason.to_owned());
    }
    fn queued(&self) -> Queued {
        Queued { frames: 0, bytes: self.0.queued.load(Ordering::SeqCst) }
    }
    fn limit(&self, limits: &SinkLimits) {
        self.0.limits.lock().unwrap().push(*limits);
    }
}

/// A client and its record.
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) client: Client,
    pub(crate) record: Arc<Record>,
}

impl Peer {
    pub(crate) fn new(broker: &Broker, name: &str) -> Self {
        Self::try_new(broker, name).unwrap_or_else(|code| panic!("{name:?} refused: {code}"))
    }

    pub(crate) fn try_new(broker: &Broker, name: &str) -> Result<Self, Code> {
        let source = Some("127.0.0.1:5".into());
        Self::of(broker, name, ClientInfo { kind: "tcp".into(), source, ..Default::default() })
    }

    pub(crate) fn of(broker: &Broker, name: &str, info: ClientInfo) -> Result<Self, Code> {
        let record = Arc::new(Record::default());
        let client = broker.host().register(name, &info, RecordingSink(record.clone()))?;
        Ok(Peer { name: name.to_owned(), client, record })
    }

    pub(crate) fn dispatch(
        &mut self,
        op: Op,
        qos: Qos,
        target: &str,
        receiver: &str,
        payloads: &[&[u8]],
    ) -> Dispatch {
        let payloads: Vec<_> = payloads.iter().map(|p| Payload::from(*p)).collect();
        let result = self.client.dispatch(&Request::new(op, qos, target, &payloads).with_receiver(receiver));
        self.client.end_batch();
        result
    }

    /// Dispatches a request that may block.
    pub(crate) fn blocking(&mut self, op: Op, target: &str, receiver: &str) -> Dispatch {
        let payloads = [Payload::from(&b"x"[..])];
        let request = Request::new(op, Qos::NO, target, &payloads).with_receiver(receiver).blocking();
        let result = self.client.dispatch(&request);
        self.client.end_batch();
        result
    }

    pub(crate) fn send(&mut self, target: &str, payload: &[u8]) -> Code {
        self.dispatch(Op::Message, Qos::PROCESSED, target, "", &[payload]).code()
    }

    pub(crate) fn broadcast(&mut self, mask: &str, payload: &[u8]) -> u32 {
        self.dispatch(Op::Broadcast, Qos::NO, mask, "", &[payload]).reached()
    }

    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8]) -> u32 {
        self.dispatch(Op::Publish, Qos::NO, topic, "", &[payload]).reached()
    }

    pub(crate) fn publish_for(&mut self, topic: &str, receiver: &str, payload: &[u8]) -> u32 {
        self.dispatch(Op::PublishFor, Qos::NO, topic, receiver, &[payload]).reached()
    }

    pub(crate) fn filters(&mut self, op: Op, filters: &[&str]) -> Code {
        let payloads: [&[u8]; 0] = [];
        self.dispatch(op, Qos::PROCESSED, &filters.join("\0"), "", &payloads).code()
    }

    pub(crate) fn subscribe(&mut self, filters: &[&str]) {
        assert_eq!(self.filters(Op::Subscribe, filters), Code::Ok);
    }

    /// Returns the messages since the last call.
    pub(crate) fn take(&self) -> Vec<Got> {
        std::mem::take(&mut *self.record.got.lock().unwrap())
    }

    /// Returns the sender registrations of the messages since the last call.
    pub(crate) fn take_ids(&self) -> Vec<u64> {
        std::mem::take(&mut *self.record.ids.lock().unwrap())
    }

    /// Returns the payloads of the messages since the last call, as text.
    pub(crate) fn payloads(&self) -> Vec<String> {
        self.take().into_iter().map(|(.., payload)| String::from_utf8(payload).unwrap()).collect()
    }

    pub(crate) fn closed(&self) -> Vec<String> {
        self.record.closed.lock().unwrap().clone()
    }
}

/// Returns a sink that no test reads.
pub(crate) fn sink() -> impl Sink {
    RecordingSink(Arc::default())
}

pub(crate) fn broker() -> Broker {
    Broker::builder().start().unwrap()
}
