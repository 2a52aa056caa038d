//! Clients of a broker without transports: they register through the host, as transports do, and record what
//! their sinks receive.
#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub(crate) mod model;

use elbus_broker::Broker;
use elbus_plugin_api::inproc::{OwnedRun, RunBatch};
use elbus_plugin_api::{
    Client, ClientInfo, Code, DeliveryStatus, Dispatch, Encoding, Frame, FrameKind, Locality, MixedRun,
    Notifier, Op, Payload, Qos, Queued, Request, Run, Sink, SinkLimits,
};
use elbus_protocol::{
    Limits,
    delivery::{Delivery, decode_delivery, encode_mixed_run, mixed_run_len},
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
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
    /// Whether what was not read was given to others.
    pub(crate) gave_back: AtomicBool,
    /// Who waits for an empty queue.
    pub(crate) emptied: Mutex<Vec<Notifier>>,
    pub(crate) limits: Mutex<Vec<SinkLimits>>,
    /// The result of `deliver`, in addition to being dirty.
    pub(crate) answer: AtomicU8,
    /// The result of `queued`, in bytes.
    pub(crate) queued: AtomicU64,
    /// Whether it takes mixed runs.
    pub(crate) takes_mixed: AtomicBool,
    /// Frames that it takes before it refuses, if there is a limit.
    pub(crate) room: Mutex<Option<usize>>,
    /// Of each of `got`: when it was queued, and when it could be sent.
    pub(crate) times: Mutex<Vec<(u64, Option<u64>)>>,
    pub(crate) pauses: AtomicUsize,
    pub(crate) mixed_runs: AtomicUsize,
    pub(crate) mixed_frames: AtomicUsize,
}

/// Returns later numbers each time.
fn now() -> u64 {
    static CLOCK: AtomicU64 = AtomicU64::new(0);
    CLOCK.fetch_add(1, Ordering::SeqCst)
}

impl Record {
    /// Takes `frames` off the room, if there is enough.
    fn has_room(&self, frames: usize) -> bool {
        match &mut *self.room.lock().unwrap() {
            Some(room) if *room < frames => false,
            Some(room) => {
                *room -= frames;
                true
            }
            None => true,
        }
    }

    fn queue(&self, frames: usize) {
        let queued = now();
        let sent = (self.pauses.load(Ordering::SeqCst) == 0).then_some(queued);
        self.times.lock().unwrap().extend((0..frames).map(|_| (queued, sent)));
    }
}

/// Returns the wire form of a mixed run, as a transport uses it: that of several recipients is shared.
fn encode(run: &mut MixedRun<'_>) -> Vec<u8> {
    let sender = run.sender();
    let len = mixed_run_len(sender, run.tail_bytes(), run.len());
    let tails: Vec<_> = run.frames().map(|frame| (frame.kind(), frame.tail())).collect();
    let encode = |out: &mut [u8]| encode_mixed_run(out, sender, tails.iter().copied());
    match run.encoding() {
        Some(encoding) => encoding.get_or_make(1, || len, encode).bytes().to_vec(),
        None => {
            let mut out = vec![0; len];
            assert_eq!(encode(&mut out), len);
            out
        }
    }
}

fn decode(mut wire: &[u8]) -> Vec<Got> {
    let mut all = vec![];
    while let Some((delivery, used)) = decode_delivery(wire, &Limits::default()).unwrap() {
        wire = &wire[used..];
        all.push(match delivery {
            Delivery::Message { sender, payload, .. } => {
                (FrameKind::Message, sender.to_owned(), String::new(), payload.to_vec())
            }
            Delivery::Publish { sender, topic, payload, .. } => {
                (FrameKind::Publish, sender.to_owned(), topic.to_owned(), payload.to_vec())
            }
            other => panic!("{other:?}"),
        });
    }
    all
}

struct RecordingSink(Arc<Record>);

