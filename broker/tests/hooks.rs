//! Hooks: interceptors decide about messages before they are routed, observers see them afterwards.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::{Broker, BrokerBuilder, PluginDeclaration, PluginState, Restart};
use elbus_plugin_api::{
    Client, ClientInfo, Code, Config, DeliveryStatus, Host, NullSink, Op, Plugin, PluginError, Qos,
    access::{AccessRules, ClientRules, Rule},
    hooks::{Hook, HookScope, InterceptedFrame, Observation, Observer, OnFailure, Verdict},
};
use std::sync::{
    Arc, Mutex, OnceLock,
    atomic::{AtomicUsize, Ordering::SeqCst},
};
use support::{Peer, broker};

const OK: u8 = Code::Ok as u8;

/// Adds an interceptor of everything that decides by the first words of the payload.
fn intercept(broker: &Broker) -> Hook {
    broker.host().add_interceptor(&HookScope::everything(), OnFailure::Open, by_payload).unwrap()
}

fn by_payload(frame: &InterceptedFrame<'_>) -> Verdict {
    let payload = String::from_utf8_lossy(frame.payload());
    match payload.split_once(' ').unwrap_or((&payload, "")) {
        ("reject", _) => Verdict::Reject(Code::BadData),
        ("consume", _) => Verdict::Consume,
        ("replace", payload) => Verdict::replace_payload(payload.as_bytes()),
        ("redirect", target) => Verdict::redirect(target),
        _ => Verdict::Continue,
    }
}

#[test]
fn observed_frames_stay_in_mixed_runs_and_are_shown_with_their_results() {
    for one_by_one in [false, true] {
        let broker = broker();
        let scope = HookScope::new().publications(["t/#", "none"]).messages(["a", "missing"]);
        let (_hook, mut observer) = broker.host().add_observer(&scope, 1 << 20).unwrap();
        let (mut sender, mut a, mut b) =
            (Peer::new(&broker, "s"), Peer::new(&broker, "a"), Peer::new(&broker, "b"));
        a.record.takes_mixed.store(true, SeqCst);
        b.record.takes_mixed.store(!one_by_one, SeqCst);
        a.subscribe(&["t/1", "x"]);
        b.subscribe(&["t/#"]);
        let frames = [
            (Op::Publish, "t/1", &b"1"[..]),
            (Op::Publish, "x", b"2"),
            (Op::Message, "a", b"3"),
            (Op::Message, "b", b"4"),
            (Op::Publish, "t/2", b"5"),
            (Op::Publish, "t/2", b"6"),
            (Op::Message, "missing", b"7"),
            (Op::Publish, "none", b"8"),
        ];
        let missing = Code::NotRegistered as u8;
        let expected = [
            "Publish t/1 1 Ok 2",
            "Message a 3 Ok 1",
            "Publish t/2 5 Ok 1",
            "Publish t/2 6 Ok 1",
            "Message missing 7 NotRegistered 0",
            "Publish none 8 Ok 0",
        ];
        for round in 1..=2 {
            assert_eq!(sender.mixed(&frames), [OK, OK, OK, OK, OK, OK, missing, OK]);
            assert_eq!(a.payloads(), ["1", "2", "3"]);
            assert_eq!(b.payloads(), ["1", "4", "5", "6"]);
            assert_eq!(a.record.mixed_runs.load(SeqCst), round, "all in one mixed run");
            assert_eq!(texts(&mut observer), expected);
        }
        // what a recipient refuses is not counted
        b.record.answer.store(DeliveryStatus::REFUSED.bits(), SeqCst);
        assert_eq!(sender.mixed(&frames[..1]), [OK]);
        assert_eq!(texts(&mut observer), ["Publish t/1 1 Ok 1"]);
        let refused = Code::NotDelivered as u8;
        assert_eq!(sender.mixed(&frames[4..6]), [refused; 2]);
        assert_eq!(texts(&mut observer), ["Publish t/2 5 NotDelivered 0", "Publish t/2 6 NotDelivered 0"]);
        // interceptors come and go: frames of other kinds are passed apart, and each is observed once
        b.record.answer.store(DeliveryStatus::TAKEN.bits(), SeqCst);
        for intercepts in [true, false] {
            let _interceptor = intercepts.then(|| intercept(&broker));
            drop((a.payloads(), b.payloads()));
            let runs = a.record.mixed_runs.load(SeqCst);
            assert_eq!(sender.mixed(&frames)[..6], [OK; 6]);
            assert_eq!(a.record.mixed_runs.load(SeqCst) - runs, if intercepts { 2 } else { 1 });
            assert_eq!(texts(&mut observer), expected);
        }
    }
}

