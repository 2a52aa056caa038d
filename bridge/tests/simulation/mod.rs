//! Three bridges over a simulated engine in virtual time, and the account of what they have carried.

pub(crate) mod account;
pub(crate) mod engine;
pub(crate) mod node;
pub(crate) mod world;
