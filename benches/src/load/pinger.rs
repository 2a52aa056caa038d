//! Pings for clients that only receive, as a broker disconnects clients that have been silent for some
//! seconds. Never pings for clients that send, because the bytes of two threads would mix.

use std::{
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use crate::{BoxError, driver::Connection};

const INTERVAL: Duration = Duration::from_secs(2);

/// Pings until it is dropped.
pub(super) struct Pinger {
    /// Dropping it ends the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pinger {
    pub(super) fn start(connections: Vec<Connection>, ping: &'static [u8]) -> Result<Self, BoxError> {
        if ping.is_empty() || connections.is_empty() {
            return Ok(Pinger { stop: None, thread: None });
        }
        let (stop, stopped) = channel();
        let ping_all = move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                for connection in &connections {
                    let _ = connection.send(ping); // the receiving thread reports a lost connection
                }
            }
        };
        let thread = std::thread::Builder::new().name("pinger".into()).spawn(ping_all)?;
        Ok(Pinger { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