/// Sends payloads as one run; returns the code of each.
fn codes(peer: &mut Peer, op: Op, target: &str, payloads: &[&str]) -> Vec<u8> {
    let bytes: Vec<_> = payloads.iter().map(|payload| payload.as_bytes()).collect();
    let result = peer.dispatch(op, Qos::PROCESSED, target, "r", &bytes);
    let codes = peer.client.take_frame_codes();
    assert_eq!(codes.is_empty(), !result.has_frame_codes());
    if codes.is_empty() { vec![result.code() as u8; payloads.len()] } else { codes }
}

fn texts(observer: &mut Observer) -> Vec<String> {
    let seen: Vec<_> = std::iter::from_fn(|| observer.try_receive()).collect();
    let text = |seen: &Observation| {
        let payload = String::from_utf8_lossy(seen.payload()).into_owned();
        format!("{:?} {} {payload} {:?} {}", seen.op(), seen.target(), seen.code(), seen.recipients())
    };
    seen.iter().map(text).collect()
}

#[test]
fn each_message_of_a_run_has_its_own_verdict_and_code() {
    let broker = broker();
    let _hook = intercept(&broker);
    let (mut sender, mut receiver, other) =
        (Peer::new(&broker, "s"), Peer::new(&broker, "r"), Peer::new(&broker, "other"));
    receiver.subscribe(&["t"]);
    let run = ["1", "reject", "2", "consume", "replace 3", "4", "reject", "reject"];
    let refused = Code::BadData as u8;
    for (op, target) in [(Op::Message, "r"), (Op::Broadcast, "r"), (Op::Publish, "t"), (Op::PublishFor, "t")]
    {
        let expected = [OK, refused, OK, OK, OK, OK, refused, refused];
        assert_eq!(codes(&mut sender, op, target, &run), expected, "{op:?}");
        assert_eq!(receiver.payloads(), ["1", "2", "3", "4"], "{op:?}");
        assert_eq!(codes(&mut sender, op, target, &["reject"; 3]), [refused; 3]);
        assert_eq!(codes(&mut sender, op, target, &["5"; 300]), [OK; 300]);
        assert_eq!(receiver.take().len(), 300);
    }
    assert_eq!(codes(&mut sender, Op::Message, "r", &["a", "redirect other", "b"]), [OK; 3]);
    assert_eq!(
        (receiver.payloads(), other.payloads()),
        (vec!["a".into(), "b".into()], vec!["redirect other".into()])
    );
    let gone = Code::NotRegistered as u8;
    assert_eq!(codes(&mut sender, Op::Message, "nobody", &["redirect r", "x"]), [OK, gone]);
    assert_eq!(receiver.payloads(), ["redirect r"]);
    for invalid in
        ["redirect ", "redirect .broker", "redirect a\0b", &format!("redirect {}", "x".repeat(70_000))]
    {
        assert_eq!(codes(&mut sender, Op::Message, "r", &[invalid]), [refused]);
    }
    assert_eq!(receiver.payloads().len(), 0);
}

