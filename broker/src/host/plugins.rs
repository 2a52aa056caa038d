//! All instances: brought up together, stopped together, and one by one on request.

use elbus_plugin_api::{CallError, Code, Method};
use elbus_protocol::rpc::INTERNAL_ERROR;
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    core::Core,
    instance::{Instance, Origin, PluginReport, PluginState},
    library::Libraries,
};
use crate::{
    control::{encode_result, name_param, no_params},
    declaration::{PluginDeclaration, PluginSource},
    error::BrokerError,
};

/// What one instance gets to stop when it is asked to by name.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// All instances of plugins, in the order of their declaration.
pub(crate) struct Plugins {
    libraries: Libraries,
    instances: Vec<Arc<Instance>>,
    core: Arc<Core>,
    /// Held while instances change state, so that two requests do not mix. `true` once all are stopped for good.
    changing: Mutex<bool>,
}

impl Plugins {
    /// Takes the declarations; loads nothing yet.
    ///
    /// # Errors
    /// A name that is empty or used twice.
    pub(crate) fn new(
        core: Arc<Core>,
        libraries: Libraries,
        declarations: Vec<PluginDeclaration>,
    ) -> Result<Arc<Self>, BrokerError> {
        let mut instances: Vec<Arc<Instance>> = Vec::new();
        for declaration in declarations {
            let PluginDeclaration { name, source, config } = declaration;
            if name.is_empty() {
                return Err(BrokerError::NamelessPlugin);
            }
            if instances.iter().any(|other| other.name == name) {
                return Err(BrokerError::DuplicatePlugin { name });
            }
            let origin = match source {
                PluginSource::Library(library) => Origin::Library(library),
                PluginSource::Linked(plugin) => Origin::Linked(plugin),
            };
            instances.push(Instance::new(name, origin, config.to_string(), core.clone()));
        }
        Ok(Arc::new(Plugins { libraries, instances, core, changing: Mutex::new(false) }))
    }

    /// Loads and configures all. Nothing outside is touched.
    pub(crate) fn configure(&self) -> Result<(), BrokerError> {
        for instance in &self.instances {
            self.configure_one(instance)?;
        }
        Ok(())
    }

    fn configure_one(&self, instance: &Arc<Instance>) -> Result<(), BrokerError> {
        let name = || instance.name.clone();
        instance.load(&self.libraries).map_err(|error| BrokerError::Library { plugin: name(), error })?;
        instance.configure().map_err(|error| BrokerError::Configure { plugin: name(), error })
    }

    /// Starts all, then lets all serve. Where one fails, those before it are stopped again.
    pub(crate) fn start(&self) -> Result<(), BrokerError> {
        let _changing = self.changing.lock();
        for instance in &self.instances {
            if let Err(error) = instance.start() {
                self.stop_instances("the broker could not start", Duration::ZERO);
                return Err(BrokerError::Start { plugin: instance.name.clone(), error });
            }
        }
        self.instances.iter().for_each(|instance| instance.serve());
        Ok(())
    }

    /// Stops all at once, within the deadline.
    pub(crate) fn stop(&self, why: &str, deadline: Duration) {
        let mut ended = self.changing.lock();
        *ended = true;
        self.stop_instances(why, deadline);
    }

    fn stop_instances(&self, why: &str, deadline: Duration) {
        let stops: Vec<_> = self.instances.iter().map(|instance| instance.stop(deadline, why)).collect();
        stops.into_iter().for_each(|stop| stop.wait());
    }

    pub(crate) fn reports(&self) -> Vec<PluginReport> {
        self.instances.iter().map(|instance| instance.report()).collect()
    }

    fn find(&self, name: &str) -> Result<&Arc<Instance>, CallError> {
        let found = self.instances.iter().find(|instance| instance.name == name);
        found.ok_or_else(|| {
            let known: Vec<_> = self.instances.iter().map(|instance| instance.name.as_str()).collect();
            let text = format!("no plugin {name:?}; there are {}", known.join(", "));
            CallError::new(Code::NotRegistered.rpc_code(), text)
        })
    }

    fn start_one(&self, name: &str) -> Result<(), CallError> {
        // a request that waited while the broker was stopped must not bring anything up again
        let ended = self.changing.lock();
        if *ended {
            return Err(is_ending());
        }
        let instance = self.find(name)?;
        if instance.state() == PluginState::Started {
            return Err(CallError::new(Code::Busy.rpc_code(), format!("plugin {name:?} is started already")));
        }
        let failed = |error: BrokerError| CallError::new(INTERNAL_ERROR, error.to_string());
        self.configure_one(instance).map_err(failed)?;
        if let Err(error) = instance.start() {
            instance.stop(Duration::ZERO, "it could not start").wait();
            return Err(failed(BrokerError::Start { plugin: name.to_owned(), error }));
        }
        instance.serve();
        Ok(())
    }

    fn stop_one(&self, name: &str, caller: &str) -> Result<(), CallError> {
        let _changing = self.changing.lock();
        let instance = self.find(name)?;
        tracing::info!(plugin = name, caller, "stopping on request");
        instance.stop(STOP_DEADLINE, &format!("plugin {name} was stopped by {caller}")).wait();
        Ok(())
    }

    fn reload_one(&self, name: &str, caller: &str) -> Result<(), CallError> {
        self.stop_one(name, caller)?;
        self.start_one(name)
    }
}

#[derive(Serialize)]
struct Listed {
    plugins: Vec<ListedPlugin>,
}

#[derive(Serialize)]
struct ListedPlugin {
    name: String,
    origin: String,
    plugin: String,
    state: &'static str,
    why: Option<String>,
    addresses: Vec<String>,
    detail: String,
}

/// Adds the control methods about plugins.
pub(crate) fn add_plugin_methods(plugins: &Arc<Plugins>) {
    let table = &plugins.core.control;
    let method = |name, params, about, admin| Method { name, params, about, slow: true, admin };
    // weak: the table is part of what the plugins hold
    let this = Arc::downgrade(plugins);
    table.add_own(&method("plugin.list", "none", "the plugins and their states", false), move |call| {
        no_params(call)?;
        list(&*alive(&this)?)
    });
    let this = Arc::downgrade(plugins);
    table.add_own(&method("plugin.start", "{name: str}", "starts a stopped plugin", true), move |call| {
        alive(&this)?.start_one(&name_param(call)?).and_then(|()| done())
    });
    let this = Arc::downgrade(plugins);
    table.add_own(&method("plugin.stop", "{name: str}", "stops a plugin", true), move |call| {
        alive(&this)?.stop_one(&name_param(call)?, call.caller).and_then(|()| done())
    });
    let this = Arc::downgrade(plugins);
    let about = "stops a plugin, loads its library anew and starts it";
    table.add_own(&method("plugin.reload", "{name: str}", about, true), move |call| {
        alive(&this)?.reload_one(&name_param(call)?, call.caller).and_then(|()| done())
    });
}

fn alive(plugins: &Weak<Plugins>) -> Result<Arc<Plugins>, CallError> {
    plugins.upgrade().ok_or_else(is_ending)
}

fn is_ending() -> CallError {
    CallError::new(Code::Other.rpc_code(), "the broker is ending")
}

fn done() -> Result<Vec<u8>, CallError> {
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
            addresses: report.status.addresses,
            detail: report.status.detail,
        })
        .collect();
    encode_result(&Listed { plugins })
}
