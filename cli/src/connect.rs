//! How to connect to the broker, and why that failed. Never reads the command line.

use elbus_client::{Address, Client, ClientBuilder, Error, TlsConfig};
use elbus_protocol::address::default_sockets;
use std::{os::unix::fs::FileTypeExt, path::Path, time::Duration};

use crate::error::CliError;

/// How to connect to the broker.
#[derive(Debug, Clone)]
pub(crate) struct ConnectOptions {
    pub(crate) address: Address,
    /// TLS settings, if any were given.
    pub(crate) tls: Option<TlsConfig>,
    /// The name to register under.
    pub(crate) name: String,
    /// Timeout for connecting, for an acknowledgement and for the result of a call.
    pub(crate) timeout: Duration,
}

impl ConnectOptions {
    /// Returns a builder for a client called `name`.
    pub(crate) fn builder(&self, name: &str) -> ClientBuilder {
        let builder = Client::builder(name).timeout(self.timeout);
        match &self.tls {
            Some(tls) => builder.tls(tls.clone()),
            None => builder,
        }
    }

    /// Explains why there is no connection. If no address was given, lists every default socket with its
    /// error.
    pub(crate) fn explain(&self, error: Error) -> CliError {
        let (Address::Default(tried), Error::NoBroker { source, .. }) = (&self.address, &error) else {
            return error.into();
        };
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| Path::new(folder).is_dir());
        let mut sockets = default_sockets(runtime_dir.as_deref());
        if !sockets.contains(tried) {
            sockets.push(tried.clone());
        }
        let reasons = sockets.iter().map(|socket| {
            let reason = if socket == tried { source.to_string() } else { why_not_tried(socket) };
            format!("{} ({reason})", socket.display())
        });
        CliError::runtime(format!(
            "no broker at {}: start elbusd, or set its address with --addr or ELBUS_ADDR",
            reasons.collect::<Vec<_>>().join(", ")
        ))
    }
}

/// Returns why the client did not connect to this default socket.
fn why_not_tried(socket: &Path) -> String {
    match socket.metadata() {
        Err(error) => error.to_string(),
        Ok(file) if !file.file_type().is_socket() => "not a socket".to_owned(),
        Ok(_) => "not tried: an earlier socket exists".to_owned(),
    }
}
