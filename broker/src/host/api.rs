//! The interface between the broker and its plugins: the host API of each instance, and the state behind it.

pub(crate) mod context;
pub(crate) mod host_impl;
pub(crate) mod inherited_listeners;
mod log;
mod workers;
