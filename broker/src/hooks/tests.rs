//! Order, removal and limits of hooks.

use super::*;
use abi_stable::sabi_trait::TD_Opaque;
use elbus_plugin_api::{
    Op,
    abi::{RawInterceptor, RawInterceptor_TO},
    hooks::InterceptedRun,
};

struct Pass;

impl RawInterceptor for Pass {
    fn intercept(&self, _: &mut InterceptedRun<'_>) -> bool {
        true
    }
}

fn add(hooks: &Hooks, owner: u32, instance: &str, priority: i32, on_failure: Option<OnFailure>) -> u64 {
    let instance = instance.into();
    let of = HookOwner { owner, instance, priority, on_failure, ..HookOwner::default() };
    let object = RawInterceptor_TO::from_value(Pass, TD_Opaque);
    hooks.add_interceptor(of, HookScope::everything(), OnFailure::Open, object).unwrap()
}

fn order(hooks: &Hooks) -> Vec<String> {
    let table = hooks.table();
    let entries = (0..).map_while(|index| Some(table.as_ref()?.interceptor(index)?.instance.to_string()));
    entries.collect()
}

#[test]
fn interceptors_apply_by_priority_then_by_name_then_in_the_order_added() {
    let hooks = Hooks::default();
    for (owner, instance, priority) in [(1, "m", 0), (2, "z", -1), (3, "a", 0), (4, "b", 7), (3, "a", 0)] {
        add(&hooks, owner, instance, priority, None);
    }
    assert_eq!(order(&hooks), ["z", "a", "a", "m", "b"]);
    // one that asks to come after others comes after those of its priority
    let of = HookOwner { owner: 5, instance: "a".into(), ..HookOwner::default() };
    let object = RawInterceptor_TO::from_value(Pass, TD_Opaque);
    hooks.add_interceptor(of, HookScope::everything().after_others(), OnFailure::Open, object).unwrap();
    assert_eq!(order(&hooks), ["z", "a", "a", "m", "a", "b"]);
}

#[test]
fn a_removed_hook_applies_no_more() {
    let hooks = Hooks::default();
    let id = add(&hooks, 1, "a", 0, Some(OnFailure::Closed));
    let queue = ObserverQueue::new(1);
    let of = HookOwner { owner: 1, ..HookOwner::default() };
    let observer = hooks.add_observer(of, HookScope::new().messages(["x"]), queue).unwrap();
    assert_eq!(
        hooks.table().unwrap().applied(Op::Message, "x"),
        AppliedHooks { interceptors: 1, observers: 1 }
    );
    assert_eq!(
        hooks.table().unwrap().applied(Op::Message, "y"),
        AppliedHooks { interceptors: 1, observers: 0 }
    );
    assert!(hooks.remove(id).any() && hooks.remove(observer).any() && !hooks.remove(id).any());
    assert!(hooks.table().is_none(), "a hook that its plugin removes leaves nothing behind");
}

#[test]
fn a_closed_interceptor_whose_instance_has_ended_rejects_until_it_is_reopened() {
    let hooks = Hooks::default();
    add(&hooks, 1, "open", 0, None);
    add(&hooks, 1, "closed", 0, Some(OnFailure::Closed));
    let removed = hooks.remove_owner(1);
    assert_eq!((removed.closed, removed.open), (1, 1));
    let header = elbus_plugin_api::abi::RunHeader::new(Op::Message, elbus_plugin_api::Qos::NO, "s", 1, "");
    let table = hooks.table().unwrap();
    let result = table.interceptor(0).unwrap().intercept(&mut InterceptedRun::new(header, &[], &mut []));
    assert_eq!((order(&hooks), result), (vec!["closed".to_owned()], InterceptorResult::Closed));
    assert!(!hooks.remove_owner(1).any(), "removed once");
    assert!(!hooks.reopen(|of| &*of.instance != "closed") && hooks.reopen(|of| of.owner == 1));
    assert!(hooks.table().is_none());
}

#[test]
fn the_number_of_hooks_is_limited() {
    let hooks = Hooks::default();
    (0..MAX_HOOKS).for_each(|_| _ = add(&hooks, 1, "a", 0, None));
    let object = RawInterceptor_TO::from_value(Pass, TD_Opaque);
    let more = hooks.add_interceptor(HookOwner::default(), HookScope::everything(), OnFailure::Open, object);
    assert!(more.unwrap_err().contains("64 interceptors already"));
    let all = hooks.table().unwrap().applied(Op::Broadcast, "*");
    assert_eq!(all.interceptors, u64::MAX);
    assert_eq!(hooks.table().unwrap().applied(Op::Message, ".broker"), AppliedHooks::default());
}

#[test]
fn an_instance_that_fails_whenever_it_is_restarted_leaves_no_more_each_time() {
    let hooks = Hooks::default();
    for owner in 0..200 {
        add(&hooks, owner, "a", 0, Some(OnFailure::Closed));
        add(&hooks, owner, "b", 0, Some(OnFailure::Closed));
        assert_eq!(hooks.remove_owner(owner).closed, 2);
    }
    assert_eq!(order(&hooks), ["a", "b"]);
}

#[test]
fn an_instance_that_is_removed_after_its_replacement_serves_rejects_nothing() {
    let hooks = Hooks::default();
    add(&hooks, 1, "a", 0, Some(OnFailure::Closed));
    add(&hooks, 2, "a", 0, Some(OnFailure::Closed));
    assert!(hooks.serve("a", 2));
    assert_eq!(order(&hooks), ["a"], "that of the one that serves");
    assert!(!hooks.remove_owner(1).any());
    assert_eq!(order(&hooks), ["a"]);
    // which ends in turn
    hooks.remove_owner(2);
    assert_eq!(order(&hooks), ["a"]);
    assert!(hooks.serve("a", 3) && order(&hooks).is_empty());
}

#[test]
fn an_instance_that_is_removed_after_its_declaration_leaves_nothing_that_rejects() {
    let hooks = Hooks::default();
    add(&hooks, 1, "a", 0, Some(OnFailure::Closed));
    assert!(!hooks.retire(1));
    assert!(hooks.remove_owner(1).any());
    assert!(order(&hooks).is_empty());
    add(&hooks, 2, "a", 0, Some(OnFailure::Closed));
    hooks.remove_owner(2);
    assert!(order(&hooks) == ["a"] && hooks.retire(2) && order(&hooks).is_empty());
    (0..2 * MAX_RETIRED as u32).for_each(|owner| _ = hooks.retire(owner));
    assert_eq!(hooks.registered.lock().retired.len(), MAX_RETIRED);
}