#[test]
fn a_hook_applies_from_when_it_is_added_until_it_is_dropped_and_to_its_scope_only() {
    let broker = broker();
    let (mut sender, mut receiver) = (Peer::new(&broker, "s"), Peer::new(&broker, "r.1"));
    receiver.subscribe(&["#"]);
    let scope = HookScope::new().publications(["a/+"]).messages(["r.*"]);
    let mut all = |hooked: bool| {
        let (refused, ok) = (Code::BadData as u8, OK);
        let hooked = if hooked { refused } else { ok };
        for (op, target, expected) in [
            (Op::Publish, "a/x", hooked),
            (Op::PublishFor, "a/x", hooked),
            (Op::Publish, "a/x/y", ok),
            (Op::Message, "r.1", hooked),
            (Op::Broadcast, "*", ok),
        ] {
            for _ in 0..2 {
                assert_eq!(codes(&mut sender, op, target, &["reject"]), [expected], "{op:?} {target}");
            }
        }
        let frames = [
            (Op::Publish, "a/x", &b"reject"[..]),
            (Op::Publish, "b", b"reject"),
            (Op::Message, "r.1", b"reject"),
        ];
        assert_eq!(sender.mixed(&frames), [hooked, ok, hooked]);
    };
    all(false);
    let hook = broker.host().add_interceptor(&scope, OnFailure::Closed, by_payload).unwrap();
    all(true);
    drop(hook);
    all(false);
}

#[test]
fn the_broker_itself_cannot_be_intercepted() {
    let broker = broker();
    let _hook = intercept(&broker);
    let (_seen, mut observer) = broker.host().add_observer(&HookScope::everything(), 1 << 20).unwrap();
    let (mut peer, part) = (Peer::new(&broker, "p"), {
        let info = ClientInfo::in_process().as_internal();
        Peer::of(&broker, ".part", info).unwrap()
    });
    peer.subscribe(&[".broker/info"]);
    assert_eq!(codes(&mut peer, Op::Message, ".part", &["reject"]), [OK]);
    assert_eq!(codes(&mut peer, Op::Publish, ".broker/info", &["reject"]), [OK]);
    assert_eq!(broker.host().system_client().send("p", b"reject").code(), Code::Ok);
    assert_eq!((part.payloads().len(), peer.payloads().len()), (1, 2));
    let seen = texts(&mut observer);
    assert_eq!(
        seen,
        ["Message .part reject Ok 1", "Publish .broker/info reject Ok 1", "Message p reject Ok 1"],
        "it can be observed"
    );
}

fn rule(text: &str) -> Rule {
    text.parse().unwrap()
}

#[test]
fn denied_messages_reach_no_interceptor_and_a_new_target_needs_the_senders_right() {
    let broker = broker();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let interceptor = move |frame: &InterceptedFrame<'_>| {
        counted.fetch_add(1, SeqCst);
        by_payload(frame)
    };
    let _hook =
        broker.host().add_interceptor(&HookScope::everything(), OnFailure::Open, interceptor).unwrap();
    let (_seen, mut observer) = broker.host().add_observer(&HookScope::everything(), 1 << 20).unwrap();
    let sender = ClientRules {
        name: "s".into(),
        send: vec![rule("allow r")],
        broadcast: vec![rule("allow r")],
        publish: vec![rule("allow t")],
        ..ClientRules::default()
    };
    let receivers = ClientRules { name: "*".into(), ..ClientRules::default() };
    let rules = AccessRules { clients: vec![sender, receivers], ..AccessRules::default() };
    broker.host().set_access_rules(&rules).unwrap();
    let (mut sender, receiver, other) =
        (Peer::new(&broker, "s"), Peer::new(&broker, "r"), Peer::new(&broker, "o"));
    let denied = Code::AccessDenied as u8;
    for (op, target) in
        [(Op::Message, "o"), (Op::Broadcast, "o"), (Op::Publish, "u"), (Op::Message, "nobody")]
    {
        assert_eq!(codes(&mut sender, op, target, &["x"]), [denied], "{op:?}");
        let expected = format!("{op:?} {target} x AccessDenied 0");
        assert_eq!((calls.load(SeqCst), texts(&mut observer)), (0, vec![expected]));
    }
    assert_eq!(sender.mixed(&[(Op::Publish, "u", b"x"), (Op::Message, "o", b"x")]), [denied; 2]);
    assert_eq!((calls.load(SeqCst), texts(&mut observer).len()), (0, 2));
    assert_eq!(codes(&mut sender, Op::Message, "r", &["1", "redirect o", "2"]), [OK, denied, OK]);
    let seen = texts(&mut observer);
    assert_eq!(seen, ["Message r 1 Ok 1", "Message o redirect o AccessDenied 0", "Message r 2 Ok 1"]);
    assert_eq!((calls.load(SeqCst), receiver.payloads().len(), other.payloads().len()), (3, 2, 0));
}

