//! A plugin that keeps publications replays to a client while others publish: the client gets each
//! publication of a topic once and in order, from the first one that it gets.

use abi_stable::{sabi_trait::TD_Opaque, std_types::ROption};
use elbus_plugin_api::{
    Code, Op,
    abi::{
        RawInterceptor, RawInterceptor_TO, RawSubscriptionListener, RawSubscriptionListener_TO, ReplayObject,
    },
    hooks::{EarlierPublication, HookScope, InterceptedRun, OnFailure, Replayed, SubscriptionChange},
};
use shuttle::{sync::Mutex, thread};
use std::sync::{Arc, Mutex as Plain, Weak};

use super::{dispatch, explore, register, router};
use crate::{hooks::HookOwner, routing::Router};

/// The last publication and its mark.
type Kept = Arc<Mutex<Option<(Vec<u8>, u64)>>>;

struct Store {
    router: Weak<Router>,
    kept: Kept,
}

impl RawInterceptor for Store {
    fn intercept(&self, run: &mut InterceptedRun<'_>) -> bool {
        let mut kept = self.kept.lock().unwrap();
        let mark = self.router.upgrade().unwrap().next_mark();
        let last = run.frames().last().unwrap();
        *kept = Some((last.payload().to_vec(), mark));
        run.set_mark(mark);
        true
    }
}

struct Listener(Arc<Plain<Option<ReplayObject>>>);

impl RawSubscriptionListener for Listener {
    fn on_change(&self, _: &SubscriptionChange<'_>, replay: ROption<ReplayObject>) {
        if let ROption::RSome(replay) = replay {
            *self.0.lock().unwrap() = Some(replay);
        }
    }
}

#[test]
fn replays_and_live_publications_meet_exactly_once() {
    explore(|| {
        let (router, _) = router(false);
        let (kept, replay) = (Kept::default(), Arc::<Plain<Option<ReplayObject>>>::default());
        let keeper = Store { router: Arc::downgrade(&router), kept: kept.clone() };
        let keeper = RawInterceptor_TO::from_value(keeper, TD_Opaque);
        let (scope, owner) = (HookScope::new().publications(["t"]), HookOwner::default());
        router.add_interceptor(owner, scope, OnFailure::Open, keeper).unwrap();
        let listener = RawSubscriptionListener_TO::from_value(Listener(replay.clone()), TD_Opaque);
        router.add_subscription_listener(1, listener).unwrap();
        let (mut sender, _) = register(&router, "sender").unwrap();
        dispatch(&mut sender, Op::Publish, "t", &[1]);
        let publisher = thread::spawn(move || {
            for number in 2..6 {
                thread::yield_now();
                assert_eq!(dispatch(&mut sender, Op::Publish, "t", &[number]).code(), Code::Ok);
            }
            sender
        });
        let (mut client, record) = register(&router, "client").unwrap();
        assert_eq!(dispatch(&mut client, Op::Subscribe, "t", &[]).code(), Code::Ok);
        thread::yield_now();
        let replay = replay.lock().unwrap().take().unwrap();
        let (payload, mark) = kept.lock().unwrap().clone().unwrap();
        thread::yield_now();
        let replayed = replay.send(&EarlierPublication::new("sender", "t", &payload, mark));
        assert!([Replayed::Sent as u8, Replayed::Skipped as u8].contains(&replayed));
        drop(publisher.join().unwrap());
        drop(replay);
        let got: Vec<u8> = record.got.lock().unwrap().iter().map(|payload| payload[0]).collect();
        let expected: Vec<u8> = (got[0]..6).collect();
        assert_eq!(got, expected, "from the first that it got, each once and in order");
    });
}
