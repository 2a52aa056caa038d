//! What `elbusd` sets for its own process: allocator, ignored signals, file descriptors, wake-up latency, and
//! what the service manager passes. The broker library does none of it, since an embedding program decides
//! that for itself.

pub(crate) mod allocator;
pub(crate) mod cpu_latency;
mod ignored_signals;
mod inherited_descriptors;
mod service_environment;

use elbus_broker::ProgramSettings;
use elbus_plugin_api::{PluginError, config::check_range};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Deserialize;

pub(crate) use ignored_signals::ignore_signals;
pub(crate) use inherited_descriptors::close_inherited_on_exec;
pub(crate) use service_environment::ServiceEnvironment;

/// No processor has a sleep state with a longer wake-up time.
const MAX_CPU_LATENCY_US: u32 = 1_000_000;

/// The keys of `[broker]` that concern the process.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ProcessSettings {
    /// The longest wake-up time of processors, in microseconds; 0 prevents all sleep states.
    pub(crate) cpu_latency_us: Option<u32>,
}

impl ProgramSettings for ProcessSettings {
    fn check(&self) -> Result<(), PluginError> {
        let in_range = |microseconds| check_range("cpu_latency_us", microseconds, ..=MAX_CPU_LATENCY_US);
        self.cpu_latency_us.map_or(Ok(()), in_range)
    }
}

/// Raises the soft limit of file descriptors to the hard one. Each connection needs one, and the soft limit
/// is kept low for programs that use select(2), which this one does not.
pub(crate) fn raise_fd_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(?current, ?maximum, "file descriptor limit raised"),
        Err(error) => tracing::warn!(?current, ?maximum, %error, "file descriptor limit not raised"),
    }
}
