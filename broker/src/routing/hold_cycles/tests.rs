//! Tests of cycles of held clients, with sinks that are always full and a clock of their own.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, RStr},
};
use elbus_plugin_api::{
    ClientInfo, Credentials, DeliveryStatus, Op, Overdraft, Payload, Qos, QueueBudget, Queued, Request, Run,
    SinkLimits,
    abi::{NotifierObject, RawClient, RawNotifier, RawNotifier_TO, RawSink, RawSink_TO},
};
use parking_lot::Mutex;
use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::super::{Router, RouterSettings, sender::Sender};
use crate::settings::BrokerSettings;

const MIB: u64 = 1 << 20;
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// What a client's sink has received, and what it answers.
#[derive(Default)]
struct Record {
    queued: u64,
    supports_none: bool,
    overdrawn: u64,
    told: usize,
    cycle: String,
    waiting: Vec<NotifierObject>,
}

/// Always full.
struct Full(Arc<Mutex<Record>>);

impl RawSink for Full {
    fn deliver(&self, _: &mut Run<'_>) -> u8 {
        DeliveryStatus::FULL.bits()
    }
    fn flush(&self) {}
    fn when_drained(&self, notifier: NotifierObject) {
        self.0.lock().waiting.push(notifier);
    }
    fn close(&self, _: RStr<'_>) {}
    fn queued(&self) -> Queued {
        Queued { frames: 1, bytes: self.0.lock().queued }
    }
    fn limit(&self, _: &SinkLimits) {}
    fn overdraw(&self, overdraft: &Overdraft<'_>) -> bool {
        let waiting = {
            let mut record = self.0.lock();
            if record.supports_none {
                return false;
            }
            record.told += 1;
            let before = record.overdrawn;
            record.overdrawn = overdraft.queue_bytes + overdraft.own_bytes;
            record.cycle = overdraft.cycle().to_owned();
            let more = record.overdrawn > before;
            if more { std::mem::take(&mut record.waiting) } else { Vec::new() }
        };
        waiting.into_iter().for_each(|notifier| notifier.notify());
        true
    }
    fn overdrawn(&self) -> u64 {
        self.0.lock().overdrawn
    }
}

#[derive(Clone)]
struct Ready(Arc<Mutex<bool>>);

impl RawNotifier for Ready {
    fn notify(&self) {
        *self.0.lock() = true;
    }
}

struct Client {
    name: &'static str,
    target: &'static str,
    sender: Sender,
    record: Arc<Mutex<Record>>,
    ready: Arc<Mutex<bool>>,
}

impl Client {
    /// Sends until it has to wait, if it may.
    fn go_on(&mut self) {
        if !std::mem::take(&mut *self.ready.lock()) {
            return;
        }
        let payloads = [Payload::from(&b"x"[..])];
        for _ in 0..2 {
            self.sender.dispatch(&Request::new(Op::Message, Qos::NO, self.target, &payloads).blocking());
        }
        self.sender.end_batch();
        self.sender.when_ready(RawNotifier_TO::from_ptr(RArc::new(Ready(self.ready.clone())), TD_Opaque));
    }

    fn record(&self) -> (u64, usize) {
        let record = self.record.lock();
        (record.overdrawn, record.told)
    }
}

struct Bench {
    router: Arc<Router>,
    now: Instant,
}

impl Bench {
    fn new(budget: &QueueBudget) -> Self {
        let router = Router::new(RouterSettings::of(&BrokerSettings::default()));
        router.holds.find_cycles(budget.clone());
        Bench { router, now: Instant::now() }
    }

    fn client(&self, name: &'static str, target: &'static str, uid: u32) -> Client {
        let record = Arc::<Mutex<Record>>::default();
        record.lock().queued = 8 * MIB;
        let sink = RawSink_TO::from_value(Full(record.clone()), TD_Opaque);
        let info = ClientInfo::default().with_credentials(Credentials { pid: 1, uid, gid: 1 });
        let Ok(client) = self.router.register(name, info, 1, sink) else { panic!("{name} is taken") };
        let sender = Sender::new(self.router.clone(), Some(client));
        Client { name, target, sender, record, ready: Arc::new(Mutex::new(true)) }
    }

