//! The state of the broker that all its plugins share, and what each plugin has registered.

use elbus_plugin_api::{
    QueueBudget,
    abi::{ConnectorObject, set_queue_limit},
};
use parking_lot::{Mutex, RwLock};
use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{inherited_listeners::InheritedListeners, workers::Workers};
use crate::{
    access::RuleSetter,
    callbacks,
    control::ControlTable,
    hooks::HookOwner,
    host::{wake_signal::WakeSignal, watch::name_wait_timer::NameWaitTimer},
    routing::{Router, RouterSettings},
    settings::BrokerSettings,
};

/// Minimum time that a stop or reload of one plugin leaves for draining its queues: a short
/// `shutdown_seconds` is meant for the end of the broker.
const MIN_STOP_LIMIT: Duration = Duration::from_secs(2);

/// The owner of everything that the embedding program registers.
pub(crate) const EMBEDDER: u32 = 1;

/// An instance of a plugin, as its host API uses it. An instance gets a new owner number each time it is
/// created: calls with a previous number are ignored.
pub(crate) trait HostedInstance: Send + Sync {
    /// Returns the name of the instance.
    fn name(&self) -> &str;
    /// Returns whether the instance may register clients, methods or rules: not once it was stopped or has
    /// failed.
    fn may_add(&self, owner: u32) -> bool;
    /// Records that the instance sets access rules, and returns its identity as their source.
    fn rule_setter(&self) -> RuleSetter;
    /// Marks the instance failed and stops its service, in a thread of its own.
    fn fail(self: Arc<Self>, owner: u32, reason: &str);
    /// Returns the instance as the owner of hooks, or why it cannot have any now.
    fn hook_owner(&self, owner: u32) -> Result<HookOwner, &'static str>;
    /// Fails the instance because the connector that it uses has ended, unless it is being stopped.
    fn connector_ended(self: Arc<Self>, owner: u32);
}

/// The state of the broker that its plugins share.
pub(crate) struct BrokerContext {
    pub(crate) name: Arc<RwLock<String>>,
    pub(crate) router: Arc<Router>,
    pub(crate) control: Arc<ControlTable>,
    pub(crate) budget: QueueBudget,
    pub(crate) listeners: InheritedListeners,
    /// Wakes the supervisor: an instance has failed, or all are stopped.
    pub(crate) failures: WakeSignal,
    connector: RwLock<Option<(u32, ConnectorObject)>>,
    pub(crate) workers: Workers,
    pub(crate) name_waits: NameWaitTimer,
    /// Time limits of callbacks, starts and stops.
    limits: RwLock<[Duration; 3]>,
    /// Set from outside, or when all plugins are stopped: plugins that do not return are then abandoned.
    interrupted: (Arc<AtomicBool>, AtomicBool),
    /// Instances that use the connector: their in-process clients end with it. Locked alone.
    connected: Mutex<Vec<(u32, Weak<dyn HostedInstance>)>>,
    /// All instances are being stopped permanently.
    ending: AtomicBool,
}

impl BrokerContext {
    pub(crate) fn new(
        name: Arc<RwLock<String>>,
        router: Arc<Router>,
        control: Arc<ControlTable>,
        budget: QueueBudget,
        listeners: InheritedListeners,
        settings: &BrokerSettings,
        interrupted: Arc<AtomicBool>,
    ) -> Arc<Self> {
        Arc::new(BrokerContext {
            name,
            router,
            control,
            budget,
            listeners,
            failures: WakeSignal::default(),
            connector: RwLock::default(),
            limits: RwLock::new(limits(settings)),
            interrupted: (interrupted, AtomicBool::new(false)),
            workers: Workers::default(),
            name_waits: NameWaitTimer::default(),
            connected: Mutex::default(),
            ending: AtomicBool::new(false),
        })
    }

