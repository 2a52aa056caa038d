//! What users hold: the client, its builder, its frames, its subscriptions. Owns the meaning of operations;
//! connecting, writing and reading are in `connection`.

pub(crate) mod builder;
pub(crate) mod client;
pub(crate) mod filters;
pub(crate) mod frames;
pub(crate) mod handler;
pub(crate) mod subscription;
