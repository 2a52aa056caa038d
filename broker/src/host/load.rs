//! From the name of a library to code that can be called: find, read, inspect, probe, map.

pub(crate) mod fatal_signals;
pub(crate) mod inspect;
mod layout_errors;
pub(crate) mod libraries;
mod library_file;
mod mapping;
pub(crate) mod probe;
