//! What the tests of several crates share: a certificate authority, the notation of the conformance files,
//! the tests of the stream transports, a WebSocket client, one with rings, and attempts at tests that depend
//! on the machine. Only a dev-dependency, and
//! never published.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "for the tests of this repository")]
#![allow(clippy::unwrap_used, clippy::new_without_default, reason = "a test that cannot go on has failed")]

pub mod attempts;
pub mod authority;
pub mod notation;
pub mod rings;
pub mod stream;
pub mod websocket;
