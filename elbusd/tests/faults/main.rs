//! The fault campaign: clients, networks and brokers that fail at any moment, with real sockets and `elbusd`
//! processes. Each case counts what was sent, acknowledged and received: nothing is lost, repeated or
//! reordered, and afterwards the broker uses no more resources than before.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod broker_restart;
mod call_floods;
mod child_process;
mod connection_floods;
mod crossing_filters;
mod damaged_library;
mod denied_frames;
mod dropped_connections;
mod fd_exhaustion;
mod fifo_access;
mod hostile_receiver;
mod hostile_sender;
mod killed_clients;
mod ledger;
mod name_takeover;
mod network_outage;
mod repeated_reloads;
mod ring_attacks;
mod ring_handovers;
mod silent_peers;
mod slow_readers;
mod unauthorised_kicks;
