//! The control plane: one table of methods, whoever asks. The RPC plugin offers it on the bus, the FIFO and
//! the embedding program call the same.

mod authority;
mod explain;
mod expression;
mod standard;
mod table;

pub(crate) use explain::add_explain_method;
pub(crate) use standard::add_standard_methods;
pub(crate) use table::{
    BROKER_ITSELF, ControlTable, Handler, decode_params, encode_result, name_param, no_params, shown,
};
