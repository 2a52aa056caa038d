//! The path of a message through the core, without sockets: as in a transport, the bytes of a client are
//! grouped into runs, dispatched, encoded by the receivers' sinks, and acknowledged. Owns the cases and the
//! function whose instructions are counted.

use elbus_broker::Broker;
use elbus_plugin_api::{
    Client, ClientInfo, DeliveryStatus, Frame, Locality, MixedRun, Notifier, Payload, Queued, Request, Run,
    Sink,
    access::{AccessRules, ClientRules},
};
use elbus_protocol::{
    Limits, Op, Qos,
    delivery::encode_ack,
    request::{MixedEnd, RunBuffer, Step, encode_filters, encode_request, next_mixed_run, next_run},
};
use elbus_socket::Queue;
use elbus_stream::{MixedMode, MixedWire, Wire};
use std::sync::{Arc, Mutex, PoisonError};

use crate::BoxError;

/// Frames per read.
const FRAMES: usize = 128;
/// Counted reads.
const READS: usize = 100;
/// Reads before these, which fill the caches and are not counted.
const WARM_UP_READS: usize = 20;
/// The same with many topics in turn: each is published once.
const MANY_TOPICS_WARM_UP_READS: usize = MANY_TOPICS / FRAMES;
/// Counted messages.
pub(super) const MESSAGES: usize = FRAMES * READS;
/// The function whose instructions valgrind counts.
pub(super) const COUNTED_FUNCTION: &str = "counted_reads";
const PAYLOAD: [u8; 100] = [b'x'; 100];
/// Bodies up to this length are dispatched in mixed runs, in bytes.
const MAX_MIXED_BODY: usize = 1000;
const SUBSCRIBERS: usize = 8;
/// Filters among which new topics are looked up.
const FILTERS: usize = 20_000;
/// Topics in turn.
const TOPICS: usize = 128;
const MANY_TOPICS: usize = 4096;
/// Targets in turn.
const TARGETS: usize = 8;
/// What the subscribers of topics in turn subscribe to.
const ALL_TOPICS: &str = "plant/#";
/// The topic of the cases with one topic, to which all other receivers subscribe.
const ONE_TOPIC: &str = "plant/line1/speed";

/// The kind of messages that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Runs of messages to one client.
    Message,
    /// The same, acknowledged.
    Acknowledged,
    /// Messages to two clients alternately: each is a run of its own.
    TwoTargets,
    /// The same, under access rules.
    TwoTargetsWithRules,
    /// A topic with 8 subscribers, which the sender has cached.
    Topic,
    /// The same, under access rules.
    TopicWithRules,
    /// A different topic each time, among 20,000 filters.
    NewTopics,
    /// A broadcast to 8 clients.
    Broadcast,
    /// Messages to 8 clients in turn.
    TargetsInTurn,
    /// 128 topics in turn, to one subscriber of all.
    TopicsInTurn,
    /// The same, acknowledged.
    TopicsInTurnAcknowledged,
    /// 4,096 topics in turn, to one subscriber of all.
    ManyTopicsInTurn,
    /// 128 topics in turn, to 8 subscribers of all.
    TopicsInTurnToAll,
    /// 128 topics in turn, each this many times, to one subscriber of all: runs of that many frames.
    Repeated(usize),
}

impl Case {
    /// All cases.
    pub const ALL: [Case; 15] = [
        Case::Message,
        Case::Acknowledged,
        Case::TwoTargets,
        Case::TwoTargetsWithRules,
        Case::Topic,
        Case::TopicWithRules,
        Case::NewTopics,
        Case::Broadcast,
        Case::TargetsInTurn,
        Case::TopicsInTurn,
        Case::TopicsInTurnAcknowledged,
        Case::ManyTopicsInTurn,
        Case::TopicsInTurnToAll,
        Case::Repeated(5),
        Case::Repeated(8),
    ];

    /// The name in the file of figures and on the command line.
    pub fn name(self) -> String {
        let name = match self {
            Case::Message => "message",
            Case::Acknowledged => "acknowledged",
            Case::TwoTargets => "two-targets",
            Case::TwoTargetsWithRules => "two-targets-ruled",
            Case::Topic => "topic-8",
            Case::TopicWithRules => "topic-8-ruled",
            Case::NewTopics => "new-topics",
            Case::Broadcast => "broadcast-8",
            Case::TargetsInTurn => "targets-8",
            Case::TopicsInTurn => "topics-128",
            Case::TopicsInTurnAcknowledged => "topics-128-acked",
            Case::ManyTopicsInTurn => "topics-4096",
            Case::TopicsInTurnToAll => "topics-128-to-8",
            Case::Repeated(times) => return format!("repeated-{times}"),
        };
        name.to_owned()
    }

    /// The number of receivers of each message.
    fn receivers(self) -> usize {
        match self {
            Case::Topic | Case::TopicWithRules | Case::Broadcast | Case::TopicsInTurnToAll => SUBSCRIBERS,
            _ => 1,
        }
    }

