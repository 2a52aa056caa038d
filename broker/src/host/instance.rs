//! One instance of a plugin and its states: declared, loaded, configured, started, stopped, failed.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::{
    EventKind, PluginError, Status,
    abi::{CONTEXT_LINKED, InstanceObject, RawContext, RawHost_TO},
};
use parking_lot::{Mutex, RwLock};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    bridge::Bridge,
    calling::{Callee, StatusCell},
    core::Core,
    inspect::PluginRecord,
    library::{Libraries, LibraryError, Module, Wanted},
    needs::Needs,
    revival::Revival,
};
use crate::{
    access::RuleSetter,
    calls::{self, Callback},
    control::BROKER_ITSELF,
    declaration::{PluginDeclaration, PluginSource, Restart},
};

/// What a failed instance gets to end its connections.
const FAILED_DEADLINE: Duration = Duration::from_millis(500);

/// Where an instance of a plugin stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PluginState {
    /// Named, nothing done yet.
    Declared,
    /// Its library is loaded, or it is linked in.
    Loaded,
    /// Its table was read and found right.
    Configured,
    /// It has what it needs and serves.
    Started,
    /// It was stopped.
    Stopped,
    /// It failed; a sentence says why.
    Failed(String),
}

impl PluginState {
    /// The state in one word.
    pub fn word(&self) -> &'static str {
        match self {
            PluginState::Declared => "declared",
            PluginState::Loaded => "loaded",
            PluginState::Configured => "configured",
            PluginState::Started => "started",
            PluginState::Stopped => "stopped",
            PluginState::Failed(_) => "failed",
        }
    }
}

/// What can be said of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PluginReport {
    /// The name of the instance.
    pub name: String,
    /// The library it was loaded from, or `linked in`.
    pub origin: String,
    /// The name and version of its crate; empty before it is loaded.
    pub plugin: String,
    /// The file its library was read from; `None` before it is loaded, and if it is linked in.
    pub path: Option<PathBuf>,
    /// The build identity that the linker has written into its library; empty if there is none.
    pub build_id: String,
    /// Time since its library was loaded. Instances of one library share it.
    pub loaded_for: Option<Duration>,
    /// Where it stands.
    pub state: PluginState,
    /// What it says of itself.
    pub status: Status,
    /// How often it was started again after it had failed.
    pub restarts: u64,
    /// In how much time that is tried next, where it is.
    pub next_attempt: Option<Duration>,
    /// How many of its callbacks have lasted for 0.1 s or more.
    pub slow_callbacks: u64,
}

/// One instance.
pub(crate) struct Instance {
    pub(super) name: String,
    /// Replaced by one that is the same, but stands elsewhere in the file.
    declaration: RwLock<PluginDeclaration>,
    pub(super) core: Arc<Core>,
    /// It has handed access rules over, or tried to.
    sets_rules: AtomicBool,
    /// Never held while the plugin is called.
    inner: Mutex<Inner>,
    slow_callbacks: AtomicU64,
    last_status: StatusCell,
}

struct Inner {
    /// Of the instance as it was created last; a panic of an earlier one, late to come, does not concern it.
    owner: u32,
    state: PluginState,
    module: Option<Module>,
    object: Option<Arc<InstanceObject>>,
    /// It was stopped or has failed: nothing that is left of it adds anything any more.
    is_gone: bool,
    /// Whether it only is to find out if its declaration is right: nobody is told of its states.
    candidate: bool,
    revival: Revival,
}

impl Instance {
    pub(super) fn new(declaration: PluginDeclaration, core: Arc<Core>) -> Arc<Self> {
        let inner = Mutex::new(Inner {
            owner: 0,
            state: PluginState::Declared,
            module: None,
            object: None,
            is_gone: false,
            candidate: false,
            revival: Revival::default(),
        });
        let name = declaration.name.clone();
        let sets_rules = AtomicBool::new(false);
        let (declaration, slow_callbacks) = (RwLock::new(declaration), AtomicU64::new(0));
        Arc::new(Instance {
            name,
            declaration,
            core,
            sets_rules,
            inner,
            slow_callbacks,
            last_status: StatusCell::default(),
        })
    }

