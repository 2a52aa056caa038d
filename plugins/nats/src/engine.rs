//! A connection to NATS: connects with back-off, subscribes, passes on what arrives, and publishes. Knows
//! nothing of what the messages mean.
//!
//! A connection is used until it is lost, and then replaced. Whatever has arrived by then is passed on first;
//! what was published and is still in the client of NATS is dropped.
//!
//! The client of NATS reads as fast as messages arrive and drops what its queues have no room for. Its memory
//! is limited because the thread of the instance takes everything off between two of its turns.

use async_nats::{
    Client, ConnectErrorKind, Event, HeaderMap, Message, ServerAddr, Subject, Subscriber,
    connect_with_options, message::OutboundMessage,
};
use bytes::Bytes;
use futures_util::{Sink, Stream};
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep, timeout, timeout_at},
};

use crate::settings::Settings;

/// The first pause after an attempt, doubled with each one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Time after which a connection that is lost has worked: the next attempt follows soon.
const STABLE: Duration = Duration::from_secs(10);
/// The pause after a server has refused the credentials, so that they are not tried all the time.
const REFUSED_PAUSE: Duration = Duration::from_secs(15);
/// Events of a connection that wait. If they have no room, the end of the connection is known by that of its
/// subscriptions.
const MAX_EVENTS: usize = 64;
/// Time for what is queued to reach the server when the instance stops.
const FLUSH_TIME: Duration = Duration::from_millis(500);

/// What a connection is for.
#[derive(Debug, Clone)]
pub(crate) struct Purpose {
    pub(crate) subscriptions: Vec<(Source, Subject)>,
    /// The length of the longest payload that is published, in bytes; 0 if any server will do.
    pub(crate) longest_payload: usize,
    /// Time without anything from the server after which it is asked for a sign of life. The connection ends
    /// when the third remains without an answer.
    pub(crate) ping_interval: Duration,
    /// What the server shows behind the name of the node.
    pub(crate) about: &'static str,
    /// Bytes that are read at once.
    pub(crate) read_bytes: u16,
    /// Messages of a subscription that have arrived and wait.
    pub(crate) arrived_messages: usize,
}

/// What a message is received from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The subject of all nodes.
    All,
    /// The subject of this node.
    Own,
    /// The subscription to mirrored topics of this number.
    Mirror(usize),
}

/// What has happened.
#[derive(Debug)]
pub(crate) enum EngineEvent {
    /// Connected; the subscriptions are on their way to the server, before everything else.
    Connected { server: String },
    /// The connection is lost.
    Lost { why: String },
    /// An attempt to connect has failed; the next one follows after the pause.
    Failed { server: String, why: String, pause: Duration },
    /// A message on the subject of all nodes.
    ForAll(Bytes),
    /// A message on the subject of this node.
    ForOwn(Bytes),
    /// A message on the subject of a mirrored topic, and the number of the subscription that it is for.
    Mirrored(usize, Box<Message>),
    /// The client of NATS has dropped messages, because too many have arrived at once.
    Missed { count: u64 },
    /// The server has reported an error, such as a permissions violation.
    Problem { text: String },
}

type Connecting = Pin<Box<dyn Future<Output = Result<Link, Failure>> + Send>>;

/// The connection, or the way to it.
pub(crate) struct Engine {
    settings: Arc<Settings>,
    purpose: Purpose,
    state: State,
    /// The server that is tried next.
    next_server: usize,
    pause: Duration,
    /// Which subscription is looked at first, so that none waits for another.
    turn: usize,
}

enum State {
    Idle,
    Waiting(Pin<Box<Sleep>>),
    Connecting(Connecting, String),
    Linked(Box<Link>),
}

struct Link {
    since: Instant,
    client: Client,
    subscribers: Vec<(Source, Subscriber)>,
    events: mpsc::Receiver<Event>,
    server: String,
    /// Messages that were taken, or were reported as missed.
    taken: u64,
}

struct Failure {
    why: String,
    is_refusal: bool,
}

impl Engine {
    pub(crate) fn new(settings: Arc<Settings>, purpose: Purpose) -> Self {
        let next_server = fastrand::usize(..settings.servers.len().max(1));
        Engine { settings, purpose, state: State::Idle, next_server, pause: FIRST_PAUSE, turn: 0 }
    }

    /// Returns whether there is a connection.
    pub(crate) fn is_linked(&self) -> bool {
        matches!(self.state, State::Linked(_))
    }

    /// Drives the connection; returns what has happened.
    pub(crate) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<EngineEvent> {
        loop {
            match &mut self.state {
                State::Idle => self.connect(),
                State::Waiting(sleep) => {
                    if sleep.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    self.connect();
                }
                State::Connecting(connecting, server) => match connecting.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(link)) => {
                        let server = link.server.clone();
                        self.state = State::Linked(Box::new(link));
                        return Poll::Ready(EngineEvent::Connected { server });
                    }
                    Poll::Ready(Err(failure)) => {
                        let server = std::mem::take(server);
                        let pause = if failure.is_refusal { REFUSED_PAUSE } else { self.pause };
                        self.wait(pause);
                        return Poll::Ready(EngineEvent::Failed { server, why: failure.why, pause });
                    }
                },
                State::Linked(link) => {
                    self.turn = self.turn.wrapping_add(1);
                    match link.poll_event(self.turn, context) {
                        Poll::Ready(event) => {
                            if matches!(event, EngineEvent::Lost { .. }) {
                                if link.since.elapsed() > STABLE {
                                    self.pause = FIRST_PAUSE;
                                }
                                self.wait(self.pause);
                            }
                            return Poll::Ready(event);
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
        }
    }

    fn wait(&mut self, pause: Duration) {
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        // not all nodes at the same moment
        let wait = pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        self.state = State::Waiting(Box::pin(sleep(wait)));
    }

    fn connect(&mut self) {
        let servers = &self.settings.servers;
        let Some(server) = servers.get(self.next_server % servers.len().max(1)).cloned() else { return };
        self.next_server = self.next_server.wrapping_add(1);
        let text = format!("{}:{}", server.host(), server.port());
        let link = link(self.settings.clone(), self.purpose.clone(), server, text.clone());
        self.state = State::Connecting(Box::pin(link), text);
    }

    /// Returns whether a message can be published now. If not, the task is woken when it can.
    pub(crate) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            State::Linked(link) => Pin::new(&mut link.client).poll_ready(context).map(drop),
            _ => Poll::Pending,
        }
    }