    /// Applies new settings, except for the folders of plugins.
    pub(crate) fn apply(&self, settings: &BrokerSettings) {
        self.name.write().clone_from(&settings.name);
        self.router.set_settings(RouterSettings::of(settings));
        self.router.holds.set(settings.holds());
        self.control.set_remote_admin(settings.remote_admin);
        set_queue_limit(&self.budget, settings.max_queued_bytes);
        *self.limits.write() = limits(settings);
    }

    /// Returns the time limit of a callback that must not block.
    pub(crate) fn callback_limit(&self) -> Duration {
        self.limits.read()[0]
    }

    /// Returns the time limit for creating and starting a plugin.
    pub(crate) fn start_limit(&self) -> Duration {
        self.limits.read()[1]
    }

    /// Returns the time limit for stopping a plugin while the broker continues: that of the broker's end, but
    /// at least 2 s.
    pub(crate) fn stop_limit(&self) -> Duration {
        self.limits.read()[2]
    }

    /// Abandons plugins that do not return, from now on.
    pub(crate) fn interrupt(&self) {
        self.interrupted.1.store(true, Ordering::Release);
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.0.load(Ordering::Acquire) || self.interrupted.1.load(Ordering::Acquire)
    }

    /// Returns the owner number for an instance that is being created, unique in the process. Everything that
    /// the instance registers is registered and removed under this number.
    pub(crate) fn next_owner(&self, name: &str) -> u32 {
        static OWNERS: AtomicU32 = AtomicU32::new(EMBEDDER + 1);
        let owner = OWNERS.fetch_add(1, Ordering::Relaxed);
        callbacks::set_owner_name(owner, name);
        owner
    }

    /// Registers the connector for in-process clients.
    ///
    /// # Errors
    /// A connector is registered already.
    pub(crate) fn offer_connector(&self, owner: u32, connector: ConnectorObject) -> Result<(), &'static str> {
        let mut offered = self.connector.write();
        if offered.is_some() {
            return Err("another plugin offers in-process clients already");
        }
        *offered = Some((owner, connector));
        Ok(())
    }

    /// Returns the connector, if a plugin offers one.
    pub(crate) fn connector(&self) -> Option<ConnectorObject> {
        self.connector.read().as_ref().map(|(_, connector)| connector.clone())
    }

    /// Returns the connector for an instance, which fails when the connector ends.
    pub(crate) fn connector_for(
        &self,
        owner: u32,
        instance: &Weak<dyn HostedInstance>,
    ) -> Option<ConnectorObject> {
        let connector = self.connector()?;
        let mut connected = self.connected.lock();
        connected.retain(|(_, other)| other.strong_count() > 0);
        if instance.strong_count() > 0 && !connected.iter().any(|(other, _)| *other == owner) {
            connected.push((owner, instance.clone()));
        }
        Some(connector)
    }

    /// Records that all instances are about to be stopped permanently: none fails because of another.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
    }

    /// Removes everything that an instance has registered.
    pub(crate) fn remove_owner(&self, owner: u32, reason: &str) {
        self.router.evict_owner(owner, reason);
        self.control.remove_owner(owner);
        self.router.events.remove_owner(owner);
        self.router.remove_hooks_of(owner, !self.ending.load(Ordering::SeqCst));
        self.workers.remove_owner(owner);
        let mut connector = self.connector.write();
        let removed = connector.take_if(|(offered_by, _)| *offered_by == owner);
        drop(connector);
        if removed.is_some() {
            self.fail_connected();
        }
        drop(removed); // runs code of the plugin: outside the lock
    }

    /// Fails the instances whose in-process clients have ended with the connector, so that they are
    /// restarted.
    fn fail_connected(&self) {
        let connected = std::mem::take(&mut *self.connected.lock());
        if self.ending.load(Ordering::SeqCst) {
            return;
        }
        for (owner, instance) in connected {
            if let Some(instance) = instance.upgrade() {
                instance.connector_ended(owner);
            }
        }
    }
}

fn limits(settings: &BrokerSettings) -> [Duration; 3] {
    let stop_limit = settings.shutdown().max(MIN_STOP_LIMIT);
    [settings.callback_limit(), settings.start_limit(), stop_limit]
}
