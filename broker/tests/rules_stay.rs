//! Access rules across reloads: they stay in force as long as a plugin that sets rules is declared, even if
//! it does not run.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::{Broker, BrokerBuilder, PluginDeclaration, PluginState, Restart};
use elbus_plugin_api::{
    ClientInfo, Code, Config, Host, Plugin, PluginError, Status,
    access::{AccessRules, ClientRules, Verdict},
};
use std::sync::atomic::{AtomicBool, Ordering};
use support::Peer;

/// Whether the instance `second` fails to start.
static FAILS: AtomicBool = AtomicBool::new(false);

/// Admits the clients whose name is that of its instance.
struct Guard(Host);

impl Plugin for Guard {
    const ABOUT: &'static str = "sets access rules";

    fn create(host: Host, _: &Config) -> Result<Self, PluginError> {
        Ok(Guard(host))
    }

    fn start(&self) -> Result<(), PluginError> {
        if self.0.instance() == "second" && FAILS.load(Ordering::SeqCst) {
            return Err(PluginError::new("start fails as configured"));
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
        // no restarts, so that only reloads change anything
        PluginDeclaration::linked(*name, export::plugin()).restart(Restart::Never)
    });
    declared.fold(Broker::builder(), BrokerBuilder::plugin)
}

/// Returns the admitted clients.
fn admitted(broker: &Broker) -> Vec<&'static str> {
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
    assert_eq!(admitted(&broker), ["first"]);

    let reloaded = broker.reload(with(&["first", "second"])).unwrap();
    assert_eq!((reloaded.added.len(), reloaded.errors.len()), (1, 1), "another instance has set rules");
    assert_eq!(admitted(&broker), ["first"]);
    let reloaded = broker.reload(with(&["first", "second"])).unwrap();
    assert_eq!(
        (reloaded.unchanged.len(), reloaded.recovered.len(), reloaded.errors.len()),
        (2, 0, 1),
        "still refused"
    );

    // the remaining instance cannot start: the rules of the removed one stay in force
    FAILS.store(true, Ordering::SeqCst);
    let reloaded = broker.reload(with(&["second"])).unwrap();
    assert_eq!((reloaded.removed, reloaded.recovered), (vec!["first".to_owned()], vec![]));
    assert_eq!(reloaded.errors.len(), 1, "the failure is reported");
    assert_eq!(admitted(&broker), ["first"]);
    assert!(matches!(broker.plugins()[0].state, PluginState::Failed(_)));
    broker.reload(with(&["second"])).unwrap();
    assert_eq!(admitted(&broker), ["first"], "also after another reload");

    // it can start again: at the reload, without waiting for a scheduled restart
    FAILS.store(false, Ordering::SeqCst);
    let reloaded = broker.reload(with(&["second"])).unwrap();
    assert_eq!((reloaded.recovered, reloaded.errors.len()), (vec!["second".to_owned()], 0));
    assert_eq!(admitted(&broker), ["second"]);

    // a new instance fails to start while the previous one is removed
    FAILS.store(true, Ordering::SeqCst);
    broker.reload(with(&["third"])).unwrap();
    assert_eq!(admitted(&broker), ["third"]);
    assert_eq!(broker.reload(with(&["second"])).unwrap().errors.len(), 1);
    assert_eq!(admitted(&broker), ["third"]);

    assert_eq!(broker.reload(with(&[])).unwrap().removed, ["second"]);
    assert_eq!(admitted(&broker), ["first", "second", "third"]);
}
