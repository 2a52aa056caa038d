//! The thread of an instance: passes on between NATS, the bridge and the broker. Decides nothing that the
//! bridge decides, and holds no lock while it calls anything.

use async_nats::Subject;
use elbus_bridge::{Bridge, Destination, Output, OwnName};
use elbus_plugin_api::{Completion, Host, PluginError};
use futures_util::future::join;
use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::time::{Sleep, timeout_at};

use crate::{
    engine::{Engine, EngineEvent, Purpose, Source},
    inputs::{Input, Inputs, Phase},
    interest,
    local_names::LocalNames,
    log_limit::{LOGGED_PROBLEMS, LogLimit},
    mirror::MirrorLink,
    node_clients::NodeClients,
    proxies::Proxies,
    report,
    settings::Settings,
    sinks::ProxyNames,
    snapshot::{Snapshot, State},
};

/// Outputs of the bridge that are handled before the others have their turn, and the tasks of the client of
/// NATS.
const PER_TURN: usize = 64;
/// Nodes that send nothing are lost after three seconds, however soon a silent connection ends.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Batches that have arrived and that the client of NATS keeps. The credit of nodes limits their bytes.
const ARRIVED_BATCHES: usize = 16_384;
/// Interval of snapshots.
const SNAPSHOT: Duration = Duration::from_secs(1);
/// The part of the time for stopping that is kept for saying goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// What the thread of an instance owns.
pub(crate) struct Worker {
    host: Host,
    settings: Arc<Settings>,
    inputs: Arc<Inputs>,
    snapshot: Arc<Snapshot>,
    bridge: Bridge<Completion>,
    engine: Engine,
    proxies: Proxies,
    nodes: NodeClients,
    local: LocalNames,
    mirror: Option<MirrorLink>,
    subjects: HashMap<Arc<str>, Subject>,
    all: Subject,
    state: State,
    started: Instant,
    next_snapshot: Instant,
    phase: Phase,
    taken: Vec<Input>,
    problems: LogLimit,
}

impl Worker {
    /// Creates the state, and learns which clients there are.
    ///
    /// # Errors
    /// Mirrored topics cannot be subscribed to.
    pub(crate) fn new(
        host: Host,
        settings: Arc<Settings>,
        inputs: Arc<Inputs>,
        snapshot: Arc<Snapshot>,
    ) -> Result<Self, PluginError> {
        let names = Arc::<ProxyNames>::default();
        let mirror = MirrorLink::start(&host, &settings, &inputs, &names)?;
        let all = Subject::from(settings.bridge.subject_of_all());
        let own = Subject::from(settings.bridge.subject_of(&settings.bridge.node));
        let subscriptions = vec![(Source::All, all.clone()), (Source::Own, own)];
        let purpose = Purpose {
            subscriptions,
            longest_payload: settings.bridge.limits.longest_batch(),
            ping_interval: PING_INTERVAL,
            about: "",
            read_bytes: u16::MAX,
            arrived_messages: ARRIVED_BATCHES,
        };
        let epoch = fastrand::u64(1..);
        let now = Instant::now();
        let mut worker = Worker {
            bridge: Bridge::new(settings.bridge.clone(), epoch, Duration::ZERO),
            engine: Engine::new(settings.clone(), purpose),
            proxies: Proxies::new(host.clone(), inputs.clone(), names.clone()),
            nodes: NodeClients::new(host.clone(), settings.clone(), inputs.clone(), names),
            local: LocalNames::default(),
            mirror,
            subjects: HashMap::new(),
            all,
            state: State::default(),
            started: now,
            next_snapshot: now,
            phase: Phase::Started,
            taken: Vec::new(),
            problems: LogLimit::new(LOGGED_PROBLEMS),
            host,
            settings,
            inputs,
            snapshot,
        };
        worker.local.read(&mut worker.bridge, &worker.host);
        Ok(worker)
    }

