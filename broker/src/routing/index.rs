//! The data structures of the registry and of the caches of senders. They know numbers, filters and names,
//! but neither clients nor access rules.

pub(super) mod filter_tree;
mod hash_index;
pub(super) mod id_set;
mod label;
pub(super) mod mask;
pub(super) mod paged_slab;
pub(super) mod text_table;
