//! One instance of a plugin and its states: declared, loaded, configured, started, stopped, failed.

mod failure;

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::{
    EventKind, Figure, PluginError,
    abi::{CONTEXT_LINKED, FromRaw, InstanceObject, IntoRaw, RawContext, RawHost_TO},
};
use parking_lot::{Condvar, Mutex, RwLock};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{
    bounded_call::Callee,
    report::{PluginReport, PluginState},
    requirements::Requirements,
    restart_backoff::RestartBackoff,
    status_query::StatusQuery,
};
use crate::{
    access::RuleSetter,
    callbacks::Callback,
    control::table::BROKER_OWNER,
    declaration::{PluginDeclaration, PluginSource},
    host::{
        api::{context::BrokerContext, host_impl::HostImpl},
        load::{
            inspect::PluginManifest,
            libraries::{Libraries, LibraryError, LibraryRequest, Module},
        },
    },
};

/// One instance of a plugin.
pub(crate) struct Instance {
    pub(crate) name: String,
    /// Replaced by an equal one when its location in the file changes.
    declaration: RwLock<PluginDeclaration>,
    pub(super) context: Arc<BrokerContext>,
    /// The instance has set access rules, or tried to.
    sets_rules: AtomicBool,
    /// Never held during a call into the plugin.
    inner: Mutex<Inner>,
    /// Notified when what a failed creation had registered is removed.
    removed: Condvar,
    slow_callbacks: AtomicU64,
    status: StatusQuery,
}

/// What is known of an instance without asking it.
#[derive(Debug, Default)]
pub(super) struct InstanceSummary {
    pub(super) name: String,
    /// The name of the plugin; empty before it is loaded.
    pub(super) plugin: String,
    /// The state in one word; empty if the instance is not declared.
    pub(super) state: &'static str,
    pub(super) restarts: u64,
    pub(super) slow_callbacks: u64,
}

struct Inner {
    /// The owner number of the last creation; late panics of previous ones are ignored.
    owner: u32,
    state: PluginState,
    module: Option<Module>,
    object: Option<Arc<InstanceObject>>,
    /// The instance was stopped or has failed: its threads cannot register anything any more.
    is_gone: bool,
    /// Created only to check a declaration: its states are not reported.
    candidate: bool,
    /// Failed creations of which not everything that they had registered is removed yet.
    removals: usize,
    restart: RestartBackoff,
}

impl Instance {
    pub(super) fn new(declaration: PluginDeclaration, context: Arc<BrokerContext>) -> Arc<Self> {
        let inner = Mutex::new(Inner {
            owner: 0,
            state: PluginState::Declared,
            module: None,
            object: None,
            is_gone: false,
            candidate: false,
            removals: 0,
            restart: RestartBackoff::default(),
        });
        let name = declaration.name.clone();
        let sets_rules = AtomicBool::new(false);
        let (declaration, slow_callbacks) = (RwLock::new(declaration), AtomicU64::new(0));
        Arc::new(Instance {
            name,
            declaration,
            context,
            sets_rules,
            inner,
            removed: Condvar::new(),
            slow_callbacks,
            status: StatusQuery::default(),
        })
    }

    /// Creates an instance whose states are not reported before it is [adopted](Instance::adopt).
    pub(super) fn candidate(declaration: PluginDeclaration, context: Arc<BrokerContext>) -> Arc<Self> {
        let instance = Self::new(declaration, context);
        instance.inner.lock().candidate = true;
        instance
    }

    /// Creates another instance with the same declaration and the code that this one runs, even if its file
    /// has changed.
    pub(super) fn previous_version(&self) -> Arc<Self> {
        let previous = Self::new(self.declaration(), self.context.clone());
        let module = self.inner.lock().module.clone();
        previous.inner.lock().module = module;
        previous
    }

    /// Makes a candidate a regular instance.
    pub(super) fn adopt(&self) {
        self.inner.lock().candidate = false;
    }

    /// Drops a candidate that is not used.
    pub(super) fn discard(&self) {
        let (object, owner) = self.take_object();
        drop(object);
        // an instance that was never configured has no owner number
        if owner != BROKER_OWNER {
            self.context.remove_owner(owner, "its declaration is not used");
        }
    }

    pub(super) fn declaration(&self) -> PluginDeclaration {
        self.declaration.read().clone()
    }

    /// Replaces the declaration by an equal one from another location in the file.
    pub(super) fn set_declaration(&self, declaration: PluginDeclaration) {
        *self.declaration.write() = declaration;
    }

    /// Returns the file and line of a key in the instance's table.
    pub(super) fn location(&self, key: &str) -> Option<String> {
        self.declaration.read().location_of(key)
    }

