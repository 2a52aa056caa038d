//! The task that writes while a socket is full. It exists only that long and waits on a second file
//! descriptor, so that the connection itself stays registered for reading only.

#[cfg(not(elbus_model))]
use elbus_socket::Socket;
use std::sync::Arc;

use crate::connection::Connection;

/// As the other, where it is not the system that says when there is room, but a schedule that tries it.
#[cfg(elbus_model)]
pub(crate) async fn write_until_empty(connection: Arc<Connection>) {
    while connection.continue_write().is_some() {
        shuttle::future::yield_now().await;
    }
}

/// Writes until the queue is empty or the connection has closed.
#[cfg(not(elbus_model))]
pub(crate) async fn write_until_empty(connection: Arc<Connection>) {
    let twin = {
        let mut out = connection.lock();
        let twin = out.socket().map(Socket::writable_twin);
        match twin {
            Some(Ok(twin)) => twin,
            Some(Err(error)) => {
                // out of file descriptors: housekeeping writes at its own rate meanwhile
                out.without_writer();
                drop(out);
                let client = connection.name();
                return tracing::debug!(client, %error, "no descriptor to wait with: writing slowly");
            }
            None => return,
        }
    };
    // fails only when the runtime ends
    while twin.writable().await.is_ok() {
        let mut finished = false;
        twin.while_writable(|| {
            let more = connection.continue_write();
            finished = more.is_none();
            more.unwrap_or(true)
        });
        if finished {
            return;
        }
    }
}
