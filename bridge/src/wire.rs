//! The format of batches (docs/bridge-protocol.md, sections 2 and 3): headers, MACs, records.

mod decode;
mod encode;
mod header;
mod record;
#[cfg(test)]
mod tests;

pub use decode::next_record;
pub use encode::append_record;
pub(crate) use encode::{
    append_arrived, append_list, append_payload, append_results, append_windows, begin_run, end_run,
};
pub use header::{BatchError, BatchKey, BatchKind, Header, open};
pub use record::{Changes, ListPart, RECORD_HEAD_BYTES, Ranges, Record, Results, RunHead, Windows};
pub(crate) use record::{List, RUN_HEAD_BYTES};

/// The first two bytes of every batch.
pub const MAGIC: [u8; 2] = [0xEB, 0x42];
/// The version of the format that this crate supports: the third byte of every batch.
pub const VERSION: u8 = 1;
/// Length of the MAC at the end of every batch, in bytes.
pub const MAC_BYTES: usize = 16;
/// Longest name of a node or a bus, in bytes.
pub const MAX_NODE_NAME_BYTES: usize = 64;
/// Bytes of a header before the name of the node.
pub const HEADER_BYTES: usize = 45;
