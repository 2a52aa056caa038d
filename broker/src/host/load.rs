//! Loads libraries: finds, reads, inspects, probes and maps them.

pub(crate) mod fatal_signals;
pub(crate) mod inspect;
mod layout_errors;
pub(crate) mod libraries;
mod library_file;
mod mapping;
pub(crate) mod probe;
