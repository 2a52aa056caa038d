//! A stopped instance, such as a remaining thread of it, can register nothing in the broker.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::{Broker, PluginDeclaration, PluginState, Restart};
use elbus_plugin_api::{
    Call, ClientInfo, Config, Host, Method, Plugin, PluginError, Status,
    access::{AccessRules, Verdict},
};
use std::sync::Mutex;
use support::Peer;

/// The host of the instance as it was first created.
static FIRST: Mutex<Option<Host>> = Mutex::new(None);

/// Exposes its host.
struct Leaky;

impl Plugin for Leaky {
    const ABOUT: &'static str = "keeps its host after the stop";

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
fn a_stopped_instance_can_register_nothing() {
    let declared = || PluginDeclaration::linked("leaky", export::plugin()).restart(Restart::Never);
    let broker = Broker::builder().plugin(declared()).start().unwrap();
    let host = FIRST.lock().unwrap().clone().unwrap();
    let state = |broker: &Broker| broker.plugins().first().map(|report| report.state.clone());
    assert_eq!(state(&broker), Some(PluginState::Started));

    // while it is stopped, and when another instance of its name runs
    for again in [false, true] {
        let builder = Broker::builder();
        broker.reload(if again { builder.plugin(declared()) } else { builder }).unwrap();
        assert_eq!(try_all(&host), [false; 3]);
        assert!(host.register("late", &ClientInfo::default(), support::sink()).is_err());
        // its rules would deny every client
        assert!(Peer::of(&broker, "other", ClientInfo::default()).is_ok());
    }
}
