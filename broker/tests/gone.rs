//! What is left of an instance that was stopped, such as a thread of its own, adds nothing to the broker any
//! more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

mod support;

use elbus_broker::{Broker, PluginDeclaration, PluginState, Restart};
use elbus_plugin_api::{
    Call, ClientInfo, Config, Host, Method, Plugin, PluginError, Status,
    access::{AccessRules, Verdict},
};
use std::sync::Mutex;
use support::Peer;

/// The host of the instance as it was created first.
static FIRST: Mutex<Option<Host>> = Mutex::new(None);

/// Lets its host be known.
struct Leaky;

impl Plugin for Leaky {
    const ABOUT: &'static str = "leaves its host behind";

    fn create(host: Host, _: &Config) -> Result<Self, PluginError> {
        FIRST.lock().unwrap().get_or_insert(host);
        Ok(Leaky)
    }

    fn status(&self) -> Status {
        Status::default()
    }
}

mod export {
    #![allow(unsafe_code)]
    elbus_plugin_api::export_plugin!(super::Leaky);
}

fn method() -> Method<'static> {
    Method::new("leaky.method").params("none").about("does nothing")
}

fn try_all(host: &Host) -> [bool; 3] {
    let handler = |_: &Call<'_>| Ok(vec![]);
    let rules = AccessRules { default: Verdict::Deny, clients: vec![], user_names: vec![] };
    [
        host.add_method(&method(), handler).is_ok(),
        host.set_access_rules(&rules).is_ok(),
        host.system_sender("leaky", false).is_ok(),
    ]
}

#[test]
fn a_stopped_instance_adds_nothing() {
    let declared = || PluginDeclaration::linked("leaky", export::plugin()).restart(Restart::Never);
    let broker = Broker::builder().plugin(declared()).start().unwrap();
    let host = FIRST.lock().unwrap().clone().unwrap();
    let state = |broker: &Broker| broker.plugins().first().map(|report| report.state.clone());
    assert_eq!(state(&broker), Some(PluginState::Started));

    // without it, and with another one of its name
    for again in [false, true] {
        let builder = Broker::builder();
        broker.reload(if again { builder.plugin(declared()) } else { builder }).unwrap();
        assert_eq!(try_all(&host), [false; 3]);
        assert!(host.register("late", &ClientInfo::default(), support::sink()).is_err());
        // its rules would deny everything
        assert!(Peer::of(&broker, "innocent", ClientInfo::default()).is_ok());
    }
}
