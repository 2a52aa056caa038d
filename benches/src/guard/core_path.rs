//! The way of a message through the core, without a socket: bytes of a client are gathered into runs, dispatched, encoded by
//! the receivers' sinks and acknowledged, as a transport does it. Owns the cases and the one function that is counted.

use elbus_broker::Broker;
use elbus_plugin_api::{
    Client, ClientInfo, DeliveryStatus, Locality, Notifier, Payload, Queued, Request, Run, Sink,
    access::{AccessRules, ClientRules},
};
use elbus_protocol::{
    Limits, Op, Qos,
    delivery::encode_ack,
    request::{RunBuffer, Step, encode_filters, encode_request, next_run},
};
use elbus_socket::Queue;
use elbus_stream::Wire;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Failure;

/// Frames of one read.
const FRAMES: usize = 128;
/// Reads that are counted, and before these some that are not: caches fill.
const READS: usize = 100;
const WARM_UP: usize = 20;
/// Messages that are counted.
pub(super) const MESSAGES: usize = FRAMES * READS;
/// The function that valgrind is to count.
pub(super) const COUNTED: &str = "counted_reads";
const PAYLOAD: [u8; 100] = [b'x'; 100];
const SUBSCRIBERS: usize = 8;
/// Filters among which topics are looked for that nobody has asked for yet.
const FILTERS: usize = 20_000;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Runs of messages to one client.
    Message,
    /// The same, acknowledged.
    Acknowledged,
    /// Messages to two clients in turn: each is a run of its own.
    TwoTargets,
    /// The same, under access rules.
    RuledTargets,
    /// A topic with 8 subscribers, which the sender remembers.
    Topic,
    /// The same, under access rules.
    RuledTopic,
    /// A different topic each time, among 20,000 filters.
    NewTopics,
    /// A broadcast to 8 clients.
    Broadcast,
}

impl Case {
    /// All of them.
    pub const ALL: [Case; 8] = [
        Case::Message,
        Case::Acknowledged,
        Case::TwoTargets,
        Case::RuledTargets,
        Case::Topic,
        Case::RuledTopic,
        Case::NewTopics,
        Case::Broadcast,
    ];

    /// As the file of figures and the command line have it.
    pub fn name(self) -> &'static str {
        match self {
            Case::Message => "message",
            Case::Acknowledged => "acknowledged",
            Case::TwoTargets => "two-targets",
            Case::RuledTargets => "two-targets-ruled",
            Case::Topic => "topic-8",
            Case::RuledTopic => "topic-8-ruled",
            Case::NewTopics => "new-topics",
            Case::Broadcast => "broadcast-8",
        }
    }

    /// How many copies of each message arrive.
    fn copies(self) -> usize {
        if matches!(self, Case::Topic | Case::RuledTopic | Case::Broadcast) { SUBSCRIBERS } else { 1 }
    }

    /// Rules that allow what is sent, where there are any.
    fn rules(self) -> Result<Option<AccessRules>, Failure> {
        if !matches!(self, Case::RuledTargets | Case::RuledTopic) {
            return Ok(None);
        }
        let of = |name: &str, send: &str, publish: &str, subscribe: &str| {
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
            of("writer", "allow reader.*", "allow plant/#", "deny #")?,
            of("reader.*", "deny *", "deny #", "allow plant/#")?,
        ];
        Ok(Some(AccessRules { clients, ..Default::default() }))
    }

    fn frame(self, out: &mut Vec<u8>, number: usize) -> Result<(), Failure> {
        let topic;
        let (op, qos, target) = match self {
            Case::Message => (Op::Message, Qos::NO, "reader.0"),
            Case::Acknowledged => (Op::Message, Qos::PROCESSED, "reader.0"),
            Case::TwoTargets | Case::RuledTargets => {
                (Op::Message, Qos::NO, ["reader.0", "reader.1"][number % 2])
            }
            Case::Topic | Case::RuledTopic => (Op::Publish, Qos::NO, "plant/line1/speed"),
            Case::NewTopics => {
                topic = topic_of(number);
                (Op::Publish, Qos::NO, topic.as_str())
            }
            Case::Broadcast => (Op::Broadcast, Qos::NO, "reader.*"),
        };
        Ok(encode_request(out, number as u32, op, qos, target, "", &PAYLOAD)?)
    }
}

