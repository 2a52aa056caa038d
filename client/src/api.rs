//! What users hold: the client, its frames and its subscriptions. Owns what an operation means; waiting, writing and
//! reading are elsewhere.

pub(crate) mod client;
pub(crate) mod filters;
pub(crate) mod frames;
pub(crate) mod subscription;