    /// One that takes no part in anything before it is [adopted](Instance::adopt).
    pub(super) fn candidate(declaration: PluginDeclaration, core: Arc<Core>) -> Arc<Self> {
        let instance = Self::new(declaration, core);
        instance.inner.lock().candidate = true;
        instance
    }

    /// Another one with the same declaration and the code that this one runs, whatever its file holds now.
    pub(super) fn as_it_was(&self) -> Arc<Self> {
        let again = Self::new(self.declaration(), self.core.clone());
        let module = self.inner.lock().module.clone();
        again.inner.lock().module = module;
        again
    }

    pub(super) fn adopt(&self) {
        self.inner.lock().candidate = false;
    }

    /// Forgets a candidate that is not wanted after all.
    pub(super) fn discard(&self) {
        let (object, owner) = self.take_object();
        drop(object);
        // one that was never configured has no number of its own
        if owner != BROKER_ITSELF {
            self.core.remove_owner(owner, "its declaration is not wanted");
        }
    }

    pub(super) fn declaration(&self) -> PluginDeclaration {
        self.declaration.read().clone()
    }

    /// Takes over where the same declaration stands now.
    pub(super) fn moved_to(&self, declaration: PluginDeclaration) {
        *self.declaration.write() = declaration;
    }

    /// Where a key of its table stands in the file.
    pub(super) fn place(&self, key: &str) -> Option<String> {
        self.declaration.read().place(key)
    }

    /// Loads the library, or takes what is linked in.
    pub(super) fn load(&self, libraries: &Libraries) -> Result<(), LibraryError> {
        let declaration = self.declaration();
        let module = match &declaration.source {
            PluginSource::Linked(plugin) => {
                let (name, version, about) = (plugin.name(), plugin.version(), plugin.about());
                let record = PluginRecord {
                    name: name.to_owned(),
                    version: version.to_owned(),
                    about: about.to_owned(),
                    requires: plugin.requires().to_owned(),
                    ..Default::default()
                };
                Module { root: plugin.module(), record, file: None }
            }
            PluginSource::Library(library) => {
                let config = declaration.config.to_string();
                let wanted = Wanted { library, instance: &self.name, config: &config };
                libraries.load(&wanted).inspect_err(|error| {
                    self.set(PluginState::Failed(error.to_string()));
                })?
            }
        };
        self.inner.lock().module = Some(module);
        self.set(PluginState::Loaded);
        Ok(())
    }

    /// What it is and what it requires.
    pub(super) fn needs(&self) -> Needs {
        let declaration = self.declaration();
        let inner = self.inner.lock();
        match &inner.module {
            Some(module) => Needs::new(&self.name, &module.record.name, &module.record.requires),
            None => Needs::unloaded(&self.name, declaration.code()),
        }
    }

    /// The name of its plugin; empty before it is loaded.
    fn plugin(&self) -> String {
        self.inner.lock().module.as_ref().map(|module| module.record.name.clone()).unwrap_or_default()
    }

    /// It hands access rules over: what they are known by.
    pub(super) fn sets_rules(&self) -> RuleSetter {
        self.sets_rules.store(true, Ordering::Relaxed);
        RuleSetter { instance: self.name.clone(), plugin: self.plugin() }
    }

    /// Whether it is what has set the rules, or has taken its place.
    pub(super) fn is_setter(&self, setter: &RuleSetter) -> bool {
        self.name == setter.instance && self.plugin() == setter.plugin
    }

    /// Whether it may set rules that replace these: it has tried, or is of the same plugin.
    pub(super) fn may_set_rules(&self, setter: &RuleSetter) -> bool {
        self.sets_rules.load(Ordering::Relaxed) || self.plugin() == setter.plugin
    }