fn topic_of(number: usize) -> String {
    format!("plant/line{}/sensor{number}/value", number % 100)
}

/// What waits for a client, as a transport keeps it; forgotten when it is flushed.
#[derive(Default)]
struct Outgoing {
    queue: Queue,
    messages: usize,
    dirty: bool,
}

struct MemorySink(Arc<Mutex<Outgoing>>);

impl Sink for MemorySink {
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        let messages = run.payloads().len();
        let wire = Wire::of(run);
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wire.push(&mut out.queue, 0);
        out.messages += messages;
        if std::mem::replace(&mut out.dirty, true) { DeliveryStatus::TAKEN } else { DeliveryStatus::DIRTY }
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

fn join(broker: &Broker, name: &str) -> Result<(Client, Arc<Mutex<Outgoing>>), Failure> {
    let out = Arc::new(Mutex::default());
    let info = ClientInfo { kind: "local_ipc".into(), locality: Locality::SameHost, ..Default::default() };
    let client = broker.host().register(name, &info, MemorySink(out.clone()));
    Ok((client.map_err(|code| format!("{name}: {code}"))?, out))
}

/// Does the work of a case, and checks that all of it was done.
pub(super) fn run(case: Case) -> Result<(), Failure> {
    let broker = Broker::builder().start()?;
    if let Some(rules) = case.rules()? {
        broker.host().set_access_rules(&rules)?;
    }
    let (mut sender, _) = join(&broker, "writer")?;
    let mut readers = Vec::new();
    for index in 0..SUBSCRIBERS {
        let (mut client, out) = join(&broker, &format!("reader.{index}"))?;
        client.dispatch(&Request::new(Op::Subscribe, Qos::NO, "plant/line1/speed", &[]));
        readers.push((client, out));
    }
    if case == Case::NewTopics {
        let mut filters = Vec::new();
        let topics: Vec<_> = (0..FILTERS).map(topic_of).collect();
        encode_filters(&mut filters, 0, Op::Subscribe, Qos::NO, topics.iter().map(String::as_str))?;
        let body = std::str::from_utf8(filters.get(9..).unwrap_or_default())?;
        if let Some((client, _)) = readers.first_mut() {
            client.dispatch(&Request::new(Op::Subscribe, Qos::NO, body, &[]));
        }
    }
    let mut reads = Vec::new();
    for read in 0..WARM_UP + READS {
        let mut bytes = Vec::new();
        for frame in 0..FRAMES {
            case.frame(&mut bytes, read * FRAMES + frame)?;
        }
        reads.push(bytes);
    }
    let (warm_up, counted) = reads.split_at(WARM_UP);
    let mut acks = Vec::with_capacity(FRAMES * 6);
    handle_reads(&mut sender, warm_up, &mut acks)?;
    counted_reads(&mut sender, counted, &mut acks)?;
    let arrived = |out: &Mutex<Outgoing>| out.lock().unwrap_or_else(PoisonError::into_inner).messages;
    let all: usize = readers.iter().map(|(_, out)| arrived(out)).sum();
    let due = (WARM_UP + READS) * FRAMES * case.copies();
    if all == due { Ok(()) } else { Err(format!("{all} messages arrived where {due} were due").into()) }
}

/// What valgrind counts. Its name is what it goes by.
#[inline(never)]
fn counted_reads(sender: &mut Client, reads: &[Vec<u8>], acks: &mut Vec<u8>) -> Result<(), Failure> {
    handle_reads(sender, reads, acks)
}

#[inline(never)]
fn handle_reads(sender: &mut Client, reads: &[Vec<u8>], acks: &mut Vec<u8>) -> Result<(), Failure> {
    let limits = Limits::default();
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
        }
        sender.end_batch();
        std::hint::black_box(&acks);
        acks.clear();
    }
    Ok(())
}
