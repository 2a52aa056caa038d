//! Mirrored topics: publications of local clients go to NATS programs one by one, and what these publish
//! comes from `@nats`. Both ways are limited: what does not fit is dropped and counted.
//!
//! They have a connection of their own: a message that the client of NATS cannot read ends its connection,
//! and any program that may publish to a mirrored subject can send one. The links to other nodes go on.

use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use elbus_bridge::mirror::{BUS_HEADER, subject_matches};
use elbus_plugin_api::{
    Client, ClientInfo, Code, Host, Locality, Notifier, NullSink, Op, Payload, PluginError, Qos, Request,
};
use elbus_protocol::topic;
use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::time::timeout_at;

use crate::{
    engine::{Engine, EngineEvent, Purpose, Source},
    inputs::{Input, Inputs},
    log_limit::{LOGGED_PROBLEMS, LogLimit},
    mirror_drops::{DropReason, LoggedDrops},
    mirror_queue::{Fate, MirrorSink, Queue, cost},
    own_clients::{KIND, NATS_SENDER, mirror_name},
    settings::Settings,
    sinks::ProxyNames,
    snapshot::MirrorCounts,
};

/// Bytes of publications of NATS programs that wait for local receivers; what exceeds them is dropped.
const PARKED_BYTES: usize = 8 << 20;
/// Bytes of the header with the name of the bus, and of its frame.
const HEADER_BYTES: usize = 128;
/// Messages that are published before the others have their turn, and the client of NATS.
const PER_TURN: usize = 64;
/// A server sends nothing while programs publish nothing, and its answer comes behind everything that was
/// published before: on a slow link, that takes long.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes that are read at once. The client of NATS reads at most 128 times in each of its turns, so this
/// limits how many messages wait for the thread, and for how long those of other nodes do.
const READ_BYTES: u16 = 4 << 10;
/// Messages that wait for the thread: more than one turn of the client can read, however short they are.
const ARRIVED_MESSAGES: usize = 1 << 17;

/// Both ways of an instance.
pub(crate) struct MirrorLink {
    settings: Arc<Settings>,
    engine: Engine,
    /// The server, while there is a connection.
    server: Option<String>,
    /// Why the last attempt to connect has failed.
    problem: Option<String>,
    queue: Arc<Queue>,
    /// Subscribes for NATS programs. Held for its registration.
    _subscriber: Client,
    /// Sends what NATS programs publish.
    sender: Client,
    /// What the subscriptions at the server are for.
    subjects: Vec<Subject>,
    headers: HeaderMap,
    /// The last topic and its subject: publishers repeat themselves.
    last: Option<(Arc<str>, Option<Subject>)>,
    parked: VecDeque<(String, Bytes)>,
    parked_bytes: usize,
    waits: bool,
    counts: MirrorCounts,
    logged: LoggedDrops,
    problems: LogLimit,
}

impl MirrorLink {
    /// Subscribes to the mirrored topics; `None` if there are none.
    ///
    /// # Errors
    /// Another instance mirrors topics, or a filter is refused.
    pub(crate) fn start(
        host: &Host,
        settings: &Arc<Settings>,
        inputs: &Arc<Inputs>,
        proxies: &Arc<ProxyNames>,
    ) -> Result<Option<Self>, PluginError> {
        if settings.mirror.is_empty() {
            return Ok(None);
        }
        let queue = Arc::new(Queue::new(inputs.clone(), proxies.clone()));
        let info = ClientInfo::new(KIND, Locality::Remote).with_node(NATS_SENDER);
        let sender = host.register(NATS_SENDER, &info, NullSink).map_err(|code| {
            let text =
                format!("cannot register {NATS_SENDER}: {code}; one instance of a broker can mirror topics");
            PluginError::of_key("mirror", text)
        })?;
        let name = mirror_name(&settings.bridge.bus);
        let internal = ClientInfo::in_process().as_internal();
        let refused = |code: Code| PluginError::of_key("mirror", format!("cannot subscribe: {code}"));
        let mut subscriber = host.register(&name, &internal, MirrorSink(queue.clone())).map_err(refused)?;
        subscriber.subscribe(&settings.mirror).map_err(refused)?;
        let mut headers = HeaderMap::new();
        headers.insert(BUS_HEADER, &*settings.bridge.bus);
        let subjects = settings.mirrored_subjects();
        let numbered = subjects.iter().cloned().enumerate();
        let subscriptions = numbered.map(|(number, subject)| (Source::Mirror(number), subject)).collect();
        let purpose = Purpose {
            subscriptions,
            longest_payload: 0,
            ping_interval: PING_INTERVAL,
            about: ", mirrored topics",
            read_bytes: READ_BYTES,
            arrived_messages: ARRIVED_MESSAGES,
        };
        Ok(Some(MirrorLink {
            settings: settings.clone(),
            engine: Engine::new(settings.clone(), purpose),
            server: None,
            problem: None,
            queue,
            _subscriber: subscriber,
            sender,
            subjects,
            headers,
            last: None,
            parked: VecDeque::new(),
            parked_bytes: 0,
            waits: false,
            counts: MirrorCounts::default(),
            logged: LoggedDrops::default(),
            problems: LogLimit::new(LOGGED_PROBLEMS),
        }))
    }

