//! TLS for the byte streams of ELBUS: keys and certificates from files, the names in a certificate, and the
//! tunnel that forwards a connection under TLS as plain bytes.
//!
//! The transports and the client work on raw sockets. With TLS they get one end of a socket pair instead, and
//! a task copies between its other end and the connection. This crate knows neither the protocol nor the
//! broker, and does not decide what a client may do.
#![forbid(unsafe_code)]

mod client;
mod files;
mod names;
mod server;
mod tunnel;

pub use client::{ClientFiles, Dialer, dial};
pub use files::{FileError, Part};
pub use names::certificate_names;
pub use server::{Acceptor, Chain, Demand, ServerFiles, Verified};
pub use tunnel::{Tunnel, tunnel};

use rustls::crypto::CryptoProvider;
use std::sync::Arc;
use tokio::net::TcpStream;

/// The stream of a client that has connected with TLS.
pub type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;

/// Returns the cryptography provider. It is passed explicitly because a loaded library must not choose one
/// for the whole process.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
