//! The plugin host: loads libraries, takes instances of plugins through their lifecycle, provides their host
//! API, and watches their callbacks. Knows no plugin by name.

pub(crate) mod api;
pub(crate) mod lifecycle;
pub(crate) mod load;
mod wake_signal;
pub(crate) mod watch;