    /// The filter that a receiver subscribes to.
    fn filter(self, receiver: usize) -> &'static str {
        match self {
            Case::TopicsInTurn
            | Case::TopicsInTurnAcknowledged
            | Case::ManyTopicsInTurn
            | Case::TopicsInTurnToAll
            | Case::Repeated(_)
                if receiver < self.receivers() =>
            {
                ALL_TOPICS
            }
            _ => ONE_TOPIC,
        }
    }

    fn warm_up_reads(self) -> usize {
        if self == Case::ManyTopicsInTurn { MANY_TOPICS_WARM_UP_READS } else { WARM_UP_READS }
    }

    /// Access rules that allow what is sent, if the case has any.
    fn rules(self) -> Result<Option<AccessRules>, BoxError> {
        if !matches!(self, Case::TwoTargetsWithRules | Case::TopicWithRules) {
            return Ok(None);
        }
        let client = |name: &str, send: &str, publish: &str, subscribe: &str| {
            let name = name.to_owned();
            let (send, publish) = (vec![send.parse()?], vec![publish.parse()?]);
            Ok::<_, String>(ClientRules {
                name,
                send,
                publish,
                subscribe: vec![subscribe.parse()?],
                ..Default::default()
            })
        };
        let clients = vec![
            client("sender", "allow receiver.*", "allow plant/#", "deny #")?,
            client("receiver.*", "deny *", "deny #", "allow plant/#")?,
        ];
        Ok(Some(AccessRules { clients, ..Default::default() }))
    }

    fn frame(self, out: &mut Vec<u8>, number: usize) -> Result<(), BoxError> {
        let text;
        let (op, qos, target) = match self {
            Case::Message => (Op::Message, Qos::NO, "receiver.0"),
            Case::Acknowledged => (Op::Message, Qos::PROCESSED, "receiver.0"),
            Case::TwoTargets | Case::TwoTargetsWithRules => {
                (Op::Message, Qos::NO, ["receiver.0", "receiver.1"][number % 2])
            }
            Case::Topic | Case::TopicWithRules => (Op::Publish, Qos::NO, ONE_TOPIC),
            Case::Broadcast => (Op::Broadcast, Qos::NO, "receiver.*"),
            Case::TargetsInTurn => {
                text = format!("receiver.{}", number % TARGETS);
                (Op::Message, Qos::NO, text.as_str())
            }
            Case::NewTopics
            | Case::TopicsInTurn
            | Case::TopicsInTurnAcknowledged
            | Case::ManyTopicsInTurn
            | Case::TopicsInTurnToAll
            | Case::Repeated(_) => {
                text = topic_of(match self {
                    Case::NewTopics => number,
                    Case::ManyTopicsInTurn => number % MANY_TOPICS,
                    Case::Repeated(times) => number / times % TOPICS,
                    _ => number % TOPICS,
                });
                let acknowledged = self == Case::TopicsInTurnAcknowledged;
                (Op::Publish, if acknowledged { Qos::PROCESSED } else { Qos::NO }, text.as_str())
            }
        };
        Ok(encode_request(out, number as u32, op, qos, target, "", &PAYLOAD)?)
    }
}

fn topic_of(number: usize) -> String {
    format!("plant/line{}/sensor{number}/value", number % 100)
}

/// The queue of a receiver, as a transport has it. A flush discards its contents.
#[derive(Default)]
struct ReceiverQueue {
    queue: Queue,
    /// Messages delivered so far.
    messages: usize,
    dirty: bool,
}

struct MemorySink(Arc<Mutex<ReceiverQueue>>);

impl Sink for MemorySink {
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        let messages = run.payloads().len();
        let wire = Wire::of(run);
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wire.push(&mut out.queue, 0);
        out.messages += messages;
        if std::mem::replace(&mut out.dirty, true) { DeliveryStatus::TAKEN } else { DeliveryStatus::DIRTY }
    }

    fn deliver_mixed(&self, run: &mut MixedRun<'_>) -> DeliveryStatus {
        let messages = run.len();
        let wire = MixedWire::of(run);
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wire.push(&mut out.queue);
        out.messages += messages;
        if std::mem::replace(&mut out.dirty, true) { DeliveryStatus::TAKEN } else { DeliveryStatus::DIRTY }
    }

    fn resume_sending(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn flush(&self) {
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.queue.clear();
        out.dirty = false;
    }

    fn when_drained(&self, notifier: Notifier) {
        notifier.notify();
    }

    fn close(&self, _: &str) {}

    fn queued(&self) -> Queued {
        Queued::default()
    }
}

fn register(broker: &Broker, name: &str) -> Result<(Client, Arc<Mutex<ReceiverQueue>>), BoxError> {
    let out = Arc::new(Mutex::default());
    let info = ClientInfo::new("local_ipc", Locality::SameHost);
    let client = broker.host().register(name, &info, MemorySink(out.clone()));
    Ok((client.map_err(|code| format!("{name}: {code}"))?, out))
}

