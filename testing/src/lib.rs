//! What the tests of several crates share: a certificate authority, and the tests of the stream transports.
//! Only a dev-dependency, and never published.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "for the tests of this repository")]
#![allow(clippy::unwrap_used, clippy::new_without_default, reason = "a test that cannot go on has failed")]

pub mod authority;
pub mod stream;