    /// Creates the instance, which checks its table.
    pub(super) fn configure(self: &Arc<Self>) -> Result<(), PluginError> {
        let module = self.inner.lock().module.as_ref().map(|module| module.root);
        let module = module.ok_or_else(|| PluginError::new("its library is not loaded"))?;
        let owner = self.core.next_owner(&self.name);
        {
            let mut inner = self.inner.lock();
            (inner.owner, inner.is_gone) = (owner, false);
        }
        let bridge = Bridge::new(self.core.clone(), owner, Arc::downgrade(self));
        let host = RawHost_TO::from_ptr(RArc::new(bridge), TD_Opaque);
        let declaration = self.declaration();
        let flags = if matches!(declaration.source, PluginSource::Linked(_)) { CONTEXT_LINKED } else { 0 };
        let (config, name) = (declaration.config.to_string(), self.name.clone());
        let create = move || {
            let context =
                RawContext { flags, instance: name.as_str().into(), config: config.as_str().into() };
            module.create()(host, &context).into_result()
        };
        let created = self.callee().call(&self.core, Callback::Create, create);
        match created.unwrap_or_else(|late| Err(late.into_raw())) {
            Ok(object) => {
                self.inner.lock().object = Some(Arc::new(object));
                self.set(PluginState::Configured);
                Ok(())
            }
            Err(error) => Err(self.failed_to("configure", PluginError::from_raw(error))),
        }
    }

