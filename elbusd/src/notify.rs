//! Notifies the service manager as in sd_notify(3): ready, reloading, stopping, watchdog. Waits for it for a
//! limited time only, and works without one.

use elbus_broker::Broker;
use rustix::time::{ClockId, clock_gettime};
use std::{
    ffi::OsString,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::{Arc, Weak},
    time::Duration,
};

/// Timeout for a message to a busy service manager.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends notifications to the service manager, if there is one. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct ServiceNotifier(Option<Arc<(UnixDatagram, SocketAddr)>>);

impl ServiceNotifier {
    /// Creates a notifier for the socket at this address. Without one, notifications are dropped.
    pub(crate) fn new(address: Option<OsString>) -> Self {
        let Some(address) = address else { return ServiceNotifier(None) };
        let open = || {
            let address = match address.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(&address)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(SEND_TIMEOUT))?;
            Ok::<_, std::io::Error>(Arc::new((socket, address)))
        };
        let opened =
            open().inspect_err(|error| tracing::warn!(?address, %error, "invalid NOTIFY_SOCKET; the service manager is not notified"));
        ServiceNotifier(opened.ok())
    }

    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=reloading broker.toml"));
    }

    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=shutting down");
    }

    fn send(&self, text: &str) {
        let Some(target) = &self.0 else { return };
        let (socket, address) = &**target;
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            tracing::debug!(%error, "service manager not notified");
        }
    }

    /// Starts the watchdog thread, which sends a keep-alive every half of `limit` if the registry, the
    /// runtimes of the transports and the plugins respond. While they do not, it only logs that, and the
    /// service manager ends the process after `limit`.
    pub(crate) fn keep_alive(&self, broker: &Arc<Broker>, limit: Duration) {
        let (broker, notify) = (Arc::downgrade(broker), self.clone());
        let body = move || {
            let mut suspended = false;
            while let Some(unresponsive) = unresponsive_parts(&broker, limit / 4) {
                match (unresponsive.is_empty(), suspended) {
                    (true, _) => notify.send("WATCHDOG=1"),
                    (false, false) => tracing::error!(
                        unresponsive = unresponsive.join(", "),
                        "plugins do not respond; watchdog notifications suspended"
                    ),
                    (false, true) => {}
                }
                if unresponsive.is_empty() && suspended {
                    tracing::info!("all plugins respond again; watchdog notifications resumed");
                }
                suspended = !unresponsive.is_empty();
                std::thread::sleep(limit / 2);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("watchdog".to_owned()).spawn(body) {
            tracing::error!(%error, "cannot start the watchdog thread; the service manager receives no keep-alives");
        }
    }
}

/// Returns what does not respond within `timeout`, or `None` once the broker is gone. Does not return while
/// the registry is locked.
fn unresponsive_parts(broker: &Weak<Broker>, timeout: Duration) -> Option<Vec<String>> {
    let broker = broker.upgrade()?;
    let clients = broker.client_count();
    let unresponsive = broker.unresponsive(timeout);
    tracing::trace!(clients, ?unresponsive, "liveness checked");
    Some(unresponsive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_arrive_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("elbusd-notify-{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (address, socket) in [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{name}").into(), UnixDatagram::bind_addr(&by_name).unwrap()),
        ] {
            let notify = ServiceNotifier::new(Some(address));
            notify.ready("well");
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1\nSTATUS=well");
        }
        ServiceNotifier::new(None).ready("dropped");
        ServiceNotifier::new(Some("/nowhere/at/all".into())).ready("dropped as well");
    }
}
