//! Plays a conversation: tells the client what to do and compares what it reports. The broker's side is in
//! `peer`.

use elbus_client::{
    Bytes, Call, Client, ConnectionEvent, ConnectionEvents, Frame, FrameKind, Frames, Notification, RpcError,
    RpcHandler, ServeHandle, Subscription,
};
use elbus_testing::notation::{bytes, pieces};
use std::{collections::HashMap, pin::pin, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, yield_now},
};

use crate::{
    operation::{self, Ended, Outcome, Product, SharedCursor},
    peer::{Peer, hex, settle, until},
    script::{Conversation, Line},
};

type Answer = Result<Bytes, RpcError>;

/// Passes calls to the conversation, which answers them.
struct Handler {
    calls: mpsc::UnboundedSender<(Call, oneshot::Sender<Answer>)>,
    notifications: mpsc::UnboundedSender<Notification>,
}

impl RpcHandler for Handler {
    async fn call(&self, call: Call) -> Answer {
        let (answer, answered) = oneshot::channel();
        let _ = self.calls.send((call, answer));
        answered.await.unwrap_or_else(|_| Err(RpcError::internal("the conversation has ended")))
    }

    async fn notification(&self, notification: Notification) {
        let _ = self.notifications.send(notification);
    }
}

/// The server of calls, and what it has received.
struct Server {
    _handle: ServeHandle,
    calls: mpsc::UnboundedReceiver<(Call, oneshot::Sender<Answer>)>,
    notifications: mpsc::UnboundedReceiver<Notification>,
}

struct Connected {
    client: Client,
    frames: Frames,
    events: ConnectionEvents,
}

pub(crate) struct ClientSide {
    peer: Peer,
    /// How much the broker writes of the bytes of a `cut` line.
    cut: Option<usize>,
    client: Option<Connected>,
    server: Option<Server>,
    operations: HashMap<String, JoinHandle<Ended>>,
    subscriptions: HashMap<String, Subscription>,
    cursors: HashMap<String, SharedCursor>,
    answers: HashMap<String, oneshot::Sender<Answer>>,
}

impl ClientSide {
    pub(crate) fn new(byte_by_byte: bool, cut: Option<usize>) -> Self {
        ClientSide {
            peer: Peer::listen(byte_by_byte),
            cut,
            client: None,
            server: None,
            operations: HashMap::new(),
            subscriptions: HashMap::new(),
            cursors: HashMap::new(),
            answers: HashMap::new(),
        }
    }

    pub(crate) async fn play(mut self, conversation: &Conversation) {
        let settings = conversation.lines.iter().find(|line| line.word == "settings");
        self.peer.ignores_keep_alive =
            !settings.is_some_and(|line| line.fields(0).any(|(key, _)| key == "ping"));
        for line in &conversation.lines {
            self.step(settings, line).await;
        }
        self.end(&conversation.title).await;
    }

    async fn step(&mut self, settings: Option<&Line>, line: &Line) {
        let at = &line.at;
        match line.word.as_str() {
            "settings" => {}
            "do" => self.start(settings, line),
            "cancel" => self.operations.remove(line.arg(0)).unwrap().abort(),
            "accepted" => self.peer.accept(at).await,
            "registered" => self.register(line.text(0), at).await,
            ">" => self.peer.expect(&pieces(&line.rest, at), at).await,
            "<" => self.peer.write(&pieces(&line.rest, at), at).await,
            "cut" => {
                self.peer.write_beginning(&pieces(&line.rest, at), self.cut.unwrap(), at).await;
                self.peer.close();
            }
            "close" => self.peer.close(),
            "closed" => self.peer.expect_end(at).await,
            "refuse" => self.peer.refuse(),
            "listen" => self.peer.listen_again(),
            "advance" => advance(line.arg(0).parse().unwrap()).await,
            "=" => self.ended(line).await,
            "pending" => {
                settle().await;
                assert!(!self.operations[line.arg(0)].is_finished(), "{at}: it has ended");
            }
            "frame" => self.frame(line).await,
            "event" => self.event(line).await,
            "called" => self.called(line).await,
            "answer" => self.answer(line),
            "notified" => self.notified(line).await,
            _ => panic!("{at}"),
        }
    }

