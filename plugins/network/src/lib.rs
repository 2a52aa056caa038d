//! Shared implementation of the transports that listen at network addresses: the addresses, the options of
//! their sockets, the table `tls` with its handshake, and the certificates of connected clients.
//!
//! It begins no session and knows no protocol: `tcp` and `elbus-http` decide what follows a handshake.
#![forbid(unsafe_code)]

mod addresses;
mod client_certificates;
mod eviction;
mod socket_options;
mod tls;

pub use addresses::Addresses;
pub use client_certificates::RegisteredCertificate;
pub use eviction::{EvictedFrom, Evictor, unless_evicted};
pub use socket_options::SocketOptions;
pub use tls::{Rejection, SecuredStream, Tls, TlsKeys, VerifiedChain};