    /// Loads the instance's library, or uses the linked-in plugin.
    pub(super) fn load(&self, libraries: &Libraries) -> Result<(), LibraryError> {
        let declaration = self.declaration();
        let module = match &declaration.source {
            PluginSource::Linked(plugin) => {
                let (name, version, about) = (plugin.name(), plugin.version(), plugin.about());
                let manifest = PluginManifest {
                    name: name.to_owned(),
                    version: version.to_owned(),
                    about: about.to_owned(),
                    requires: plugin.requires().to_owned(),
                    ..Default::default()
                };
                Module { root: plugin.into_raw(), manifest, file: None }
            }
            PluginSource::Library(library) => {
                let config = declaration.config.to_string();
                let request = LibraryRequest { library, instance: &self.name, config: &config };
                libraries.load(&request).inspect_err(|error| {
                    self.set_state(PluginState::Failed(error.to_string()));
                })?
            }
        };
        self.inner.lock().module = Some(module);
        self.set_state(PluginState::Loaded);
        Ok(())
    }

    /// Returns the plugin's name and the plugins that it requires.
    pub(super) fn requirements(&self) -> Requirements {
        let declaration = self.declaration();
        let inner = self.inner.lock();
        match &inner.module {
            Some(module) => Requirements::new(&self.name, &module.manifest.name, &module.manifest.requires),
            None => Requirements::unloaded(&self.name, declaration.code()),
        }
    }

    /// Returns the name of the plugin; empty before it is loaded.
    fn plugin_name(&self) -> String {
        self.inner.lock().module.as_ref().map(|module| module.manifest.name.clone()).unwrap_or_default()
    }

    /// Returns whether the instance has set the rules, or has replaced the instance that did.
    pub(super) fn is_setter(&self, setter: &RuleSetter) -> bool {
        self.name == setter.instance && self.plugin_name() == setter.plugin
    }

    /// Returns whether the instance may set rules that replace these: it has tried to, or runs the same
    /// plugin.
    pub(super) fn may_set_rules(&self, setter: &RuleSetter) -> bool {
        self.sets_rules.load(Ordering::Relaxed) || self.plugin_name() == setter.plugin
    }

    /// Creates the instance in the plugin, which checks its table.
    pub(super) fn configure(self: &Arc<Self>) -> Result<(), PluginError> {
        let module = self.inner.lock().module.as_ref().map(|module| module.root);
        let module = module.ok_or_else(|| PluginError::new("its library is not loaded"))?;
        self.wait_for_removal();
        let owner = self.context.next_owner(&self.name);
        {
            let mut inner = self.inner.lock();
            (inner.owner, inner.is_gone) = (owner, false);
        }
        let weak = Arc::downgrade(self);
        let host = HostImpl::new(self.context.clone(), owner, weak);
        let host = RawHost_TO::from_ptr(RArc::new(host), TD_Opaque);
        let declaration = self.declaration();
        let flags = if matches!(declaration.source, PluginSource::Linked(_)) { CONTEXT_LINKED } else { 0 };
        let (config, name) = (declaration.config.to_string(), self.name.clone());
        let create = move || {
            let context =
                RawContext { flags, instance: name.as_str().into(), config: config.as_str().into() };
            module.create()(host, &context).into_result()
        };
        let created = self.callee().call(&self.context, Callback::Create, create);
        match created.unwrap_or_else(|late| Err(late.into_raw())) {
            Ok(object) => {
                self.inner.lock().object = Some(Arc::new(object));
                self.set_state(PluginState::Configured);
                Ok(())
            }
            Err(error) => Err(self.failed_to("configure", PluginError::from_raw(error))),
        }
    }

