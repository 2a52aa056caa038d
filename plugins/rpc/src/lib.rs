//! The broker's own address on the bus: calls to `.broker` are answered from the table of control methods
//! (section 7 of the protocol).
//!
//! It owns the life of an instance. It has no methods of its own: what can be asked is the broker's business and
//! that of the plugins that add to its table.
#![deny(unsafe_code)]

mod address;
mod desk;
mod outgoing;
mod replies;
mod worker;

use elbus_plugin_api::{BROKER_NAME, ClientInfo, Config, Host, Locality, Plugin, PluginError, PluginThread};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

use address::Address;
use desk::{Desk, Lane};

/// The threads for methods that may block.
const LANES: [Lane; 2] = [Lane::Ordinary, Lane::Admin];

/// The client `.broker`, and the threads for methods that may block.
pub struct Rpc {
    host: Host,
    desk: Arc<Desk>,
    running: Mutex<Vec<(Lane, PluginThread)>>,
}

impl Plugin for Rpc {
    const ABOUT: &'static str = "answers calls to .broker from the table of control methods";

    fn create(host: Host, _: &Config) -> Result<Self, PluginError> {
        let desk = Arc::new(Desk::new(host.clone()));
        Ok(Rpc { host, desk, running: Mutex::default() })
    }

    fn start(&self) -> Result<(), PluginError> {
        for lane in LANES {
            let desk = self.desk.clone();
            let thread = self.host.spawn(move || desk.work(lane))?;
            self.running.lock().push((lane, thread));
        }
        let (kind, locality) = ("internal".into(), Locality::InProcess);
        let info = ClientInfo { kind, locality, internal: true, ..Default::default() };
        let client = self
            .host
            .register(BROKER_NAME, &info, Address::new(self.desk.clone()))
            .map_err(|code| PluginError::new(format!("cannot register {BROKER_NAME}: {code}")))?;
        self.desk.open(client);
        Ok(())
    }

    fn stop(&self, deadline: Duration) {
        let in_a_method = LANES.map(|lane| (lane, self.desk.end_work(lane)));
        let running = std::mem::take(&mut *self.running.lock());
        // A method under way is not waited for: it may be the one that asks for this stop and waits for it, on
        // whatever thread the broker stops us. It ends by itself, and its caller gets its reply.
        for (lane, thread) in running {
            if !in_a_method.contains(&(lane, true)) && !thread.ended_within(deadline) {
                tracing::warn!(?lane, ?deadline, "a thread for slow methods is late to end");
            }
        }
        self.desk.close();
    }
}

impl Drop for Rpc {
    /// Without a stop the desk and the broker would hold each other for ever.
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

elbus_plugin_api::export_plugin!(Rpc);