#[test]
fn a_sender_that_is_held_has_its_message_intercepted_once() {
    let broker = broker();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let interceptor = move |_: &InterceptedFrame<'_>| {
        counted.fetch_add(1, SeqCst);
        Verdict::Continue
    };
    let _hook =
        broker.host().add_interceptor(&HookScope::everything(), OnFailure::Open, interceptor).unwrap();
    let (mut sender, mut receiver) = (Peer::new(&broker, "s"), Peer::new(&broker, "r"));
    receiver.subscribe(&["t"]);
    for (op, target) in [(Op::Message, "r"), (Op::Publish, "t"), (Op::Broadcast, "r")] {
        receiver.record.answer.store(DeliveryStatus::FULL.bits(), SeqCst);
        assert!(!sender.blocking(op, target, "").is_blocked(), "filled now");
        let before = calls.load(SeqCst);
        assert!(sender.blocking(op, target, "").is_blocked(), "{op:?}");
        assert_eq!(calls.load(SeqCst), before, "{op:?}");
        receiver.record.answer.store(0, SeqCst);
        let (notifier, _ready) = elbus_plugin_api::Notified::pair();
        sender.client.when_ready(notifier);
        let drained = std::mem::take(&mut *receiver.record.drained.lock().unwrap());
        drained.iter().for_each(|notifier| notifier.notify());
        assert!(!sender.blocking(op, target, "").is_blocked());
        assert_eq!(calls.load(SeqCst), before + 1, "{op:?}");
    }
}

#[test]
fn observers_see_what_was_routed_and_hold_nobody() {
    let broker = broker();
    let _hook = intercept(&broker);
    let (_seen, mut observer) = broker.host().add_observer(&HookScope::everything(), 1 << 20).unwrap();
    let (small_hook, mut small) =
        broker.host().add_observer(&HookScope::new().publications(["t"]), 2000).unwrap();
    let (mut sender, mut one, mut two) =
        (Peer::new(&broker, "s"), Peer::new(&broker, "1"), Peer::new(&broker, "2"));
    one.subscribe(&["t"]);
    two.subscribe(&["#"]);
    codes(&mut sender, Op::Publish, "t", &["a", "reject", "replace b", "consume", "c"]);
    codes(&mut sender, Op::PublishFor, "t", &["d"]);
    codes(&mut sender, Op::Message, "none", &["e"]);
    sender.mixed(&[(Op::Publish, "x", b"f"), (Op::Message, "2", b"g")]);
    let expected = [
        "Publish t a Ok 2",
        "Publish t reject BadData 0",
        "Publish t b Ok 2",
        "Publish t consume Ok 0",
        "Publish t c Ok 2",
        "PublishFor t d Ok 0",
        "Message none e NotRegistered 0",
        "Publish x f Ok 1",
        "Message 2 g Ok 1",
    ];
    assert_eq!(texts(&mut observer), expected);
    for _ in 0..100 {
        assert_eq!(codes(&mut sender, Op::Publish, "t", &["x"; 10]), [OK; 10]);
    }
    let seen = texts(&mut small).len() as u64;
    assert!(seen > 0 && small.missed() == 1006 - seen, "{seen} seen, {} missed", small.missed());
    drop(small_hook);
    codes(&mut sender, Op::Publish, "t", &["not seen"]);
    assert!(small.receive_blocking().is_none(), "it has ended");
    drop((small, observer));
    assert_eq!(codes(&mut sender, Op::Publish, "t", &["reject"]), [Code::BadData as u8], "the hook stays");
}