/// Runs a case and checks that every message was delivered.
pub(super) fn run(case: Case) -> Result<(), BoxError> {
    let broker = Broker::builder().start()?;
    if let Some(rules) = case.rules()? {
        broker.host().set_access_rules(&rules)?;
    }
    let (mut sender, _) = register(&broker, "sender")?;
    let mut receivers = Vec::new();
    for index in 0..SUBSCRIBERS {
        let (mut client, out) = register(&broker, &format!("receiver.{index}"))?;
        client.dispatch(&Request::new(Op::Subscribe, Qos::NO, case.filter(index), &[]));
        receivers.push((client, out));
    }
    if case == Case::NewTopics {
        let mut filters = Vec::new();
        let topics: Vec<_> = (0..FILTERS).map(topic_of).collect();
        encode_filters(&mut filters, 0, Op::Subscribe, Qos::NO, topics.iter().map(String::as_str))?;
        let body = std::str::from_utf8(filters.get(9..).unwrap_or_default())?;
        if let Some((client, _)) = receivers.first_mut() {
            client.dispatch(&Request::new(Op::Subscribe, Qos::NO, body, &[]));
        }
    }
    let (mut reads, warm_up_reads) = (Vec::new(), case.warm_up_reads());
    for read in 0..warm_up_reads + READS {
        let mut bytes = Vec::new();
        for frame in 0..FRAMES {
            case.frame(&mut bytes, read * FRAMES + frame)?;
        }
        reads.push(bytes);
    }
    let (warm_up, counted) = reads.split_at(warm_up_reads);
    let mut acks = Vec::with_capacity(FRAMES * 6);
    handle_reads(&mut sender, warm_up, &mut acks)?;
    counted_reads(&mut sender, counted, &mut acks)?;
    let delivered = |out: &Mutex<ReceiverQueue>| out.lock().unwrap_or_else(PoisonError::into_inner).messages;
    let total: usize = receivers.iter().map(|(_, out)| delivered(out)).sum();
    let expected = (warm_up_reads + READS) * FRAMES * case.receivers();
    if total != expected {
        return Err(format!("{total} messages were delivered, expected {expected}").into());
    }
    Ok(())
}

/// The counted function. valgrind finds it by its name, [`COUNTED_FUNCTION`].
#[inline(never)]
fn counted_reads(sender: &mut Client, reads: &[Vec<u8>], acks: &mut Vec<u8>) -> Result<(), BoxError> {
    handle_reads(sender, reads, acks)
}

/// Parses the frames of each read, dispatches them and appends their acknowledgements, by the same calls as
/// the reader of a stream. All cases take this path, and nothing else here makes these calls.
#[inline(never)]
fn handle_reads(sender: &mut Client, reads: &[Vec<u8>], acks: &mut Vec<u8>) -> Result<(), BoxError> {
    let limits = Limits::default();
    let (mut mode, mut mixed) = (MixedMode::default(), MixedVectors::default());
    for read in reads {
        let mut run = RunBuffer::<Payload<'_>>::new();
        let mut position = 0;
        while let Step::Run(head) = next_run(read, &mut position, &limits, &mut run)? {
            let payloads = run.payloads.get(..head.len).unwrap_or_default();
            let request = Request::new(head.op, head.qos, head.target, payloads).blocking();
            let code = sender.dispatch(&request).code() as u8;
            if head.qos.wants_ack() {
                for id in run.op_ids.get(..head.len).unwrap_or_default() {
                    acks.extend_from_slice(&encode_ack(*id, code));
                }
            }
            if mode.begins(head.len, read.len() - position) {
                position = handle_mixed_runs(sender, read, position, &mut mode, &mut mixed, acks);
            }
        }
        sender.end_batch();
        std::hint::black_box(&acks);
        acks.clear();
    }
    Ok(())
}

/// Op ids and codes of a mixed run.
type MixedVectors = (Vec<u32>, Vec<u8>);

/// Parses mixed runs, dispatches them and appends their acknowledgements; returns the position behind them.
#[inline(never)]
fn handle_mixed_runs(
    sender: &mut Client,
    read: &[u8],
    mut position: usize,
    mode: &mut MixedMode,
    (op_ids, codes): &mut MixedVectors,
    acks: &mut Vec<u8>,
) -> usize {
    let limits = Limits::default();
    let mut frames = Vec::with_capacity(FRAMES);
    loop {
        op_ids.clear();
        frames.clear();
        let end = next_mixed_run(read, &mut position, &limits, MAX_MIXED_BODY, |frame| {
            op_ids.push(frame.op_id);
            frames
                .push(Frame::new(frame.op, frame.qos, frame.body, frame.target_len).repeating(frame.repeats));
        });
        codes.resize(frames.len(), 0);
        let mut first = 0;
        while let Some(left) = frames.get(first..).filter(|left| !left.is_empty()) {
            let codes = codes.get_mut(first..).unwrap_or_default();
            let dispatched = sender.dispatch_mixed(left, codes).dispatched();
            if dispatched == 0 {
                return position;
            }
            first += dispatched;
        }
        for ((frame, id), code) in frames.iter().zip(&*op_ids).zip(&*codes) {
            if frame.qos().wants_ack() {
                acks.extend_from_slice(&encode_ack(*id, *code));
            }
        }
        if end != MixedEnd::Limit {
            mode.end(end);
            return position;
        }
    }
}