    /// Returns what was mirrored.
    pub(crate) fn counts(&self) -> MirrorCounts {
        let queued_bytes = self.queue.bytes();
        let (dropped, parked_bytes) = (self.queue.drops.total(), self.parked_bytes);
        let is_disconnected = self.server.is_none();
        MirrorCounts { dropped, queued_bytes, parked_bytes, is_disconnected, ..self.counts }
    }

    /// Logs what was dropped since the last time, if that was some time ago or `at_once`.
    pub(crate) fn log_drops(&mut self, at_once: bool) {
        self.logged.log(&self.settings.bridge.bus, &self.queue.drops, at_once);
    }

    /// Returns why there is no connection, or what the server has refused last.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Handles everything that has happened: what stays with the client of NATS has no limit in bytes.
    /// Returns whether the state of the connection has changed.
    pub(crate) fn poll_engine(&mut self, context: &mut Context<'_>) -> bool {
        let mut has_changed = false;
        while let Poll::Ready(event) = self.engine.poll_event(context) {
            has_changed |= !matches!(event, EngineEvent::Mirrored(..) | EngineEvent::Missed { .. });
            let bus = &*self.settings.bridge.bus;
            match event {
                EngineEvent::Mirrored(number, message) => self.received(number, *message),
                EngineEvent::Connected { server } => {
                    tracing::info!(bus, server, "connected to NATS for mirrored topics");
                    (self.server, self.problem) = (Some(server), None);
                    self.queue.set_fate(Fate::Publish);
                }
                EngineEvent::Lost { why } => {
                    let server = self.server.take();
                    tracing::warn!(bus, server, why, "connection to NATS for mirrored topics lost");
                    self.problem = Some(why);
                    self.counts.lost_connections += 1;
                    self.queue.drop_all(DropReason::NotConnected);
                }
                EngineEvent::Failed { server, why, .. } => {
                    // the connection of the nodes fails as well, and each of its attempts is logged
                    if self.problem.as_ref() != Some(&why) {
                        tracing::warn!(bus, server, why, "cannot connect to NATS for mirrored topics");
                        self.problem = Some(why);
                    }
                }
                EngineEvent::Missed { count } => {
                    self.queue.drops.add(DropReason::TooMany, usize::try_from(count).unwrap_or(usize::MAX));
                }
                EngineEvent::Problem { text } => {
                    if let Some(suppressed) = self.problems.permit(Instant::now()) {
                        let server = self.server.as_deref();
                        tracing::error!(
                            bus,
                            server,
                            error = text,
                            suppressed,
                            "NATS server reports an error"
                        );
                    }
                    self.problem = Some(text);
                }
                EngineEvent::ForAll(_) | EngineEvent::ForOwn(_) => {}
            }
        }
        has_changed
    }

    /// The instance stops: publishes what waits until `end`, and drops the rest.
    pub(crate) async fn finish(&mut self, end: tokio::time::Instant) {
        self.queue.set_fate(Fate::Drop(DropReason::Stopped));
        let published = poll_fn(|context| {
            while self.publish(context) {}
            let is_over = !self.engine.is_linked() || self.queue.is_empty();
            if is_over { Poll::Ready(()) } else { Poll::Pending }
        });
        // a server can have stopped reading
        let in_time = timeout_at(end, published).await.is_ok();
        self.queue.drop_all(DropReason::Stopped);
        self.queue.drops.add(DropReason::Stopped, self.parked.len());
        if in_time {
            self.engine.flush(end).await;
        }
        self.log_drops(true);
    }

