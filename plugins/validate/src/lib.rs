//! Validation of messages for ELBUS: payloads are checked before they are routed, and refused with the code
//! 0x72.
//!
//! It owns the configuration, the formats and the schemas. `jsonschema` compares documents with schemas.
//!
//! ```toml
//! [[plugin]]
//! name = "validate"
//! library = "elbus_validate"
//! on_failure = "closed"            # the default: messages are rejected while they cannot be checked
//! [plugin.config]
//! max_bytes = 1048576              # the default; longer messages that a rule applies to are refused
//! max_values = 10000               # the default; values of a document that is compared with a schema
//! [[plugin.config.rule]]
//! filters = ["sensors/#"]          # publications
//! schema = "/etc/elbus/sensor.json"
//! [[plugin.config.rule]]
//! names = ["plc.*"]                # messages, and broadcasts that can reach such a name
//! format = "msgpack"               # json, msgpack, utf8
//! [[plugin.config.rule]]
//! names = ["plant.*"]
//! method = "set"                   # the parameters of calls of this method; "*": of every call
//! schema = "/etc/elbus/set.json"   # by default json in payloads, msgpack in parameters
//! ```
//!
//! All rules that apply to a message must pass. A reload reads changed schemas again.
#![deny(unsafe_code)]

mod document;
mod json;
mod msgpack;
mod patterns;
mod references;
mod rule;
mod rules;
mod schema;
mod table;

use elbus_plugin_api::{
    Call, CallError, Config, Host, Method, Plugin, PluginError, Status,
    hooks::{Hook, HookScope, OnFailure},
};
use parking_lot::Mutex;
use rules::{Refusals, Rules};
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use table::ValidateTable;

/// The rules of one configuration.
pub struct Validate {
    host: Host,
    table: ValidateTable,
    scope: HookScope,
    refusals: Arc<Refusals>,
    /// Locked while rules are added to the broker, so that the newest replace the others.
    active: Mutex<Active>,
}

struct Active {
    rules: Rules,
    /// `Some` from `start` to `stop`.
    hook: Option<Hook>,
}

impl Plugin for Validate {
    const ABOUT: &'static str = "refuses messages that are not of a format or do not match a JSON Schema";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let table: ValidateTable = config.read()?;
        let (limits, rules, scope) = (table.limits()?, table.rules()?, table.scope()?);
        let refusals = Arc::new(Refusals::new(rules.len()));
        let rules = Rules::new(rules, limits, refusals.clone());
        Ok(Validate { host, table, scope, refusals, active: Mutex::new(Active { rules, hook: None }) })
    }

    fn start(&self) -> Result<(), PluginError> {
        let refusals = self.refusals.clone();
        let name = format!("{}.stats", self.host.instance());
        let method =
            Method::new(&name).params("none").about("returns the refused messages of each rule").query();
        self.host.add_method(&method, move |_: &Call<'_>| stats(&refusals))?;
        // before any transport serves, so that no message passes without it
        let mut active = self.active.lock();
        active.hook = Some(self.intercept(&active.rules)?);
        Ok(())
    }

    /// Reads the schemas again. If one cannot be used, all stay as they are.
    fn refresh(&self) -> Result<(), PluginError> {
        let rules = self.table.rules()?;
        let mut active = self.active.lock();
        if active.rules.has_schemas_of(&rules) {
            return Ok(());
        }
        let rules = Rules::new(rules, self.table.limits()?, self.refusals.clone());
        if active.hook.is_some() {
            // the new hook is added before the previous one ends: no message passes unchecked
            active.hook = Some(self.intercept(&rules)?);
        }
        active.rules = rules;
        tracing::info!(instance = self.host.instance(), "schemas were read again");
        Ok(())
    }

    fn stop(&self, _: Duration) {
        self.active.lock().hook = None;
    }

    fn status(&self) -> Status {
        let counts = self.refusals.counts();
        let refused: u64 = counts.iter().sum();
        Status::with_detail(format!("{} rules, {refused} messages refused", counts.len()))
    }
}

impl Validate {
    fn intercept(&self, rules: &Rules) -> Result<Hook, PluginError> {
        self.host.add_interceptor(&self.scope, OnFailure::Closed, rules.clone())
    }
}

/// The result of the method `stats`.
#[derive(Serialize)]
struct Stats {
    /// Refused messages, by rule in the order of the table.
    refused: Vec<u64>,
}

fn stats(refusals: &Refusals) -> Result<Vec<u8>, CallError> {
    let stats = Stats { refused: refusals.counts() };
    rmp_serde::to_vec_named(&stats).map_err(|error| CallError::internal(error.to_string()))
}

/// A separate module, since the macro's code contains unsafe attributes.
mod export {
    #![allow(unsafe_code)]
    elbus_plugin_api::export_plugin!(crate::Validate);
}
pub use export::plugin;