    /// Starts the instance: it acquires its resources.
    pub(super) fn start(&self) -> Result<(), PluginError> {
        let object = self.object().ok_or_else(|| PluginError::new("it is not configured"))?;
        let started =
            self.callee().call(&self.context, Callback::Start, move || object.start().into_result());
        match started.unwrap_or_else(|late| Err(late.into_raw())) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed_to("start", PluginError::from_raw(error))),
        }
    }

    /// Lets the instance serve, after all instances have started. From now on it is restarted when it fails.
    pub(super) fn serve(self: &Arc<Self>) {
        self.inner.lock().restart.started(Instant::now());
        if let Some(object) = self.object() {
            if let Err(late) = self.callee().call(&self.context, Callback::Serve, move || object.serve()) {
                return self.mark_failed(self.owner(), &late.message);
            }
            // unless the instance has failed meanwhile
            if self.state() == PluginState::Configured {
                self.set_state(PluginState::Started);
                self.context.router.serve_hooks(&self.name, self.owner());
            }
        }
    }

    /// Lets the instance read again the files that its table names.
    pub(super) fn refresh(&self) -> Result<(), PluginError> {
        match self.object().filter(|_| self.state() == PluginState::Started) {
            Some(object) => {
                let refresh = move || object.refresh().into_result().map_err(PluginError::from_raw);
                self.callee().call(&self.context, Callback::Refresh, refresh)?
            }
            None => Ok(()),
        }
    }

    /// Takes the object out to stop it. Also returns the owner number of what the instance has registered.
    pub(super) fn take_object(&self) -> (Option<Arc<InstanceObject>>, u32) {
        let mut inner = self.inner.lock();
        inner.is_gone = true;
        (inner.object.take(), inner.owner)
    }

    pub(super) fn state(&self) -> PluginState {
        self.inner.lock().state.clone()
    }

    /// Returns a report about the instance. Queries the plugin's status, which can block for a second.
    pub(super) fn report(&self) -> PluginReport {
        let (state, module, restarts, due) = {
            let inner = self.inner.lock();
            let (restarts, due) = (inner.restart.restarts(), inner.restart.due());
            (inner.state.clone(), inner.module.clone(), restarts, due)
        };
        let manifest = module.as_ref().map(|module| &module.manifest);
        let plugin =
            manifest.map(|manifest| format!("{} {}", manifest.name, manifest.version)).unwrap_or_default();
        let build_id = manifest.map(|manifest| manifest.build_id.clone()).unwrap_or_default();
        let file = module.and_then(|module| module.file);
        let next_attempt = due.map(|due| due.saturating_duration_since(Instant::now()));
        let origin = match &self.declaration.read().source {
            PluginSource::Library(library) => library.clone(),
            PluginSource::Linked(_) => "linked in".to_owned(),
        };
        let (status, _) = self.status.ask(self.object(), &self.name, self.owner());
        let slow_callbacks = self.slow_callbacks.load(Ordering::Relaxed);
        PluginReport {
            name: self.name.clone(),
            origin,
            plugin,
            loaded_for: file.as_ref().map(|file| file.since.elapsed()),
            path: file.map(|file| file.path),
            build_id,
            state,
            status,
            restarts,
            next_attempt,
            slow_callbacks,
        }
    }

    /// Returns the figures of the instance. Queries the plugin, which can block for a second.
    pub(super) fn figures(&self) -> Vec<Figure> {
        self.status.ask(self.object(), &self.name, self.owner()).1
    }

    /// Returns what is known of the instance without asking it.
    pub(super) fn summary(&self) -> InstanceSummary {
        let inner = self.inner.lock();
        InstanceSummary {
            name: self.name.clone(),
            plugin: inner.module.as_ref().map(|module| module.manifest.name.clone()).unwrap_or_default(),
            state: inner.state.as_str(),
            restarts: inner.restart.restarts(),
            slow_callbacks: self.slow_callbacks.load(Ordering::Relaxed),
        }
    }

    /// Returns the current owner number.
    pub(super) fn owner(&self) -> u32 {
        self.inner.lock().owner
    }

    /// Returns whether the instance has not answered a status query in time.
    pub(super) fn is_status_overdue(&self) -> bool {
        self.object().is_some() && self.status.is_overdue(self.owner())
    }

    fn callee(&self) -> Callee<'_> {
        let linked = matches!(self.declaration.read().source, PluginSource::Linked(_));
        Callee { name: &self.name, owner: self.owner(), linked }
    }

    /// Counts a slow callback.
    pub(crate) fn count_slow_callback(&self) {
        self.slow_callbacks.fetch_add(1, Ordering::Relaxed);
    }

    fn object(&self) -> Option<Arc<InstanceObject>> {
        self.inner.lock().object.clone()
    }

    fn failed_to(&self, step: &str, error: PluginError) -> PluginError {
        self.set_state(PluginState::Failed(format!("could not {step}: {error}")));
        error
    }

    /// Sets the state and reports it, unless this is a candidate.
    pub(super) fn set_state(&self, state: PluginState) {
        let detail = match &state {
            PluginState::Failed(reason) => format!("failed: {reason}"),
            other => other.as_str().to_owned(),
        };
        let (before, candidate) = {
            let mut inner = self.inner.lock();
            (std::mem::replace(&mut inner.state, state.clone()), inner.candidate)
        };
        if before == state || candidate {
            return;
        }
        match (before, state) {
            (_, PluginState::Started) => tracing::info!(plugin = self.name, "plugin started"),
            (PluginState::Started, PluginState::Stopped) => {
                tracing::info!(plugin = self.name, "plugin stopped")
            }
            (_, state) => tracing::debug!(plugin = self.name, state = state.as_str(), "plugin state changed"),
        }
        self.context.router.events.enqueue(EventKind::PluginState, &self.name, &detail);
        self.context.router.events.dispatch();
    }
}
