//! The fault campaign: clients, networks and brokers that end in the middle of things, over real sockets against real
//! `elbusd` processes. Each case counts what was sent and acknowledged, and what arrived: none of it is lost, repeated or
//! reordered, and afterwards the broker uses what it used before.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

#[path = "../../../plugins/tcp/tests/authority/mod.rs"]
mod authority;
#[path = "../support/mod.rs"]
mod support;

mod account;
mod again;
mod connection_floods;
mod crossing;
mod damaged_library;
mod denied;
mod dropped;
mod exhausted;
mod fifo;
mod flooded;
mod hostile_receiver;
mod hostile_sender;
mod kicked;
mod killed;
mod readers;
mod reloaded;
mod restarted;
mod silent;
mod stolen;
mod torn;