impl Sink for RecordingSink {
    fn deliver_mixed(&self, run: &mut MixedRun<'_>) -> DeliveryStatus {
        if !self.0.takes_mixed.load(Ordering::SeqCst) {
            return DeliveryStatus::UNSUPPORTED;
        }
        let answer = DeliveryStatus::from_bits(self.0.answer.load(Ordering::SeqCst));
        if !answer.is_taken() {
            return answer;
        }
        if !self.0.has_room(run.len()) {
            return DeliveryStatus::REFUSED;
        }
        assert!(!run.is_empty());
        self.0.mixed_runs.fetch_add(1, Ordering::SeqCst);
        self.0.mixed_frames.fetch_add(run.len(), Ordering::SeqCst);
        assert_eq!(run.tail_bytes(), run.frames().map(|frame| frame.tail().len()).sum::<usize>());
        if run.pauses() {
            self.0.pauses.fetch_add(1, Ordering::SeqCst);
        }
        self.0.got.lock().unwrap().extend(decode(&encode(run)));
        self.0.ids.lock().unwrap().extend(run.frames().map(|_| run.sender_id()));
        self.0.queue(run.len());
        answer | DeliveryStatus::DIRTY
    }
    fn resume_sending(&self) {
        if self.0.pauses.fetch_sub(1, Ordering::SeqCst) == 1 {
            let time = now();
            self.0.times.lock().unwrap().iter_mut().for_each(|(_, sent)| _ = sent.get_or_insert(time));
        }
    }
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        let answer = DeliveryStatus::from_bits(self.0.answer.load(Ordering::SeqCst));
        if answer.is_taken() && !self.0.has_room(run.payloads().len()) {
            return DeliveryStatus::REFUSED;
        }
        if answer.is_taken() {
            let (kind, sender, topic) = (run.kind(), run.sender().to_owned(), run.topic().to_owned());
            let mut got = self.0.got.lock().unwrap();
            if self.0.gave_back.load(Ordering::SeqCst) {
                return DeliveryStatus::CLOSED;
            }
            got.extend(run.payloads().iter().map(|p| (kind, sender.clone(), topic.clone(), p.to_vec())));
            self.0.ids.lock().unwrap().extend(run.payloads().iter().map(|_| run.sender_id()));
            self.0.queue(run.payloads().len());
            answer | DeliveryStatus::DIRTY
        } else {
            answer
        }
    }
    fn take_unsent(&self, _: &str, unsent: &mut RunBatch) {
        let mut got = self.0.got.lock().unwrap();
        self.0.gave_back.store(true, Ordering::SeqCst);
        for (kind, sender, topic, payload) in got.drain(..) {
            let (payloads, mut encoding) = ([Payload::from(payload.as_slice())], Encoding::new());
            let run = Run::new(kind, Qos::NO, &sender, &topic, &payloads, None, &mut encoding);
            unsent.push(OwnedRun::new(&run));
        }
    }
    fn flush(&self) {
        *self.0.flushes.lock().unwrap() += 1;
    }
    fn when_drained(&self, notifier: Notifier) {
        self.0.drained.lock().unwrap().push(notifier);
    }
    fn when_empty(&self, notifier: Notifier) {
        if self.0.queued.load(Ordering::SeqCst) == 0 {
            return notifier.notify();
        }
        self.0.emptied.lock().unwrap().push(notifier);
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
        Self::of(broker, name, ClientInfo::new("tcp", Locality::Remote).with_source("127.0.0.1:5"))
    }

    pub(crate) fn of(broker: &Broker, name: &str, info: ClientInfo) -> Result<Self, Code> {
        let record = Arc::new(Record::default());
        let client = broker.host().register(name, &info, RecordingSink(record.clone()))?;
        Ok(Peer { name: name.to_owned(), client, record })
    }

    /// Registers with a record that the test has prepared.
    pub(crate) fn with_record(broker: &Broker, name: &str, record: Arc<Record>) -> Self {
        let (info, sink) = (ClientInfo::new("tcp", Locality::Remote), RecordingSink(record.clone()));
        let client = broker.host().register(name, &info, sink).unwrap();
        Peer { name: name.to_owned(), client, record }
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

    /// Dispatches messages and publications as a transport does, in mixed runs as far as possible; returns
    /// the code of each until one is blocked.
    pub(crate) fn mixed(&mut self, frames: &[(Op, &str, &[u8])]) -> Vec<u8> {
        let body = |(_, target, payload): &(Op, &str, &[u8])| [target.as_bytes(), b"\0", payload].concat();
        let bodies: Vec<_> = frames.iter().map(body).collect();
        let mut before = None;
        let parsed: Vec<_> = (frames.iter().zip(&bodies))
            .map(|((op, target, _), body)| {
                let repeats = before.replace((*op, *target)) == Some((*op, *target));
                Frame::new(*op, Qos::PROCESSED, body, target.len() as u32).repeating(repeats)
            })
            .collect();
        let mut all = vec![];
        while let Some(left) = parsed.get(all.len()..).filter(|left| !left.is_empty()) {
            let mut codes = vec![0xEE; left.len()];
            let result = self.client.dispatch_mixed(left, &mut codes);
            assert!(!result.is_gone() && result.dispatched() <= left.len());
            all.extend(&codes[..result.dispatched()]);
            if !result.is_next_alone() {
                assert!(result.dispatched() > 0);
                continue;
            }
            let frame = left[result.dispatched()];
            let payloads = [Payload::from(frame.payload())];
            let request = Request::new(frame.op().unwrap(), frame.qos(), frame.target(), &payloads);
            let result = self.client.dispatch(&request.blocking());
            if result.is_blocked() {
                break;
            }
            all.push(result.code() as u8);
        }
        self.client.end_batch();
        all
    }

    /// Sets the bytes in its queue. Who waits for an empty one is notified.
    pub(crate) fn set_queued(&self, bytes: u64) {
        self.record.queued.store(bytes, Ordering::SeqCst);
        if bytes == 0 {
            let waiting = std::mem::take(&mut *self.record.emptied.lock().unwrap());
            waiting.iter().for_each(|notifier| notifier.notify());
        }
    }

    /// Its sink answers its next deliveries with this, until it is drained.
    pub(crate) fn answer(&self, status: DeliveryStatus) {
        self.record.answer.store(status.bits(), Ordering::SeqCst);
    }

    /// Its queue has drained.
    pub(crate) fn drain(&self) {
        self.answer(DeliveryStatus::TAKEN);
        let waiting = std::mem::take(&mut *self.record.drained.lock().unwrap());
        waiting.iter().for_each(|notifier| notifier.notify());
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
