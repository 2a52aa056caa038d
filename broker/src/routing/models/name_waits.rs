//! Messages that wait for a name, in all orders of the threads that send, register, take over and end waits.

use super::*;
use abi_stable::std_types::ROption;
use elbus_plugin_api::{
    PendingResult,
    abi::{FromRaw, RawResolver, RawResolver_TO},
    hooks::{HookScope, UnresolvedMessage},
};

use crate::hooks::HookOwner;

/// Has everything wait for a minute.
struct Waits;

impl RawResolver for Waits {
    fn resolve(&self, _: &UnresolvedMessage<'_>) -> u64 {
        thread::yield_now();
        60_000
    }
}

fn add_resolver(router: &Router) -> u64 {
    let object = RawResolver_TO::from_value(Waits, TD_Opaque);
    router.add_resolver(HookOwner::default(), HookScope::new().messages(["late"]), object).unwrap()
}

/// Sends a message as a transport does that waits for the result.
fn send(sender: &mut Sender, payload: u8) -> Result<Code, PendingResult> {
    let payload = [payload];
    let payloads = [Payload::from(&payload[..])];
    let request = Request::new(Op::Message, Qos::PROCESSED, "late", &payloads).deferrable();
    let result = sender.dispatch(&request);
    sender.end_batch();
    match sender.take_pending() {
        ROption::RSome(pending) => Err(PendingResult::from_raw(pending)),
        ROption::RNone => Ok(result.code()),
    }
}

fn sending(router: &Arc<Router>, name: &'static str, first: u8) -> thread::JoinHandle<Vec<Option<Code>>> {
    let router = router.clone();
    thread::spawn(move || {
        let (mut sender, _) = register(&router, name).unwrap();
        let sent: Vec<_> = (first..first + 3).map(|number| send(&mut sender, number)).collect();
        // so that no message waits indefinitely: the name has registered, or the wait has ended
        let code = |sent: &Result<Code, PendingResult>| match sent {
            Ok(code) => Some(*code),
            Err(pending) => {
                while !pending.is_complete() {
                    thread::yield_now();
                }
                pending.code(0)
            }
        };
        sent.iter().map(code).collect()
    })
}

#[test]
fn messages_for_a_client_that_registers_meanwhile_arrive_once_and_in_order() {
    explore(|| {
        let (router, _) = router(false);
        add_resolver(&router);
        let threads = [sending(&router, "a", 10), sending(&router, "b", 20)];
        let (_late, record) = register(&router, "late").unwrap();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), [Some(Code::Ok); 3]);
        }
        let got = record.got.lock().unwrap();
        for first in [10, 20] {
            let of: Vec<_> =
                got.iter().map(|got| got[0]).filter(|got| (first..first + 3).contains(got)).collect();
            assert_eq!(of, [first, first + 1, first + 2]);
        }
        assert_eq!(got.len(), 6);
        assert!(!router.holds.any(), "it is not full any more");
    });
}

#[test]
fn what_is_acknowledged_has_arrived_and_what_is_refused_has_not_when_the_resolver_ends() {
    explore(|| {
        let (router, _) = router(false);
        let resolver = add_resolver(&router);
        let thread = sending(&router, "a", 10);
        let ending = {
            let router = router.clone();
            thread::spawn(move || router.remove_hook(resolver))
        };
        let (_late, record) = register(&router, "late").unwrap();
        let codes = thread.join().unwrap();
        ending.join().unwrap();
        let acknowledged: Vec<_> =
            (10..).zip(codes).filter(|(_, code)| *code == Some(Code::Ok)).map(|(number, _)| number).collect();
        let got: Vec<u8> = record.got.lock().unwrap().iter().map(|got| got[0]).collect();
        assert_eq!(got, acknowledged);
    });
}

#[test]
fn a_name_that_is_taken_over_while_messages_arrive_gets_each_once() {
    explore(|| {
        let (router, _) = router(true);
        add_resolver(&router);
        let threads = [sending(&router, "a", 10), sending(&router, "b", 20)];
        let other = {
            let router = router.clone();
            thread::spawn(move || register(&router, "late").unwrap())
        };
        let own = register(&router, "late").unwrap();
        let other = other.join().unwrap();
        let codes: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let acknowledged = codes.iter().filter(|code| **code == Some(Code::Ok)).count();
        assert_eq!(own.1.count() + other.1.count(), acknowledged);
        for record in [&own.1, &other.1] {
            let got: Vec<u8> = record.got.lock().unwrap().iter().map(|got| got[0]).collect();
            for first in [10, 20] {
                let of = got.iter().filter(|got| (first..first + 3).contains(*got));
                assert!(of.is_sorted(), "{got:?}");
            }
        }
    });
}
