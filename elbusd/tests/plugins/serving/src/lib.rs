//! A plugin for tests: serves calls with a blocking in-process client, which is named after the instance, and
//! drains it before it stops. Its start waits for a publication to itself.

use elbus_client::{
    Call, Qos,
    blocking::{Client, Router, ServeHandle},
};
use elbus_plugin_api::{Config, Host, Plugin, PluginError};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Long enough that some calls are in flight at any time.
const WORK: Duration = Duration::from_millis(3);
/// Time limit for the publication, sufficient on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    host: Host,
    running: Mutex<Option<(Client, ServeHandle)>>,
}

impl Plugin for Server {
    const ABOUT: &'static str = "serves calls by an in-process client";
    const REQUIRES: &'static str = "elbus-inproc";

    fn create(host: Host, _: &Config) -> Result<Self, PluginError> {
        Ok(Server { host, running: Mutex::default() })
    }

    fn start(&self) -> Result<(), PluginError> {
        let failed = |error: elbus_client::Error| PluginError::new(error.to_string());
        let (client, frames) = Client::builder(self.host.instance())
            .queue_calls()
            .connect_in_process(&self.host)
            .map_err(failed)?;
        drop(frames);
        let topic = format!("started/{}", self.host.instance());
        let mut started = client.subscribe(topic.as_str()).map_err(failed)?;
        client.publish(&topic, "", Qos::PROCESSED).map_err(failed)?;
        let frame = started.next_timeout(PATIENCE).map_err(failed)?;
        if frame.topic() != topic {
            return Err(PluginError::new(format!("received {:?} instead of {topic:?}", frame.topic())));
        }
        let router = Router::new().raw("echo", |call: Call| {
            std::thread::sleep(WORK);
            Ok(call.params().clone())
        });
        let serving = client.serve(router).map_err(failed)?;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some((client, serving));
        Ok(())
    }

    fn stop(&self, _: Duration) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((client, serving)) = running {
            // both fail only on the blocking clients' own threads
            _ = serving.drain();
            _ = client.close();
        }
    }
}

elbus_plugin_api::export_plugin!(Server);