/// What the plugin below does, by the name of its instance.
type Interceptors = Mutex<Vec<(String, fn(&Guard, &InterceptedFrame<'_>) -> Verdict)>>;
static INTERCEPTORS: Interceptors = Mutex::new(Vec::new());

/// Intercepts everything.
struct Guard {
    host: Host,
    in_create: bool,
    client: Mutex<Option<Client>>,
    hook: OnceLock<Hook>,
    this: std::sync::Weak<Guard>,
}

struct GuardPlugin(Arc<Guard>);

impl Plugin for GuardPlugin {
    const ABOUT: &'static str = "intercepts everything";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        #[derive(serde::Deserialize)]
        struct Settings {
            #[serde(default)]
            in_create: bool,
            #[serde(default)]
            client: Option<String>,
        }
        let Settings { in_create, client } = config.read()?;
        let client = client.map(|name| host.register(&name, &ClientInfo::in_process(), NullSink).unwrap());
        let guard = Arc::new_cyclic(|this| Guard {
            host,
            in_create,
            client: Mutex::new(client),
            hook: OnceLock::new(),
            this: this.clone(),
        });
        if guard.in_create {
            guard.add()?;
        }
        Ok(GuardPlugin(guard))
    }

    fn start(&self) -> Result<(), PluginError> {
        self.0.add()
    }
}

impl Guard {
    fn add(&self) -> Result<(), PluginError> {
        let instance = self.host.instance().to_owned();
        let decide = INTERCEPTORS.lock().unwrap().iter().find(|(name, _)| *name == instance).unwrap().1;
        let this = self.this.clone();
        let interceptor = move |frame: &InterceptedFrame<'_>| match this.upgrade() {
            Some(guard) => decide(&guard, frame),
            None => Verdict::Reject(Code::Io),
        };
        let added = self.host.add_interceptor(&HookScope::everything(), OnFailure::Closed, interceptor)?;
        _ = self.hook.set(added);
        Ok(())
    }
}

mod export {
    #![allow(unsafe_code)]
    elbus_plugin_api::export_plugin!(super::GuardPlugin);
}

