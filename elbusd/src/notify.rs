//! Telling the service manager how the broker is, as sd_notify(3) has it: ready, reloading, stopping, alive. Hardly
//! waits for it, and goes on where it does not listen.

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

/// What a service manager that is busy gets to take a message.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who is told. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Notify(Option<Arc<(UnixDatagram, SocketAddr)>>);

impl Notify {
    /// To the socket of this name; to nobody where there is none.
    pub(crate) fn to(address: Option<OsString>) -> Self {
        let Some(address) = address else { return Notify(None) };
        let open = || {
            let address = match address.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(&address)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok::<_, std::io::Error>(Arc::new((socket, address)))
        };
        let opened =
            open().inspect_err(|error| tracing::warn!(?address, %error, "NOTIFY_SOCKET is of no use"));
        Notify(opened.ok())
    }

    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=reloading broker.toml"));
    }

    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=shutting down");
    }

    fn tell(&self, text: &str) {
        let Some(told) = &self.0 else { return };
        let (socket, address) = &**told;
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }

    /// Says every half of `limit` that the broker is alive, after it has proved to be: its registry, the runtimes of its
    /// transports and its plugins answer. While they do not, nothing is said but in the log, and the service manager ends
    /// the process.
    pub(crate) fn keep_alive(&self, broker: &Arc<Broker>, limit: Duration) {
        let (broker, notify) = (Arc::downgrade(broker), self.clone());
        let body = move || {
            let mut silent = false;
            while let Some(unresponsive) = ask(&broker, limit / 4) {
                match (unresponsive.is_empty(), silent) {
                    (true, _) => notify.tell("WATCHDOG=1"),
                    (false, false) => tracing::error!(
                        unresponsive = unresponsive.join(", "),
                        "no answer; the service manager is not told that the broker is alive"
                    ),
                    (false, true) => {}
                }
                if unresponsive.is_empty() && silent {
                    tracing::info!("all plugins answer again");
                }
                silent = !unresponsive.is_empty();
                std::thread::sleep(limit / 2);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("watchdog".to_owned()).spawn(body) {
            tracing::error!(%error, "no thread to tell the service manager that the broker is alive");
        }
    }
}

/// Who does not answer; `None` once the broker is gone. Does not return while its registry is locked.
fn ask(broker: &Weak<Broker>, patience: Duration) -> Option<Vec<String>> {
    let broker = broker.upgrade()?;
    let clients = broker.client_count();
    let unresponsive = broker.unresponsive(patience);
    tracing::trace!(clients, ?unresponsive, "asked for signs of life");
    Some(unresponsive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("elbusd-notify-{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (address, socket) in [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{name}").into(), UnixDatagram::bind_addr(&by_name).unwrap()),
        ] {
            let notify = Notify::to(Some(address));
            notify.ready("well");
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1\nSTATUS=well");
        }
        Notify::to(None).ready("nobody hears it");
        Notify::to(Some("/nowhere/at/all".into())).ready("nor this");
    }
}