    /// Runs checks; between them every client that can go on does.
    fn check(&mut self, checks: usize, clients: &mut [Client], between: impl Fn(&mut [Client])) {
        for _ in 0..checks {
            clients.iter_mut().for_each(Client::go_on);
            self.now += CHECK_INTERVAL;
            self.router.holds.check(self.now);
            between(clients);
        }
    }
}

#[test]
fn a_cycle_is_given_pieces_up_to_its_limit_and_then_one_gives_way() {
    let mut bench = Bench::new(&QueueBudget::new(1 << 30));
    let mut clients = [bench.client("a", "b", 1), bench.client("b", "c", 2), bench.client("c", "a", 3)];
    bench.check(4, &mut clients, |_| ());
    assert!(clients.iter().all(|client| client.record() == (0, 0)), "not at once");
    bench.check(4, &mut clients, |_| ());
    let given = |clients: &[Client]| clients.iter().map(|client| client.record().0).collect::<Vec<_>>();
    assert!(given(&clients)[1] >= 8 * MIB, "{:?}", given(&clients));
    bench.check(40, &mut clients, |_| ());
    assert_eq!(given(&clients), [0, 64 * MIB, 0], "the oldest goes on");
    let cycle = clients[1].record.lock().cycle.clone();
    assert!(cycle.contains("(a -> b -> c -> a) with 67108864 bytes"), "{cycle}");
    assert!(cycle.contains("no more is given to one cycle"), "{cycle}");
    let told: Vec<_> = clients.iter().map(|client| client.record().1).collect();
    bench.check(10, &mut clients, |_| ());
    for (client, told) in clients.iter().zip(told) {
        assert_eq!(client.record().1 > told, client.name != "b", "b gets no more time, the others do");
    }
    // when it has left, the others are in no cycle, and their sinks are informed
    let [a, b, c] = clients;
    drop(b);
    let mut left = [a, c];
    bench.check(3, &mut left, |_| ());
    assert!(left.iter().all(|client| client.record.lock().cycle.is_empty()));
}

#[test]
fn clients_that_make_progress_or_are_in_no_cycle_get_no_overdraft() {
    let mut bench = Bench::new(&QueueBudget::new(1 << 30));
    let mut pair = [bench.client("a", "b", 1), bench.client("b", "a", 1)];
    bench.check(40, &mut pair, |clients| clients[0].record.lock().queued -= 1);
    assert!(pair.iter().all(|client| client.record() == (0, 0)), "one of them reads");
    let mut chain = [bench.client("c", "d", 1), bench.client("d", "e", 1), bench.client("e", "nobody", 1)];
    chain[2].ready = Arc::default();
    bench.check(40, &mut chain, |_| ());
    assert!(chain.iter().all(|client| client.record() == (0, 0)), "no cycle");
}

#[test]
fn an_identity_has_one_overdraft_and_a_full_budget_gives_none() {
    let budget = QueueBudget::new(1 << 30);
    let mut bench = Bench::new(&budget);
    let mut pairs = [
        bench.client("a", "b", 1),
        bench.client("b", "a", 1),
        bench.client("c", "d", 1),
        bench.client("d", "c", 1),
        bench.client("e", "f", 2),
        bench.client("f", "e", 2),
    ];
    bench.check(40, &mut pairs, |_| ());
    let sum = |clients: &[Client]| clients.iter().map(|client| client.record().0).sum::<u64>();
    assert_eq!((sum(&pairs[..4]), sum(&pairs[4..])), (64 * MIB, 64 * MIB));
    // what has drained is free for the other pair
    pairs[..2].iter().for_each(|client| {
        let mut record = client.record.lock();
        (record.queued, record.overdrawn) = (0, 0);
    });
    bench.check(40, &mut pairs, |_| ());

    let mut held = 0;
    budget.charge(&mut held, 512 << 20);
    let mut bench = Bench::new(&budget);
    let mut pair = [bench.client("a", "b", 1), bench.client("b", "a", 1)];
    bench.check(40, &mut pair, |_| ());
    assert_eq!(sum(&pair), 0);
    let cycle = pair[0].record.lock().cycle.clone();
    assert!(
        cycle.contains("with 0 bytes more than queue_bytes: half of max_queued_bytes is used"),
        "{cycle}"
    );
}

#[test]
fn a_client_that_waits_for_itself_goes_on_only_if_others_wait_for_it_and_its_sink_supports_it() {
    let mut bench = Bench::new(&QueueBudget::new(1 << 30));
    let mut clients = [bench.client("a", "b", 1), bench.client("b", "nobody", 1)];
    clients[1].ready = Arc::default();
    clients[1].sender.wait_for_itself(true);
    bench.check(40, &mut clients, |_| ());
    assert_eq!(clients[1].record().0, 64 * MIB);
    clients[1].sender.wait_for_itself(false);

    let mut alone = [bench.client("c", "nobody", 1)];
    alone[0].ready = Arc::default();
    alone[0].sender.wait_for_itself(true);
    let mut pair = [bench.client("e", "f", 4), bench.client("f", "e", 4)];
    pair.iter().for_each(|client| client.record.lock().supports_none = true);
    bench.check(40, &mut pair, |_| ());
    assert!(alone.iter().chain(&pair).all(|client| client.record() == (0, 0)));
}

#[test]
fn nothing_is_kept_of_clients_that_have_left() {
    let mut bench = Bench::new(&QueueBudget::new(1 << 30));
    let mut pair = [bench.client("a", "b", 1), bench.client("b", "a", 1)];
    bench.check(20, &mut pair, |_| ());
    let members: Vec<Weak<_>> =
        pair.iter().map(|client| Arc::downgrade(&bench.router.find(client.name).unwrap())).collect();
    drop(pair);
    bench.check(30, &mut [], |_| ());
    assert!(members.iter().all(|member| member.upgrade().is_none()));
    assert_eq!(bench.router.holds.check(bench.now), None, "nobody checks any more");
}

#[test]
fn a_client_that_has_to_give_way_and_reconnects_has_to_give_way_again() {
    let mut bench = Bench::new(&QueueBudget::new(1 << 30));
    let mut clients = [bench.client("a", "b", 1), bench.client("b", "a", 2)];
    clients[0].ready = Arc::default();
    clients[0].sender.wait_for_itself(true);
    bench.check(9, &mut clients, |_| ());
    let own = clients[0].record().0;
    assert!(own > 0 && own < 64 * MIB, "{own}: it stays in use");
    clients[0].sender.wait_for_itself(false);
    *clients[0].ready.lock() = true;
    let gets_more_time = |bench: &mut Bench, clients: &mut [Client]| {
        bench.check(40, clients, |_| ());
        let before = clients[1].record().1;
        bench.check(10, clients, |_| ());
        clients[1].record().1 > before
    };
    assert!(!gets_more_time(&mut bench, &mut clients));
    let [a, b] = clients;
    drop(b);
    let mut clients = [a, bench.client("b", "a", 2)];
    assert!(!gets_more_time(&mut bench, &mut clients), "nobody would be disconnected");
}