    /// Lets it take what it needs.
    pub(super) fn start(&self) -> Result<(), PluginError> {
        let object = self.object().ok_or_else(|| PluginError::new("it is not configured"))?;
        let started = self.callee().call(&self.core, Callback::Start, move || object.start().into_result());
        match started.unwrap_or_else(|late| Err(late.into_raw())) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed_to("start", PluginError::from_raw(error))),
        }
    }

    /// Lets it serve, after all have started. From now on it is started again where it fails.
    pub(super) fn serve(self: &Arc<Self>) {
        self.inner.lock().revival.serves(Instant::now());
        if let Some(object) = self.object() {
            if let Err(late) = self.callee().call(&self.core, Callback::Serve, move || object.serve()) {
                return self.fail(self.owner(), &late.message);
            }
            // unless it failed meanwhile
            if self.state() == PluginState::Configured {
                self.set(PluginState::Started);
            }
        }
    }

    /// Lets it read anew the files that its table names.
    pub(super) fn refresh(&self) -> Result<(), PluginError> {
        match self.object().filter(|_| self.state() == PluginState::Started) {
            Some(object) => {
                let refresh = move || object.refresh().into_result().map_err(PluginError::from_raw);
                self.callee().call(&self.core, Callback::Refresh, refresh)?
            }
            None => Ok(()),
        }
    }

    /// It is to be stopped, so a failure from now on is left alone.
    pub(super) fn retire(&self) {
        self.inner.lock().revival.end();
    }

    /// It could not be started again: that is tried once more later.
    pub(super) fn try_later(&self) {
        self.plan_revival(true);
    }

    /// When it is to be started again.
    pub(super) fn revival_due(&self) -> Option<Instant> {
        self.inner.lock().revival.due()
    }

    /// Whether it is to be started again now; counts it as done.
    pub(super) fn take_revival(&self) -> bool {
        self.inner.lock().revival.take(Instant::now())
    }

    /// `anyway`: also where it does not serve yet.
    fn plan_revival(&self, anyway: bool) {
        if self.declaration.read().restart == Restart::Never {
            return;
        }
        let pause = self.inner.lock().revival.failed(Instant::now(), anyway);
        if let Some(pause) = pause {
            tracing::info!(plugin = self.name, seconds = pause.as_secs(), "to be started again");
            self.core.failures.ring();
        }
    }

    /// Takes out what is to be stopped, and the number that what it has added is known by.
    pub(super) fn take_object(&self) -> (Option<Arc<InstanceObject>>, u32) {
        let mut inner = self.inner.lock();
        inner.is_gone = true;
        (inner.object.take(), inner.owner)
    }

    /// Marks it failed after a panic, and ends what it serves from a thread of its own: this is called from inside
    /// a callback, under whatever its caller holds.
    pub(super) fn fail(self: &Arc<Self>, owner: u32, why: &str) {
        tracing::error!(plugin = self.name, "failed: {why}");
        let object = {
            let mut inner = self.inner.lock();
            if inner.owner != owner {
                return; // of an earlier one, which is gone already
            }
            inner.is_gone = true;
            inner.object.take()
        };
        self.set(PluginState::Failed(why.to_owned()));
        self.plan_revival(false);
        let (core, why) = (self.core.clone(), format!("plugin {} failed", self.name));
        let body = move || {
            core.remove_owner(owner, &why);
            if let Some(object) = object {
                let milliseconds = FAILED_DEADLINE.as_millis() as u64;
                calls::other(owner, Callback::Stop, "the broker", || object.stop(milliseconds));
                std::mem::forget(object); // its Drop could wait for ever
            }
        };
        if let Err(error) = std::thread::Builder::new().name(format!("fail {}", self.name)).spawn(body) {
            tracing::error!(plugin = self.name, %error, "no thread to end its connections in");
        }
    }

    /// Its in-process clients have ended with the instance that offered them. One that is being stopped is left alone.
    pub(super) fn lost_clients(self: &Arc<Self>, owner: u32) {
        let serves = {
            let inner = self.inner.lock();
            inner.owner == owner && inner.object.is_some() && inner.state == PluginState::Started
        };
        if serves {
            self.fail(
                owner,
                "its in-process clients were disconnected: the plugin that offers them has stopped",
            );
        }
    }

    /// Whether it may add clients, methods, rules, ...: not once it was stopped or has failed, since nobody would take them
    /// back. A thread of it may go on, such as one in a start that was given up.
    pub(super) fn may_add(&self, owner: u32) -> bool {
        let inner = self.inner.lock();
        inner.owner == owner && !inner.is_gone && !matches!(inner.state, PluginState::Failed(_))
    }

    pub(crate) fn state(&self) -> PluginState {
        self.inner.lock().state.clone()
    }

    pub(crate) fn report(&self) -> PluginReport {
        let (state, module, restarts, due) = {
            let inner = self.inner.lock();
            let (restarts, due) = (inner.revival.restarts(), inner.revival.due());
            (inner.state.clone(), inner.module.clone(), restarts, due)
        };
        let record = module.as_ref().map(|module| &module.record);
        let plugin = record.map(|record| format!("{} {}", record.name, record.version)).unwrap_or_default();
        let build_id = record.map(|record| record.build_id.clone()).unwrap_or_default();
        let file = module.and_then(|module| module.file);
        let next_attempt = due.map(|due| due.saturating_duration_since(Instant::now()));
        let origin = match &self.declaration.read().source {
            PluginSource::Library(library) => library.clone(),
            PluginSource::Linked(_) => "linked in".to_owned(),
        };
        let status = self.last_status.ask(self.object(), &self.name, self.owner());
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

    /// The number it has now.
    pub(super) fn owner(&self) -> u32 {
        self.inner.lock().owner
    }

    /// Whether it has not answered yet how it is.
    pub(super) fn owes_status(&self) -> bool {
        self.object().is_some() && self.last_status.is_unanswered(self.owner())
    }

    fn callee(&self) -> Callee<'_> {
        let linked = matches!(self.declaration.read().source, PluginSource::Linked(_));
        Callee { name: &self.name, owner: self.owner(), linked }
    }

    /// One of its callbacks has lasted long.
    pub(super) fn count_slow_callback(&self) {
        self.slow_callbacks.fetch_add(1, Ordering::Relaxed);
    }

    fn object(&self) -> Option<Arc<InstanceObject>> {
        self.inner.lock().object.clone()
    }

    fn failed_to(&self, step: &str, error: PluginError) -> PluginError {
        self.set(PluginState::Failed(format!("could not {step}: {error}")));
        error
    }

    pub(super) fn set(&self, state: PluginState) {
        let word = match &state {
            PluginState::Failed(why) => format!("failed: {why}"),
            other => other.word().to_owned(),
        };
        let (before, candidate) = {
            let mut inner = self.inner.lock();
            (std::mem::replace(&mut inner.state, state.clone()), inner.candidate)
        };
        if before == state || candidate {
            return;
        }
        match (before, state) {
            (_, PluginState::Started) | (PluginState::Started, PluginState::Stopped) => {
                tracing::info!(plugin = self.name, "{word}");
            }
            _ => tracing::debug!(plugin = self.name, "{word}"),
        }
        self.core.router.events.note(EventKind::PluginState, &self.name, &word);
        self.core.router.events.tell();
    }
}
