//! The control methods for plugins: list, start, stop, reload. Owns their parameters and results only.

use elbus_plugin_api::{CallError, Code, Method};
use elbus_protocol::rpc::INTERNAL_ERROR;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use super::{
    plugins::{Plugins, RequestError},
    report::PluginState,
};
use crate::control::{
    params::{encode_result, name_param, no_params},
    table::ControlTable,
};

#[derive(Serialize)]
struct Listed {
    plugins: Vec<ListedPlugin>,
}

#[derive(Serialize)]
struct ListedPlugin {
    name: String,
    origin: String,
    plugin: String,
    /// The file of the plugin's library; nil if it is linked in.
    path: Option<String>,
    /// The build id in that library.
    build: String,
    /// Seconds since that library was loaded.
    loaded_seconds: Option<u64>,
    state: &'static str,
    why: Option<String>,
    addresses: Vec<String>,
    detail: String,
    /// The number of restarts after failures.
    restarts: u64,
    /// Seconds until the next restart attempt.
    next_attempt: Option<u64>,
    /// The number of slow callbacks.
    slow_callbacks: u64,
}

/// Adds the control methods for plugins.
pub(crate) fn add_plugin_methods(table: &ControlTable, plugins: &Arc<Plugins>) {
    let method = |name, params, about, admin| {
        let method = Method::new(name).params(params).about(about).slow();
        if admin { method.admin() } else { method.query() }
    };
    // weak: the plugins own the table
    let this = Arc::downgrade(plugins);
    table.add_own(&method("plugin.list", "none", "lists the plugins and their states", false), move |call| {
        no_params(call)?;
        list(&*upgrade(&this)?)
    });
    let this = Arc::downgrade(plugins);
    table.add_own(&method("plugin.start", "{name: str}", "starts a stopped plugin", true), move |call| {
        ok_result(upgrade(&this)?.start_plugin(&name_param(call)?))
    });
    let this = Arc::downgrade(plugins);
    table.add_own(&method("plugin.stop", "{name: str}", "stops a plugin", true), move |call| {
        ok_result(upgrade(&this)?.stop_plugin(&name_param(call)?, call.caller))
    });
    let this = Arc::downgrade(plugins);
    let about = "loads the library of a plugin again and replaces the running instance";
    table.add_own(&method("plugin.reload", "{name: str}", about, true), move |call| {
        ok_result(upgrade(&this)?.reload_plugin(&name_param(call)?, call.caller))
    });
}

fn upgrade(plugins: &Weak<Plugins>) -> Result<Arc<Plugins>, CallError> {
    plugins.upgrade().ok_or_else(|| request_error(RequestError::Ending))
}

fn request_error(error: RequestError) -> CallError {
    let code = match &error {
        RequestError::Ending => Code::Other.rpc_code(),
        RequestError::Unknown { .. } => Code::NotRegistered.rpc_code(),
        RequestError::AlreadyStarted { .. } => Code::Busy.rpc_code(),
        RequestError::Failed(_) => INTERNAL_ERROR,
    };
    CallError::new(code, error.to_string())
}

fn ok_result(result: Result<(), RequestError>) -> Result<Vec<u8>, CallError> {
    result.map_err(request_error)?;
    encode_result(&BTreeMap::from([("ok", true)]))
}

fn list(plugins: &Plugins) -> Result<Vec<u8>, CallError> {
    let plugins = plugins
        .reports()
        .into_iter()
        .map(|report| ListedPlugin {
            state: report.state.as_str(),
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
            // rounded up: never 0 before the attempt
            next_attempt: report.next_attempt.map(|left| left.as_millis().div_ceil(1000) as u64),
        })
        .collect();
    encode_result(&Listed { plugins })
}
