//! Access rules through reloads: they are in force as long as a plugin that sets rules is declared, whether
//! it runs or not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

mod support;

use elbus_broker::{Broker, BrokerBuilder, PluginDeclaration, PluginState, Restart};
use elbus_plugin_api::{
    ClientInfo, Code, Config, Host, Plugin, PluginError, Status,
    access::{AccessRules, ClientRules, Verdict},
};
use std::sync::atomic::{AtomicBool, Ordering};
use support::Peer;

/// Whether `second` fails to start.
static FAILS: AtomicBool = AtomicBool::new(false);

/// Lets clients called like its instance be.
struct Guard(Host);

impl Plugin for Guard {
    const ABOUT: &'static str = "sets access rules";

    fn create(host: Host, _: &Config) -> Result<Self, PluginError> {
        Ok(Guard(host))
    }

    fn start(&self) -> Result<(), PluginError> {
        if self.0.instance() == "second" && FAILS.load(Ordering::SeqCst) {
            return Err(PluginError::new("it fails as told"));
        }
        let clients = vec![ClientRules { name: self.0.instance().to_owned(), ..ClientRules::default() }];
        self.0.set_access_rules(&AccessRules { default: Verdict::Deny, clients, user_names: vec![] })
    }

    fn status(&self) -> Status {
        Status::default()
    }
}

mod export {
    #![allow(unsafe_code)]
    elbus_plugin_api::export_plugin!(super::Guard);
}

fn with(names: &[&str]) -> BrokerBuilder {
    let declared = names.iter().map(|name| {
        // nothing happens by itself
        PluginDeclaration::linked(*name, export::plugin()).restart(Restart::Never)
    });
    declared.fold(Broker::builder(), BrokerBuilder::plugin)
}

/// Who is let in.
fn let_in(broker: &Broker) -> Vec<&'static str> {
    let is_in = |name: &&str| match Peer::of(broker, name, ClientInfo::default()) {
        Ok(_) => true,
        Err(code) => {
            assert_eq!(code, Code::AccessDenied);
            false
        }
    };
    ["first", "second", "third"].into_iter().filter(is_in).collect()
}

#[test]
fn rules_stay_until_no_plugin_can_set_any() {
    let broker = with(&["first"]).start().unwrap();
    assert_eq!(let_in(&broker), ["first"]);

    let reloaded = broker.reload(with(&["first", "second"])).unwrap();
    assert_eq!((reloaded.added.len(), reloaded.errors.len()), (1, 1), "there are rules of another");
    assert_eq!(let_in(&broker), ["first"]);
    let reloaded = broker.reload(with(&["first", "second"])).unwrap();
    assert_eq!(
        (reloaded.unchanged.len(), reloaded.recovered.len(), reloaded.errors.len()),
        (2, 0, 1),
        "still"
    );

    // it remains, and cannot: the rules of the one that is gone stay
    FAILS.store(true, Ordering::SeqCst);
    let reloaded = broker.reload(with(&["second"])).unwrap();
    assert_eq!((reloaded.removed, reloaded.recovered), (vec!["first".to_owned()], vec![]));
    assert_eq!(reloaded.errors.len(), 1, "which is reported");
    assert_eq!(let_in(&broker), ["first"]);
    assert!(matches!(broker.plugins()[0].state, PluginState::Failed(_)));
    broker.reload(with(&["second"])).unwrap();
    assert_eq!(let_in(&broker), ["first"], "however often");

    // it can again: at once, not when its time has come
    FAILS.store(false, Ordering::SeqCst);
    let reloaded = broker.reload(with(&["second"])).unwrap();
    assert_eq!((reloaded.recovered, reloaded.errors.len()), (vec!["second".to_owned()], 0));
    assert_eq!(let_in(&broker), ["second"]);

    // one comes and cannot, as the one that goes goes
    FAILS.store(true, Ordering::SeqCst);
    broker.reload(with(&["third"])).unwrap();
    assert_eq!(let_in(&broker), ["third"]);
    assert_eq!(broker.reload(with(&["second"])).unwrap().errors.len(), 1);
    assert_eq!(let_in(&broker), ["third"]);

    assert_eq!(broker.reload(with(&[])).unwrap().removed, ["second"]);
    assert_eq!(let_in(&broker), ["first", "second", "third"]);
}