    /// Publishes some messages that wait. Returns whether more of them could be published.
    pub(crate) fn publish(&mut self, context: &mut Context<'_>) -> bool {
        let max = self.engine.max_payload().saturating_sub(HEADER_BYTES + self.settings.bridge.bus.len());
        for _ in 0..PER_TURN {
            if self.queue.is_empty() || self.engine.poll_ready(context).is_pending() {
                return false;
            }
            let Some((topic, payload)) = self.queue.pop() else { return false };
            match self.subject(&topic) {
                Some(subject) if payload.len() <= max => {
                    self.engine.publish(subject, payload, Some(self.headers.clone()));
                    self.counts.sent += 1;
                }
                Some(_) => self.queue.drops.add(DropReason::LongPayload, 1),
                None => self.queue.drops.add(DropReason::NoSubject, 1),
            }
        }
        true
    }

    fn subject(&mut self, topic: &Arc<str>) -> Option<Subject> {
        if let Some((_, subject)) = self.last.as_ref().filter(|(last, _)| last == topic) {
            return subject.clone();
        }
        let subject = self.settings.mapping.subject(topic).map(Subject::from);
        self.last = Some((topic.clone(), subject.clone()));
        subject
    }

    /// Publishes what a NATS program has published, unless a bridge of this bus has. `number` is that of the
    /// subscription: the server sends a message once for each one that it matches.
    fn received(&mut self, number: usize, message: Message) {
        let mut earlier = self.subjects.iter().take(number);
        if earlier.any(|subject| subject_matches(subject, &message.subject)) {
            return;
        }
        let header = message.headers.as_ref().and_then(|headers| headers.get(BUS_HEADER));
        if self.settings.mapping.is_from_bridge(header.map(|value| value.as_str())) {
            return;
        }
        let topic = self.settings.mapping.topic(&message.subject);
        let is_mirrored = |text: &String| {
            !text.starts_with('.') && self.settings.mirror.iter().any(|filter| topic::matches(filter, text))
        };
        let Some(topic) = topic.filter(is_mirrored) else { return };
        if self.waits || !self.parked.is_empty() {
            return self.park(topic, message.payload);
        }
        self.dispatch(topic, message.payload);
    }

    /// The receivers of earlier messages have drained.
    pub(crate) fn ready(&mut self) {
        self.waits = false;
        while !self.waits
            && let Some((topic, payload)) = self.parked.pop_front()
        {
            self.parked_bytes -= cost(&topic, &payload);
            self.dispatch(topic, payload);
        }
    }

    /// Ends the batch of what was received.
    pub(crate) fn end_batch(&mut self) {
        if self.sender.end_batch() {
            self.wait();
        }
    }

    fn dispatch(&mut self, topic: String, payload: Bytes) {
        let payloads = [Payload::from(&*payload)];
        let result = self.sender.dispatch(&Request::new(Op::Publish, Qos::NO, &topic, &payloads).blocking());
        if result.is_blocked() {
            self.wait();
            return self.park_first(topic, payload);
        }
        match result.result() {
            Ok(_) => self.counts.received += 1,
            Err(_) => self.queue.drops.add(DropReason::Refused, 1),
        }
    }

    fn wait(&mut self) {
        if !std::mem::replace(&mut self.waits, true) {
            self.sender.end_batch();
            let inputs = self.queue.inputs.clone();
            self.sender.when_ready(Notifier::new(move || inputs.push(Input::MirrorReady)));
        }
    }

    fn park(&mut self, topic: String, payload: Bytes) {
        let cost = cost(&topic, &payload);
        if self.parked_bytes + cost > PARKED_BYTES {
            self.queue.drops.add(DropReason::ReceiversFull, 1);
            return;
        }
        self.parked_bytes += cost;
        // a copy: a slice would keep the buffer that it has arrived in
        self.parked.push_back((topic, Bytes::copy_from_slice(&payload)));
    }

    fn park_first(&mut self, topic: String, payload: Bytes) {
        self.parked_bytes += cost(&topic, &payload);
        self.parked.push_front((topic, payload));
    }
}
