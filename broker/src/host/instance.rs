//! One instance of a plugin and its states: declared, loaded, configured, started, stopped, failed.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::{
    EventKind, PluginError, Status,
    abi::{CONTEXT_LINKED, InstanceObject, PluginRef, RawContext, RawHost_TO},
};
use parking_lot::{Mutex, RwLock};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use super::{
    bridge::Bridge,
    calling::{Callee, StatusCell},
    core::Core,
    inspect::PluginRecord,
    library::{Libraries, LibraryError},
    revival::Revival,
};
use crate::{
    access::RuleSetter,
    calls::{self, Callback},
    control::BROKER_ITSELF,
    declaration::{PluginDeclaration, PluginSource, Restart},
};

/// How long an instance may take beyond its deadline to stop before it is given up.
const GRACE: Duration = Duration::from_millis(500);
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
    core: Arc<Core>,
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
    module: Option<(PluginRef, PluginRecord)>,
    object: Option<Arc<InstanceObject>>,
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

    pub(super) fn adopt(&self) {
        self.inner.lock().candidate = false;
    }

    /// Forgets a candidate that is not wanted after all.
    pub(super) fn discard(&self) {
        let (object, owner) = {
            let mut inner = self.inner.lock();
            (inner.object.take(), inner.owner)
        };
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
        let source = self.declaration.read().source.clone();
        let module = match &source {
            PluginSource::Linked(plugin) => {
                let (name, version, about) = (plugin.name(), plugin.version(), plugin.about());
                let record = PluginRecord {
                    name: name.to_owned(),
                    version: version.to_owned(),
                    about: about.to_owned(),
                    ..Default::default()
                };
                (plugin.module(), record)
            }
            PluginSource::Library(library) => libraries.load(library).inspect_err(|error| {
                self.set(PluginState::Failed(error.to_string()));
            })?,
        };
        self.inner.lock().module = Some(module);
        self.set(PluginState::Loaded);
        Ok(())
    }

    /// The name of its plugin; empty before it is loaded.
    fn plugin(&self) -> String {
        self.inner.lock().module.as_ref().map(|(_, record)| record.name.clone()).unwrap_or_default()
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
        let module = self.inner.lock().module.as_ref().map(|(module, _)| *module);
        let module = module.ok_or_else(|| PluginError::new("its library is not loaded"))?;
        let owner = self.core.next_owner(&self.name);
        self.inner.lock().owner = owner;
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

    /// Stops it in a thread of its own and takes back what it has added. Returns what to wait for.
    pub(super) fn stop(self: &Arc<Self>, deadline: Duration, why: &str) -> Stop {
        let (object, owner) = {
            let mut inner = self.inner.lock();
            (inner.object.take(), inner.owner)
        };
        let (done, waiting) = mpsc::channel();
        let (core, reason) = (self.core.clone(), why.to_owned());
        let body = move || {
            if let Some(object) = object {
                let milliseconds = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                calls::other(owner, Callback::Stop, "the broker", || object.stop(milliseconds));
                core.remove_owner(owner, &reason);
                drop(object);
            }
            _ = done.send(());
        };
        let spawned = std::thread::Builder::new().name(format!("stop {}", self.name)).spawn(body);
        if let Err(error) = spawned {
            tracing::error!(plugin = self.name, %error, "no thread to stop it in");
        }
        Stop {
            instance: self.clone(),
            owner,
            why: why.to_owned(),
            waiting,
            limit: deadline + GRACE,
            until: Instant::now() + deadline + GRACE,
        }
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

    /// Whether it may register clients: not once it has failed.
    pub(super) fn may_register(&self, owner: u32) -> bool {
        let inner = self.inner.lock();
        inner.owner == owner && !matches!(inner.state, PluginState::Failed(_))
    }

    pub(crate) fn state(&self) -> PluginState {
        self.inner.lock().state.clone()
    }

    pub(crate) fn report(&self) -> PluginReport {
        let (state, plugin, restarts, due) = {
            let inner = self.inner.lock();
            let plugin =
                inner.module.as_ref().map(|(_, record)| format!("{} {}", record.name, record.version));
            let (restarts, due) = (inner.revival.restarts(), inner.revival.due());
            (inner.state.clone(), plugin.unwrap_or_default(), restarts, due)
        };
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

    fn set(&self, state: PluginState) {
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

/// A stop under way.
pub(super) struct Stop {
    instance: Arc<Instance>,
    owner: u32,
    why: String,
    waiting: mpsc::Receiver<()>,
    limit: Duration,
    until: Instant,
}

impl Stop {
    /// Waits until the instance has stopped, or gives it up.
    pub(super) fn wait(self) {
        // several that hang are given up at the same time
        match self.waiting.recv_timeout(self.until.saturating_duration_since(Instant::now())) {
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let why = format!("did not stop within {} ms", self.limit.as_millis());
                tracing::error!(plugin = self.instance.name, "{why}; given up");
                self.instance.core.remove_owner(self.owner, &self.why);
                self.instance.set(PluginState::Failed(why));
            }
            _ if matches!(self.instance.state(), PluginState::Failed(_)) => {}
            _ => self.instance.set(PluginState::Stopped),
        }
    }
}