    /// Publishes a message, after [`poll_ready`](Self::poll_ready) has returned that it can be.
    pub(crate) fn publish(&mut self, subject: Subject, payload: Bytes, headers: Option<HeaderMap>) {
        if let State::Linked(link) = &mut self.state {
            let message = OutboundMessage { subject, payload, headers, reply: None };
            // it fails if the connection has ended, which is reported as an event
            _ = Pin::new(&mut link.client).start_send(message);
        }
    }

    /// Returns the longest payload that the server takes, in bytes; 0 without a connection.
    pub(crate) fn max_payload(&self) -> usize {
        match &self.state {
            State::Linked(link) => link.client.max_payload(),
            _ => 0,
        }
    }

    /// Waits until what was published is sent, for a short time and until `end` at most.
    pub(crate) async fn flush(&mut self, end: Instant) {
        if let State::Linked(link) = &mut self.state {
            _ = timeout_at(end.min(Instant::now() + FLUSH_TIME), link.client.flush()).await;
        }
    }
}

async fn link(
    settings: Arc<Settings>,
    purpose: Purpose,
    server: ServerAddr,
    text: String,
) -> Result<Link, Failure> {
    let (sender, events) = mpsc::channel(MAX_EVENTS);
    let options = settings
        .login
        .options()
        .map_err(|error| Failure { why: error.to_string(), is_refusal: true })?
        .name(settings.login.name(purpose.about))
        .ping_interval(purpose.ping_interval)
        .subscription_capacity(purpose.arrived_messages)
        .read_buffer_capacity(purpose.read_bytes)
        .event_callback(move |event| {
            // those that do not fit are only for the log
            _ = sender.try_send(event);
            std::future::ready(())
        });
    let client = connect_with_options(server, options).await.map_err(|error| {
        let is_refusal = matches!(
            error.kind(),
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication
        );
        Failure { why: error.to_string(), is_refusal }
    })?;
    let (limit, needed) = (client.max_payload(), purpose.longest_payload);
    if limit < needed {
        let why =
            format!("max_payload of the server is {limit} bytes; a bridge needs {needed} (max_payload)");
        return Err(Failure { why, is_refusal: true });
    }
    let mut subscribers = Vec::new();
    let failed = |why: String| Failure { why, is_refusal: false };
    for (source, subject) in purpose.subscriptions {
        let subscriber = client.subscribe(subject).await.map_err(|error| failed(error.to_string()))?;
        subscribers.push((source, subscriber));
    }
    let flushed = timeout(Duration::from_secs(5), client.flush()).await;
    match flushed {
        Ok(Ok(())) => Ok(Link { since: Instant::now(), client, subscribers, events, server: text, taken: 0 }),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("the server does not read".to_owned())),
    }
}

impl Link {
    fn poll_event(&mut self, turn: usize, context: &mut Context<'_>) -> Poll<EngineEvent> {
        let count = self.subscribers.len();
        let mut has_ended = false;
        for at in 0..count {
            let Some((source, subscriber)) = self.subscribers.get_mut((turn + at) % count) else { continue };
            match Pin::new(subscriber).poll_next(context) {
                Poll::Pending => {}
                Poll::Ready(None) => has_ended = true,
                Poll::Ready(Some(message)) => {
                    self.taken += 1;
                    return Poll::Ready(match source {
                        Source::All => EngineEvent::ForAll(message.payload),
                        Source::Own => EngineEvent::ForOwn(message.payload),
                        Source::Mirror(number) => EngineEvent::Mirrored(*number, Box::new(message)),
                    });
                }
            }
        }
        // nothing waits: what has arrived beyond what was taken, the client had no room for
        let arrived = self.client.statistics().in_messages.load(Ordering::Relaxed);
        if arrived > self.taken {
            let count = arrived - std::mem::replace(&mut self.taken, arrived);
            return Poll::Ready(EngineEvent::Missed { count });
        }
        while let Poll::Ready(event) = self.events.poll_recv(context) {
            match event {
                Some(Event::Disconnected | Event::Closed) | None => {
                    return Poll::Ready(EngineEvent::Lost { why: "disconnected".to_owned() });
                }
                Some(Event::ServerError(error)) => {
                    return Poll::Ready(EngineEvent::Problem { text: error.to_string() });
                }
                Some(_) => {}
            }
        }
        if has_ended {
            return Poll::Ready(EngineEvent::Lost { why: "the subscription has ended".to_owned() });
        }
        Poll::Pending
    }
}
