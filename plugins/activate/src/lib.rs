//! Services of ELBUS that are started when a client sends to them: the message waits until the service has
//! registered, and a service that does not come up has a reason.
//!
//! It owns the lifecycle of an instance. `services` answers the name resolver and does the work,
//! `service` decides, `process` has the processes. Messages are the broker's: none passes this plugin.
#![deny(unsafe_code)]

mod process;
mod service;
mod services;
mod settings;

use elbus_plugin_api::{
    Call, CallError, Config, Event, EventKind, Host, Method, Plugin, PluginError, PluginThread, Status,
    hooks::UnresolvedMessage,
};
use parking_lot::Mutex;
use serde::Deserialize;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use services::{Services, Task};
use settings::Settings;

/// The activation plugin.
pub struct Activate {
    host: Host,
    services: Arc<Services>,
    tasks: Mutex<Option<mpsc::Receiver<Task>>>,
    thread: Mutex<Option<PluginThread>>,
    stopping: Arc<AtomicBool>,
}

/// The parameters of `activate.status`.
#[derive(Deserialize)]
struct Query {
    name: String,
}

impl Plugin for Activate {
    const ABOUT: &'static str = "starts services when a client sends to them";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let definitions = config.read::<Settings>()?.check()?;
        let (services, tasks) = Services::new(definitions);
        let (tasks, thread) = (Mutex::new(Some(tasks)), Mutex::default());
        Ok(Activate { host, services, tasks, thread, stopping: Arc::default() })
    }

    fn start(&self) -> Result<(), PluginError> {
        self.services.adopt();
        let services = self.services.clone();
        self.host.add_listener(move |event: &Event<'_>| match event.kind {
            EventKind::ClientRegistered => services.registered(event.subject),
            EventKind::ClientLeft => services.left(event.subject),
            _ => {}
        });
        let services = self.services.clone();
        let method = Method::new("activate.status")
            .params("{name: str}")
            .about("the state of a service, and why it did not come up the last time")
            .query();
        self.host.add_method(&method, move |call: &Call<'_>| status(&services, call))?;
        if let Some(tasks) = self.tasks.lock().take() {
            let (services, stopping) = (self.services.clone(), self.stopping.clone());
            let work = move || services.work(&tasks, || stopping.load(Ordering::Acquire));
            *self.thread.lock() = Some(self.host.spawn(work)?);
        }
        let services = self.services.clone();
        let resolver = move |message: &UnresolvedMessage<'_>| services.resolve(message.target());
        let hook = self.host.add_resolver(self.services.names(), resolver)?;
        *self.services.hook.lock() = Some(Arc::new(hook));
        Ok(())
    }

    fn stop(&self, deadline: Duration) {
        self.stopping.store(true, Ordering::Release);
        let hook = self.services.hook.lock().take();
        drop(hook); // enters the broker: without the lock
        self.services.stop();
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| !thread.ended_within(deadline)) {
            tracing::warn!(?deadline, "thread that starts services does not end");
        }
    }

    fn status(&self) -> Status {
        Status::with_detail(format!("{} services", self.services.names().len()))
    }
}

fn status(services: &Services, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
    let Query { name } = rmp_serde::from_slice(call.params)
        .map_err(|error| CallError::unreadable_params("{name: str}", call.params, error))?;
    let status = services
        .status(&name)
        .ok_or_else(|| CallError::not_found(format!("no service {name:?} is configured")))?;
    rmp_serde::to_vec_named(&status).map_err(|error| CallError::internal(error.to_string()))
}

elbus_plugin_api::export_plugin!(Activate);
