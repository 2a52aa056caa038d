//! What of the broker its plugins share, and what each of them has added to it.

use elbus_plugin_api::{QueueBudget, abi::ConnectorObject};
use parking_lot::{Mutex, RwLock};
use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, AtomicU32, Ordering},
};
use std::time::Duration;

use super::{bell::Bell, bridge::EMBEDDER, instance::Instance, listeners::Listeners, workers::Workers};
use crate::{
    calls,
    control::ControlTable,
    routing::{Router, RouterSettings},
    settings::BrokerSettings,
};

/// An operator who wants the broker to end fast does not want a reload to lose what is queued.
const MIN_STOP_LIMIT: Duration = Duration::from_secs(2);

/// What of the broker its plugins share.
pub(crate) struct Core {
    pub(crate) name: Arc<RwLock<String>>,
    pub(crate) router: Arc<Router>,
    pub(crate) control: Arc<ControlTable>,
    pub(crate) budget: QueueBudget,
    pub(crate) listeners: Listeners,
    /// Rung when an instance has failed, or all are stopped.
    pub(super) failures: Bell,
    connector: RwLock<Option<(u32, ConnectorObject)>>,
    pub(super) workers: Workers,
    /// Limits of callbacks, of starts and of stops.
    limits: RwLock<[Duration; 3]>,
    /// Set from outside, or once all plugins are to be stopped: nobody waits any more for plugins that do not return.
    interrupted: (Arc<AtomicBool>, AtomicBool),
    /// Instances that have taken the connector: their in-process clients end with it. Taken alone.
    connected: Mutex<Vec<(u32, Weak<Instance>)>>,
    /// All instances are being stopped for good.
    ending: AtomicBool,
}

impl Core {
    pub(crate) fn new(
        name: Arc<RwLock<String>>,
        router: Arc<Router>,
        control: Arc<ControlTable>,
        budget: QueueBudget,
        listeners: Listeners,
        settings: &BrokerSettings,
        interrupted: Arc<AtomicBool>,
    ) -> Arc<Self> {
        Arc::new(Core {
            name,
            router,
            control,
            budget,
            listeners,
            failures: Bell::default(),
            connector: RwLock::default(),
            limits: RwLock::new(limits(settings)),
            interrupted: (interrupted, AtomicBool::new(false)),
            workers: Workers::default(),
            connected: Mutex::default(),
            ending: AtomicBool::new(false),
        })
    }

    /// Puts other settings into force, but for the folders of plugins.
    pub(super) fn apply(&self, settings: &BrokerSettings) {
        self.name.write().clone_from(&settings.name);
        self.router.set_settings(RouterSettings::of(settings));
        self.router.holds.set(settings.holds());
        self.control.set_remote_admin(settings.remote_admin);
        self.budget.set_limit(settings.max_queued_bytes);
        *self.limits.write() = limits(settings);
    }

    /// How long a callback may take that must not block.
    pub(super) fn callback_limit(&self) -> Duration {
        self.limits.read()[0]
    }

    /// How long a plugin may take to be created or to start.
    pub(super) fn start_limit(&self) -> Duration {
        self.limits.read()[1]
    }

    /// How long a plugin may take to stop while the broker goes on: as when the broker ends, and at least 2 s.
    pub(super) fn stop_limit(&self) -> Duration {
        self.limits.read()[2]
    }

    /// Lets nobody wait any more for plugins that do not return.
    pub(super) fn interrupt(&self) {
        self.interrupted.1.store(true, Ordering::Release);
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.0.load(Ordering::Acquire) || self.interrupted.1.load(Ordering::Acquire)
    }

    /// A number for an instance that is created, unique in the process: whatever it adds is known by it, and by it
    /// taken back.
    pub(super) fn next_owner(&self, name: &str) -> u32 {
        static OWNERS: AtomicU32 = AtomicU32::new(EMBEDDER + 1);
        let owner = OWNERS.fetch_add(1, Ordering::Relaxed);
        calls::name_owner(owner, name);
        owner
    }

    /// Takes an offer of in-process clients.
    ///
    /// # Errors
    /// A sentence, where there is one already.
    pub(super) fn offer_connector(&self, owner: u32, connector: ConnectorObject) -> Result<(), &'static str> {
        let mut offered = self.connector.write();
        if offered.is_some() {
            return Err("another plugin offers in-process clients already");
        }
        *offered = Some((owner, connector));
        Ok(())
    }

    pub(super) fn connector(&self) -> Option<ConnectorObject> {
        self.connector.read().as_ref().map(|(_, connector)| connector.clone())
    }

    /// The connector for an instance, which is failed when the instance that offers it ends.
    pub(super) fn connector_for(&self, owner: u32, instance: &Weak<Instance>) -> Option<ConnectorObject> {
        let connector = self.connector()?;
        let mut connected = self.connected.lock();
        connected.retain(|(_, other)| other.strong_count() > 0);
        if instance.strong_count() > 0 && !connected.iter().any(|(other, _)| *other == owner) {
            connected.push((owner, instance.clone()));
        }
        Some(connector)
    }

    /// All instances are about to be stopped for good: none is failed because of another.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
    }

    /// Takes back everything an instance has added.
    pub(super) fn remove_owner(&self, owner: u32, why: &str) {
        self.router.evict_owner(owner, why);
        self.control.remove_owner(owner);
        self.router.events.remove_owner(owner);
        self.workers.remove_owner(owner);
        let mut connector = self.connector.write();
        let gone = connector.take_if(|(offered_by, _)| *offered_by == owner);
        drop(connector);
        if gone.is_some() {
            self.fail_connected();
        }
        drop(gone); // runs code of the plugin: outside the lock
    }

    /// Fails the instances whose in-process clients have ended with the instance that offered them: they are started again.
    fn fail_connected(&self) {
        let connected = std::mem::take(&mut *self.connected.lock());
        if self.ending.load(Ordering::SeqCst) {
            return;
        }
        for (owner, instance) in connected {
            if let Some(instance) = instance.upgrade() {
                instance.lost_clients(owner);
            }
        }
    }
}

fn limits(settings: &BrokerSettings) -> [Duration; 3] {
    let stop_limit = settings.shutdown().max(MIN_STOP_LIMIT);
    [settings.callback_limit(), settings.start_limit(), stop_limit]
}
