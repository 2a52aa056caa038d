//! The lifecycle of instances: configured, started, stopped, reloaded, restarted after a failure.

mod bounded_call;
mod check;
pub(crate) mod control_methods;
mod instance;
pub(crate) mod metrics_method;
pub(crate) mod plugins;
pub(crate) mod reload;
pub(crate) mod report;
mod requirements;
mod restart_backoff;
mod status_query;
mod stop;
pub(crate) mod supervisor;