    async fn register(&mut self, name: &str, at: &str) {
        let words = |text: &str| pieces(&elbus_testing::notation::words(text), at);
        self.peer.accept(at).await;
        self.peer.write(&words("EB0100"), at).await;
        self.peer.expect(&words(&format!("EB0100 len16( \"{name}\" )")), at).await;
        self.peer.write(&words("0101"), at).await;
    }

    fn start(&mut self, settings: Option<&Line>, line: &Line) {
        let label = line.arg(0).to_owned();
        let client =
            || self.client.as_ref().unwrap_or_else(|| panic!("{}: no client", line.at)).client.clone();
        let task = match line.arg(1) {
            "connect" => {
                tokio::spawn(operation::connect(operation::builder(settings, line.text(2)), self.peer.path()))
            }
            "serve" => {
                let (calls, called) = mpsc::unbounded_channel();
                let (notifications, notified) = mpsc::unbounded_channel();
                let handle = client().serve(Handler { calls, notifications }).unwrap();
                self.server = Some(Server { _handle: handle, calls: called, notifications: notified });
                tokio::spawn(async { (Outcome::Ok(vec![]), None) })
            }
            "unsubscribe" => {
                let subscription = self.subscriptions.remove(line.arg(2)).unwrap();
                tokio::spawn(async { (Outcome::of_unit(subscription.unsubscribe().await), None) })
            }
            "next" => tokio::spawn(operation::next(self.cursors[line.arg(2)].clone())),
            "block" => {
                let count = line.arg(3).parse().unwrap();
                tokio::spawn(operation::block(self.cursors[line.arg(2)].clone(), count))
            }
            _ => tokio::spawn(operation::plain(client(), line)),
        };
        self.operations.insert(label, task);
    }

    async fn ended(&mut self, line: &Line) {
        let label = line.arg(0);
        let mut task = self.operations.remove(label).unwrap_or_else(|| panic!("{}: no operation", line.at));
        until(&line.at, || task.is_finished().then_some(())).await;
        let (outcome, product) = (&mut task).await.unwrap();
        assert_eq!(outcome, Outcome::parse(line, 1), "{}", line.at);
        match product {
            Some(Product::Client(client, frames)) => {
                let events = client.events();
                self.client = Some(Connected { client, frames, events });
            }
            Some(Product::Subscription(subscription)) => {
                self.subscriptions.insert(label.to_owned(), subscription);
            }
            Some(Product::Cursor(cursor)) => {
                self.cursors.insert(label.to_owned(), cursor);
            }
            None => {}
        }
    }

    async fn frame(&mut self, line: &Line) {
        let frame = match line.arg(0) {
            "frames" => {
                let frames = &mut self.client.as_mut().unwrap().frames;
                until(&line.at, || frames.try_next()).await
            }
            label => {
                let subscription = self.subscriptions.get_mut(label).unwrap();
                until(&line.at, || subscription.try_next()).await
            }
        };
        let kind = match frame.kind() {
            FrameKind::Message => "message",
            FrameKind::Broadcast => "broadcast",
            _ => "publish",
        };
        assert_eq!(kind, line.arg(1), "{}", line.at);
        for (key, value) in line.fields(2) {
            compare_field(&frame, key, value, &line.at);
        }
    }

    async fn event(&mut self, line: &Line) {
        let events = &mut self.client.as_mut().unwrap().events;
        let event = {
            let mut next = pin!(events.next());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            until(&line.at, || match next.as_mut().poll(&mut context) {
                std::task::Poll::Ready(event) => Some(event.unwrap()),
                std::task::Poll::Pending => None,
            })
            .await
        };
        assert_eq!(words_of(&event), line.rest.join(" "), "{}", line.at);
    }

