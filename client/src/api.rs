//! The public types: the client, its builder, its frames, its subscriptions. Owns the meaning of operations;
//! `connection` connects, writes and reads.

pub(crate) mod builder;
pub(crate) mod client;
pub(crate) mod filters;
pub(crate) mod frames;
pub(crate) mod handler;
pub(crate) mod options;
pub(crate) mod subscription;
