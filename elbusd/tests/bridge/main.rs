//! One bus over several brokers, as `elbusd` processes with the plugin `nats` and a real `nats-server`:
//! names, messages, topics, calls and acknowledgements across, and what happens if parts of it fail.
//!
//! Without the program `nats-server` these tests test nothing and say so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod back_pressure;
mod connections;
mod faults;
mod filters;
mod limits;
mod link_proxy;
mod logins;
mod messages;
mod mirror_limits;
mod mirrored;
mod namespaces;
mod nats_program;
mod network;
mod sample;
mod topics;
mod traffic;