    async fn called(&mut self, line: &Line) {
        let calls = &mut self.server.as_mut().unwrap().calls;
        let (call, answer) = until(&line.at, || calls.try_recv().ok()).await;
        for (key, value) in line.fields(1) {
            let actual = match key {
                "sender" => call.sender().as_bytes(),
                "method" => call.method().as_bytes(),
                "params" => call.params(),
                _ => panic!("{}", line.at),
            };
            assert_eq!(actual, bytes(value, &line.at), "{}: {key}", line.at);
        }
        self.answers.insert(line.arg(0).to_owned(), answer);
    }

    fn answer(&mut self, line: &Line) {
        let result = match line.arg(1) {
            "ok" => Ok(bytes(&line.rest[2..], &line.at).into()),
            "error" => {
                Err(RpcError::with_data(line.arg(2).parse().unwrap(), bytes(&line.rest[3..], &line.at)))
            }
            _ => panic!("{}", line.at),
        };
        self.answers.remove(line.arg(0)).unwrap().send(result).unwrap();
    }

    async fn notified(&mut self, line: &Line) {
        let notifications = &mut self.server.as_mut().unwrap().notifications;
        let notification = until(&line.at, || notifications.try_recv().ok()).await;
        for (key, value) in line.fields(0) {
            let actual = match key {
                "sender" => notification.sender().as_bytes(),
                "payload" => &notification.payload()[..],
                _ => panic!("{}", line.at),
            };
            assert_eq!(actual, bytes(value, &line.at), "{}: {key}", line.at);
        }
    }

    /// Checks that nothing is left over, and closes the client.
    async fn end(mut self, title: &str) {
        settle().await;
        assert!(
            self.operations.is_empty(),
            "{title}: operations without an outcome: {:?}",
            self.operations.keys()
        );
        assert!(self.answers.is_empty(), "{title}: calls without an answer");
        if let Some(server) = &mut self.server {
            assert!(server.calls.try_recv().is_err(), "{title}: another call");
            assert!(server.notifications.try_recv().is_err(), "{title}: another notification");
        }
        for (label, subscription) in &mut self.subscriptions {
            assert!(subscription.try_next().is_none(), "{title}: another frame of {label}");
        }
        if let Some(Connected { client, frames, events }) = &mut self.client {
            assert!(frames.try_next().is_none(), "{title}: another frame");
            let mut next = pin!(events.next());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            if let std::task::Poll::Ready(Some(event)) = next.as_mut().poll(&mut context) {
                assert_eq!(words_of(&event), "closed", "{title}: another event");
            }
            let client = client.clone();
            tokio::spawn(async move { client.close().await });
            if self.peer.is_connected() {
                self.peer.expect_end(title).await;
            }
        }
    }
}

/// Lets time pass, so that everything that is due in between happens in order. Timers of tokio fire up to
/// 1 ms late.
async fn advance(ms: u64) {
    settle().await;
    for _ in 0..=ms {
        tokio::time::advance(Duration::from_millis(1)).await;
        for _ in 0..4 {
            yield_now().await;
        }
    }
    settle().await;
}

fn compare_field(frame: &Frame, key: &str, value: &[String], at: &str) {
    match key {
        "sender" => assert_eq!(frame.sender().as_bytes(), bytes(value, at), "{at}"),
        "topic" => assert_eq!(frame.topic().as_bytes(), bytes(value, at), "{at}"),
        "payload" => assert!(frame.payload() == bytes(value, at), "{at}: {} instead", hex(frame.payload())),
        "realtime" => assert_eq!(u8::from(frame.is_realtime()).to_string(), value[0], "{at}"),
        "missed" => assert_eq!(frame.missed().to_string(), value[0], "{at}"),
        _ => panic!("{at}"),
    }
}

fn words_of(event: &ConnectionEvent) -> String {
    match event {
        ConnectionEvent::Connected => "connected".to_owned(),
        ConnectionEvent::Disconnected { .. } => "disconnected".to_owned(),
        ConnectionEvent::Retrying { attempt, after, .. } => {
            format!("retrying {attempt} {}", after.as_millis())
        }
        ConnectionEvent::Closed => "closed".to_owned(),
        other => panic!("no words for {other:?}"),
    }
}
