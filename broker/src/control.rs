//! Control methods: one table for all callers. The `rpc` plugin offers it on the bus; FIFOs and the embedding
//! program call the same methods.

mod authorization;
mod bounded_regex;
mod core_methods;
mod explain;
pub(crate) mod params;
pub(crate) mod table;

pub(crate) use core_methods::add_core_methods;
pub(crate) use explain::add_explain_method;
pub(crate) use table::{ControlTable, Handler};