fn guard(name: &str, decide: fn(&Guard, &InterceptedFrame<'_>) -> Verdict) -> PluginDeclaration {
    let mut interceptors = INTERCEPTORS.lock().unwrap();
    interceptors.retain(|(other, _)| other != name);
    interceptors.push((name.to_owned(), decide));
    PluginDeclaration::linked(name, export::plugin()).restart(Restart::Never)
}

fn with(declarations: &[PluginDeclaration]) -> BrokerBuilder {
    declarations.iter().cloned().fold(Broker::builder(), BrokerBuilder::plugin)
}

fn append(mark: &str, frame: &InterceptedFrame<'_>) -> Verdict {
    Verdict::replace_payload([frame.payload(), mark.as_bytes()].concat())
}

#[test]
fn interceptors_apply_in_the_order_of_priority_and_see_what_others_have_replaced() {
    let a = guard("order.a", |_, frame| append("a", frame)).priority(1);
    let b = guard("order.b", |_, frame| append("b", frame));
    let c = guard("order.c", |_, frame| append("c", frame)).priority(-1);
    let broker = with(&[a.clone(), b.clone(), c.clone()]).start().unwrap();
    let (mut sender, receiver) = (Peer::new(&broker, "s"), Peer::new(&broker, "r"));
    assert_eq!(codes(&mut sender, Op::Message, "r", &["", "-"]), [OK; 2]);
    assert_eq!(receiver.payloads(), ["cba", "-cba"]);
    broker.reload(with(&[a.priority(-2), b, c])).unwrap();
    assert_eq!(codes(&mut sender, Op::Message, "r", &[""]), [OK]);
    assert_eq!(receiver.payloads(), ["acb"]);
}

#[test]
fn an_interceptor_that_fails_closed_rejects_until_it_serves_again_or_is_removed() {
    fn decide(_: &Guard, frame: &InterceptedFrame<'_>) -> Verdict {
        assert_ne!(frame.payload(), b"panic");
        by_payload(frame)
    }
    let rejected = Code::Other as u8;
    let closed = guard("fails", decide);
    let open = closed.clone().on_failure(OnFailure::Open);
    let cases =
        [(&closed, rejected, false), (&open, OK, false), (&closed, rejected, true), (&open, OK, true)];
    for (declaration, after, is_mixed) in cases {
        let broker = with(std::slice::from_ref(declaration)).start().unwrap();
        let (mut sender, receiver) = (Peer::new(&broker, "s"), Peer::new(&broker, "r"));
        assert_eq!(codes(&mut sender, Op::Message, "r", &["x", "reject"]), [OK, Code::BadData as u8]);
        let run = ["1", "panic", "2"];
        let codes_of_run = match is_mixed {
            true => sender.mixed(&run.map(|payload| (Op::Message, "r", payload.as_bytes()))),
            false => codes(&mut sender, Op::Message, "r", &run),
        };
        assert_eq!(codes_of_run, [after; 3], "the run in which it panics");
        let is_failed = || matches!(broker.plugins()[0].state, PluginState::Failed(_));
        while !is_failed() {
            std::thread::yield_now();
        }
        for _ in 0..100 {
            assert_eq!(codes(&mut sender, Op::Message, "r", &["reject", "y"]), [after; 2]);
            assert_eq!(sender.mixed(&[(Op::Message, "r", b"z")]), [after]);
            std::thread::yield_now();
        }
        // a reload restarts it
        broker.reload(with(std::slice::from_ref(declaration))).unwrap();
        receiver.take();
        assert_eq!(codes(&mut sender, Op::Message, "r", &["reject", "y"]), [Code::BadData as u8, OK]);
        assert_eq!(receiver.payloads(), ["y"]);
        assert_eq!(codes(&mut sender, Op::Message, "r", &["panic"]), [after]);
        broker.reload(with(&[])).unwrap();
        assert_eq!(codes(&mut sender, Op::Message, "r", &["reject"]), [OK], "its declaration is removed");
    }
}

#[test]
fn an_interceptor_that_sends_is_not_called_for_its_own_messages() {
    fn decide(guard: &Guard, frame: &InterceptedFrame<'_>) -> Verdict {
        if frame.payload().len() > 20 {
            return Verdict::Continue;
        }
        let copy = append(guard.host.instance(), frame);
        let Verdict::Replace(replacement) = &copy else { unreachable!() };
        let payload = replacement.payload.as_deref().unwrap();
        // from a client that another thread may be using: not while it is
        if let Ok(mut client) = guard.client.try_lock() {
            client.as_mut().unwrap().publish("copies", payload);
        }
        Verdict::Continue
    }
    let declare = |name: &str| guard(name, decide).set("client", format!("client.{name}"));
    let broker = with(&["p", "q"].map(declare)).start().unwrap();
    let (mut sender, mut receiver) = (Peer::new(&broker, "s"), Peer::new(&broker, "r"));
    receiver.subscribe(&["copies"]);
    assert_eq!(codes(&mut sender, Op::Message, "r", &["x"]), [OK]);
    // q copies the copy that p publishes, but p does not copy that again, nor q its own
    assert_eq!(receiver.payloads(), ["xpq", "xp", "xqp", "xq", "x"]);
}

#[test]
fn interceptors_that_send_within_interceptors_are_limited_in_depth() {
    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    fn decide(guard: &Guard, _: &InterceptedFrame<'_>) -> Verdict {
        if let Ok(mut client) = guard.client.try_lock() {
            let sent = client.as_mut().unwrap().publish("copies", b"x");
            REFUSED.fetch_add(usize::from(sent.code() == Code::NotDelivered), SeqCst);
        }
        Verdict::Continue
    }
    let declare = |index: usize| {
        let name = format!("depth.{index}");
        guard(&name, decide).set("client", format!("client.{name}"))
    };
    let declarations: Vec<_> = (0..6).map(declare).collect();
    let broker = with(&declarations).start().unwrap();
    let (mut sender, mut receiver) = (Peer::new(&broker, "s"), Peer::new(&broker, "r"));
    receiver.subscribe(&["copies"]);
    assert_eq!(codes(&mut sender, Op::Message, "r", &["x"]), [OK]);
    assert!(REFUSED.load(SeqCst) > 0 && !receiver.take().is_empty());
}

#[test]
fn hooks_cannot_be_added_before_start() {
    let error = with(&[guard("early", |_, _| Verdict::Continue).set("in_create", true)]).start();
    let error = error.map(drop).unwrap_err().to_string();
    assert!(error.contains("hooks can be added from `start` on"), "{error}");
}
