//! The broker's own address on the bus: calls to `.broker` are answered from the table of control methods
//! (section 7 of the protocol).
//!
//! It owns the lifecycle of an instance. It has no methods of its own: the broker and other plugins add
//! theirs to the table.
#![deny(unsafe_code)]

mod broker_sink;
mod dispatcher;
mod job_queue;
mod reply_batch;
mod reply_sender;

use elbus_plugin_api::{BROKER_NAME, ClientInfo, Config, Host, Plugin, PluginError, PluginThread};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

use broker_sink::BrokerSink;
use dispatcher::{Dispatcher, JobClass};

/// The threads for methods that may block.
const JOB_CLASSES: [JobClass; 2] = [JobClass::Ordinary, JobClass::Admin];

/// The client `.broker`, and the threads for methods that may block.
pub struct Rpc {
    host: Host,
    dispatcher: Arc<Dispatcher>,
    running: Mutex<Vec<(JobClass, PluginThread)>>,
}

impl Plugin for Rpc {
    const ABOUT: &'static str = "answers calls to .broker from the table of control methods";

    fn create(host: Host, _: &Config) -> Result<Self, PluginError> {
        let dispatcher = Arc::new(Dispatcher::new(host.clone()));
        Ok(Rpc { host, dispatcher, running: Mutex::default() })
    }

    fn start(&self) -> Result<(), PluginError> {
        for class in JOB_CLASSES {
            let dispatcher = self.dispatcher.clone();
            let thread = self.host.spawn(move || dispatcher.work(class))?;
            self.running.lock().push((class, thread));
        }
        let info = ClientInfo::in_process().as_internal();
        let client = self
            .host
            .register(BROKER_NAME, &info, BrokerSink::new(self.dispatcher.clone()))
            .map_err(|code| PluginError::new(format!("cannot register {BROKER_NAME}: {code}")))?;
        self.dispatcher.open(client);
        Ok(())
    }

    fn stop(&self, deadline: Duration) {
        let in_a_method = JOB_CLASSES.map(|class| (class, self.dispatcher.end_work(class)));
        let running = std::mem::take(&mut *self.running.lock());
        // A method in progress is not waited for: it may be the one that requested this stop and waits for
        // it, on the thread in which the broker stops this plugin. It returns later, and its caller gets its
        // reply.
        for (class, thread) in running {
            if !in_a_method.contains(&(class, true)) && !thread.ended_within(deadline) {
                tracing::warn!(
                    ?class,
                    ?deadline,
                    "thread for slow methods has not ended within the deadline"
                );
            }
        }
        self.dispatcher.close();
    }
}

impl Drop for Rpc {
    /// Without a stop, the dispatcher and the broker would keep each other alive.
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

elbus_plugin_api::export_plugin!(Rpc);
