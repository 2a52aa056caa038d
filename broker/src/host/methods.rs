//! The control methods about plugins: list, start, stop, reload. Owns their parameters and answers only.

use elbus_plugin_api::{CallError, Code, Method};
use elbus_protocol::rpc::INTERNAL_ERROR;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use super::{
    instance::PluginState,
    plugins::{Plugins, Refusal},
};
use crate::control::{ControlTable, encode_result, name_param, no_params};

#[derive(Serialize)]
struct Listed {
    plugins: Vec<ListedPlugin>,
}

#[derive(Serialize)]
struct ListedPlugin {
    name: String,
    origin: String,
    plugin: String,
    /// The file of its library; nil if it is linked in.
    path: Option<String>,
    /// The build identity in its library.
    build: String,
    /// Seconds since its library was loaded.
    loaded_seconds: Option<u64>,
    state: &'static str,
    why: Option<String>,
    addresses: Vec<String>,
    detail: String,
    /// How often it was started again after a failure.
    restarts: u64,
    /// In how many seconds that is tried next.
    next_attempt: Option<u64>,
    /// How many of its callbacks have lasted long.
    slow_callbacks: u64,
}

/// Adds the control methods about plugins.
pub(crate) fn add_plugin_methods(table: &ControlTable, plugins: &Arc<Plugins>) {
    let method =
        |name, params, about, admin| Method { name, params, about, slow: true, admin, query: !admin };
    // weak: the table is part of what the plugins hold
    let this = Arc::downgrade(plugins);
    table.add_own(&method("plugin.list", "none", "the plugins and their states", false), move |call| {
        no_params(call)?;
        list(&*alive(&this)?)
    });
    let this = Arc::downgrade(plugins);
    table.add_own(&method("plugin.start", "{name: str}", "starts a stopped plugin", true), move |call| {
        done(alive(&this)?.start_one(&name_param(call)?))
    });
    let this = Arc::downgrade(plugins);
    table.add_own(&method("plugin.stop", "{name: str}", "stops a plugin", true), move |call| {
        done(alive(&this)?.stop_one(&name_param(call)?, call.caller))
    });
    let this = Arc::downgrade(plugins);
    let about = "loads the library of a plugin again and replaces the running instance by a new one";
    table.add_own(&method("plugin.reload", "{name: str}", about, true), move |call| {
        done(alive(&this)?.reload_one(&name_param(call)?, call.caller))
    });
}

fn alive(plugins: &Weak<Plugins>) -> Result<Arc<Plugins>, CallError> {
    plugins.upgrade().ok_or_else(|| refused(Refusal::Ending))
}

fn refused(refusal: Refusal) -> CallError {
    let code = match &refusal {
        Refusal::Ending => Code::Other.rpc_code(),
        Refusal::Unknown { .. } => Code::NotRegistered.rpc_code(),
        Refusal::Started { .. } => Code::Busy.rpc_code(),
        Refusal::Failed(_) => INTERNAL_ERROR,
    };
    CallError::new(code, refusal.to_string())
}

fn done(result: Result<(), Refusal>) -> Result<Vec<u8>, CallError> {
    result.map_err(refused)?;
    encode_result(&BTreeMap::from([("ok", true)]))
}

fn list(plugins: &Plugins) -> Result<Vec<u8>, CallError> {
    let plugins = plugins
        .reports()
        .into_iter()
        .map(|report| ListedPlugin {
            state: report.state.word(),
            why: match report.state {
                PluginState::Failed(why) => Some(why),
                _ => None,
            },
            name: report.name,
            origin: report.origin,
            plugin: report.plugin,
            path: report.path.map(|path| path.display().to_string()),
            build: report.build_id,
            loaded_seconds: report.loaded_for.map(|time| time.as_secs()),
            addresses: report.status.addresses,
            detail: report.status.detail,
            restarts: report.restarts,
            slow_callbacks: report.slow_callbacks,
            // rounded up: never 0 while it is still to come
            next_attempt: report.next_attempt.map(|left| left.as_millis().div_ceil(1000) as u64),
        })
        .collect();
    encode_result(&Listed { plugins })
}
