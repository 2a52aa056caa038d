//! TLS for the byte streams of ELBUS: keys and certificates from files, the names in a certificate, and the
//! tunnel that carries a connection under TLS on as plain bytes.
//!
//! The transports and the client work on raw sockets. With TLS they get one end of a socket pair instead, and
//! a task copies between its other end and the connection. This crate knows nothing of the protocol, of a
//! broker, or of who may do what.
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

/// The cryptography, named wherever it is needed: a library that is loaded must not choose one for the whole
/// program.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