    /// Works until the instance stops.
    pub(crate) async fn run(mut self) {
        let mut timer: Pin<Box<Sleep>> = Box::pin(tokio::time::sleep(Duration::ZERO));
        poll_fn(|context| self.turn(&mut timer, context)).await;
        let now = self.now();
        self.bridge.stop(now);
        // the batches of the goodbye are few, but a server can have stopped reading
        let left = self.time_left();
        let [end, end_of_all] = [left / 2, left - left / 8].map(|time| tokio::time::Instant::now() + time);
        while let Some(output) = self.bridge.poll_output(now) {
            if matches!(output, Output::Publish { .. }) {
                let ready = poll_fn(|context| match self.engine.is_linked() {
                    true => self.engine.poll_ready(context),
                    false => Poll::Ready(()),
                });
                if timeout_at(end, ready).await.is_err() {
                    continue;
                }
            }
            self.carry_out(output);
        }
        match &mut self.mirror {
            // both at once: they have the same time
            Some(mirror) => drop(join(self.engine.flush(end_of_all), mirror.finish(end_of_all)).await),
            None => self.engine.flush(end_of_all).await,
        }
        self.proxies.clear("this node leaves the bus");
        self.nodes.clear();
        self.state = State::default();
        self.snapshot.set(State::default());
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns the time for saying goodbye.
    fn time_left(&self) -> Duration {
        match self.phase {
            Phase::Stopping(end) => end.saturating_duration_since(Instant::now()).min(GOODBYE),
            Phase::Started | Phase::Serving => Duration::ZERO,
        }
    }

    /// Handles some of everything. Ready once the instance should end.
    fn turn(&mut self, timer: &mut Pin<Box<Sleep>>, context: &mut Context<'_>) -> Poll<()> {
        self.inputs.listen(context.waker());
        self.take_inputs();
        if self.should_end() {
            return Poll::Ready(());
        }
        let mut is_busy = false;
        if self.phase != Phase::Started {
            self.poll_engine(context);
        }
        let now = self.now();
        if self.bridge.next_deadline() <= now {
            self.bridge.tick(now);
        }
        is_busy |= self.poll_bridge(context);
        if let Some(mirror) = &mut self.mirror
            && self.phase != Phase::Started
        {
            if mirror.poll_engine(context) {
                self.next_snapshot = Instant::now();
            }
            mirror.end_batch();
            is_busy |= mirror.publish(context);
        }
        self.take_snapshot();
        if is_busy {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let deadline = self.bridge.next_deadline().saturating_sub(now);
        let until_snapshot = self.next_snapshot.saturating_duration_since(Instant::now());
        let pause = deadline.min(until_snapshot).max(Duration::from_millis(1));
        timer.as_mut().reset(tokio::time::Instant::now() + pause);
        if timer.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Returns whether everything was taken by other nodes, or the time is over.
    fn should_end(&self) -> bool {
        let Phase::Stopping(end) = self.phase else { return false };
        let nodes = self.bridge.nodes(self.now());
        let is_idle = nodes
            .iter()
            .all(|node| node.queued_bytes == 0 && node.in_flight_bytes == 0 && node.parked_bytes == 0);
        is_idle || !self.engine.is_linked() || Instant::now() + GOODBYE >= end
    }

    fn take_inputs(&mut self) {
        let mut taken = std::mem::take(&mut self.taken);
        self.phase = self.inputs.take(&mut taken);
        for input in taken.drain(..) {
            let bridge = &mut self.bridge;
            match input {
                Input::Registered { name, kind } => self.local.registered(bridge, name, &kind),
                Input::Left { name } => self.local.left(bridge, &name),
                Input::Missed => self.local.read(bridge, &self.host),
                Input::Result { number } => self.proxies.ask_result(bridge, number),
                Input::Ready { proxy } => self.proxies.ready(bridge, proxy),
                Input::Closed { proxy, registration } => self.proxies.closed(bridge, proxy, registration),
                Input::Retry => {
                    let local = &self.local;
                    bridge.retry_refused(|name| !local.contains(name));
                }
                Input::MirrorReady => {
                    if let Some(mirror) = &mut self.mirror {
                        mirror.ready();
                    }
                }
            }
        }
        self.taken = taken;
        interest::apply(&mut self.bridge, &self.inputs);
    }

    /// Handles everything that has arrived: what stays with the client of NATS has no limit in bytes.
    fn poll_engine(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(event) = self.engine.poll_event(context) {
            let (now, bus) = (self.now(), &*self.settings.bridge.bus);
            match event {
                EngineEvent::ForAll(bytes) => self.bridge.received(&Destination::All, bytes, now),
                EngineEvent::ForOwn(bytes) => {
                    let own = Destination::Node(self.settings.bridge.node.as_str().into());
                    self.bridge.received(&own, bytes, now);
                }
                EngineEvent::Mirrored(..) => {}
                EngineEvent::Connected { server } => {
                    tracing::info!(bus, server, "connected to NATS");
                    self.state.server = Some(server);
                    self.state.problem = None;
                    self.bridge.connected(now);
                    self.next_snapshot = Instant::now();
                }
                EngineEvent::Lost { why } => {
                    tracing::warn!(bus, server = self.state.server, why, "connection to NATS lost");
                    self.state.server = None;
                    self.state.problem = Some(why);
                    self.state.lost_connections += 1;
                    self.bridge.lost(now);
                    self.next_snapshot = Instant::now();
                }
                EngineEvent::Failed { server, why, pause } => {
                    let delay_seconds = pause.as_secs_f64();
                    tracing::warn!(bus, server, why, delay_seconds, "cannot connect to NATS; trying again");
                    self.state.problem = Some(format!("{server}: {why}"));
                    self.next_snapshot = Instant::now();
                }
                EngineEvent::Missed { count } => {
                    if let Some(suppressed) = self.problems.permit(Instant::now()) {
                        tracing::warn!(
                            bus,
                            count,
                            suppressed,
                            "batches were dropped, because too many have arrived at once"
                        );
                    }
                }
                EngineEvent::Problem { text } => {
                    // a server can report one for each message
                    if let Some(suppressed) = self.problems.permit(Instant::now()) {
                        tracing::error!(
                            bus,
                            server = self.state.server,
                            error = text,
                            suppressed,
                            "NATS server reports an error"
                        );
                        self.next_snapshot = Instant::now();
                    }
                    self.state.problem = Some(text);
                }
            }
        }
    }

    /// Returns whether there may be more to do.
    fn poll_bridge(&mut self, context: &mut Context<'_>) -> bool {
        let mut is_busy = true;
        for _ in 0..PER_TURN {
            // batches are assembled when they can be published, so that they grow while they cannot
            let can_publish = !self.engine.is_linked() || self.engine.poll_ready(context).is_ready();
            let now = self.now();
            let output = match can_publish {
                true => self.bridge.poll_output(now),
                false => self.bridge.poll_other_output(now),
            };
            let Some(output) = output else {
                is_busy = false;
                break;
            };
            if can_publish || !matches!(output, Output::Publish { .. }) {
                self.carry_out(output);
            }
        }
        self.proxies.end_batches(&mut self.bridge);
        is_busy
    }

    fn carry_out(&mut self, output: Output<Completion>) {
        let bus = &*self.settings.bridge.bus;
        match output {
            Output::Publish { to, bytes } => {
                let subject = self.subject(&to);
                self.engine.publish(subject, bytes, None);
            }
            Output::OwnName(state) => {
                report::log_own_name(bus, &self.settings.bridge.node, state);
                self.state.own_name = Some(state);
                if state == OwnName::Taken {
                    self.proxies.clear("this node has lost its name");
                }
                self.next_snapshot = Instant::now();
            }
            Output::NodeUp { node, outbox } => {
                tracing::info!(bus, node = &*node, "node joined");
                self.nodes.add(node, outbox);
                self.next_snapshot = Instant::now();
            }
            Output::NodeLost { node, reason } => {
                tracing::warn!(bus, node = &*node, reason = report::lost_reason(reason), "node lost");
                self.nodes.remove(&node);
                self.next_snapshot = Instant::now();
            }
            Output::RegisterProxy { proxy, node, name, outbox, .. } => {
                self.proxies.register(&mut self.bridge, proxy, node, name, outbox);
            }
            Output::RemoveProxy { proxy, reason } => {
                self.proxies.remove(proxy, reason);
            }
            Output::Interest { node, added, removed } => self.nodes.change_interest(&node, &added, &removed),
            Output::Dispatch(delivery) => self.proxies.dispatch(&mut self.bridge, delivery),
            Output::Complete { completion, code } => completion.complete(code),
            Output::ReplyError { caller, callee, call_id } => {
                self.proxies.reply_error(&caller, callee, call_id);
            }
            Output::Drained { proxy: Some(proxy), .. } => self.proxies.drained(proxy),
            Output::Drained { node, proxy: None } => self.nodes.drained(&node),
            Output::Report(report) => report::log(bus, &self.settings.bridge.limits, &report),
        }
    }

    fn subject(&mut self, to: &Destination) -> Subject {
        match to {
            Destination::All => self.all.clone(),
            Destination::Node(node) => match self.subjects.get(node) {
                Some(subject) => subject.clone(),
                None => {
                    let subject = Subject::from(self.settings.bridge.subject_of(node));
                    // known nodes are limited, their names over time are not
                    if self.subjects.len() >= 2 * self.settings.bridge.limits.max_nodes {
                        self.subjects.clear();
                    }
                    self.subjects.insert(node.clone(), subject.clone());
                    subject
                }
            },
        }
    }

    fn take_snapshot(&mut self) {
        let now = Instant::now();
        if now < self.next_snapshot {
            return;
        }
        self.next_snapshot = now + SNAPSHOT;
        self.state.nodes = self.bridge.nodes(self.now());
        self.state.counters = self.bridge.counters().clone();
        self.state.proxies = self.proxies.len();
        self.state.refused_proxies = self.bridge.refused_clients();
        self.state.filters = self.inputs.known_filters();
        if let Some(mirror) = &mut self.mirror {
            self.state.mirror = mirror.counts();
            self.state.mirror_problem = mirror.problem().map(str::to_owned);
            mirror.log_drops(false);
        }
        self.snapshot.set(self.state.clone());
    }
}
