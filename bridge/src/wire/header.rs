//! Headers and MACs of batches (section 2).

use super::{HEADER_BYTES, MAC_BYTES, MAGIC, MAX_NODE_NAME_BYTES, VERSION};
use crate::settings::Settings;

/// What derives keys of batches from the key of a bus.
const CONTEXT: &str = "ELBUS bridge 1, MAC of batches to a destination";

/// What a batch is for: its fourth byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BatchKind {
    /// To all nodes: the sender exists.
    Beacon = 0,
    /// To one node: the sender wants a link.
    Hello = 1,
    /// To one node: the answer.
    Welcome = 2,
    /// To one node: records of a link.
    Link = 3,
}

impl BatchKind {
    fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            0 => BatchKind::Beacon,
            1 => BatchKind::Hello,
            2 => BatchKind::Welcome,
            3 => BatchKind::Link,
            _ => return None,
        })
    }
}

/// The header of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// What the batch is for.
    pub kind: BatchKind,
    /// Epoch of the sender.
    pub from_epoch: u64,
    /// Epoch of the destination; 0 if the sender does not know it.
    pub to_epoch: u64,
    /// Number of the session at the sender.
    pub from_session: u64,
    /// Number of the session at the destination; 0 if the sender does not know it.
    pub to_session: u64,
    /// Number of the batch within its session, from 1; 0 outside of links.
    pub sequence: u64,
    /// Name of the sending node.
    pub node: &'a str,
}

/// Why bytes are not a batch for this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchError {
    /// They are not a batch, or the MAC is wrong.
    Stranger,
    /// They are in another version of the format.
    Version {
        /// The version.
        version: u8,
    },
    /// The MAC is correct and the header is invalid.
    Malformed,
}

/// The key of batches to one destination.
#[derive(Clone)]
pub struct BatchKey([u8; 32]);

impl BatchKey {
    /// Derives the key of batches to a node; of batches to all nodes if it is `None`.
    pub fn new(settings: &Settings, node: Option<&str>) -> Self {
        let mut material = Vec::new();
        let parts = [settings.key.bytes(), settings.bus.as_bytes(), node.unwrap_or_default().as_bytes()];
        for part in parts {
            // a key has at most 4,096 bytes, a name 64
            material.extend_from_slice(&(part.len() as u32).to_le_bytes());
            material.extend_from_slice(part);
        }
        BatchKey(blake3::derive_key(CONTEXT, &material))
    }

    /// Returns the epoch after `epoch`, which nobody without the key can foresee. Never 0. What is hashed
    /// begins unlike a batch.
    pub(crate) fn next_epoch(&self, epoch: u64) -> u64 {
        let mut material = b"next epoch".to_vec();
        material.extend_from_slice(&epoch.to_le_bytes());
        let hash = blake3::keyed_hash(&self.0, &material);
        hash.as_bytes().first_chunk().map_or(1, |bytes| u64::from_le_bytes(*bytes).max(1))
    }

    fn mac(&self, bytes: &[u8]) -> [u8; MAC_BYTES] {
        let hash = blake3::keyed_hash(&self.0, bytes);
        hash.as_bytes().first_chunk().copied().unwrap_or_default()
    }
}

impl std::fmt::Debug for BatchKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BatchKey")
    }
}

impl Header<'_> {
    /// Returns the length of a header with the name of a node.
    pub(crate) fn len(node: &str) -> usize {
        HEADER_BYTES + node.len()
    }

    /// Writes the header to the beginning of `batch`, where `len` bytes were reserved for it,
    /// and appends the MAC.
    pub fn seal(&self, batch: &mut Vec<u8>, key: &BatchKey) {
        let len = Self::len(self.node);
        if batch.len() < len {
            batch.resize(len, 0);
        }
        let mut head = Vec::with_capacity(len);
        head.extend_from_slice(&MAGIC);
        head.push(VERSION);
        head.push(self.kind as u8);
        head.extend_from_slice(&self.from_epoch.to_le_bytes());
        head.extend_from_slice(&self.to_epoch.to_le_bytes());
        head.extend_from_slice(&self.from_session.to_le_bytes());
        head.extend_from_slice(&self.to_session.to_le_bytes());
        head.extend_from_slice(&self.sequence.to_le_bytes());
        head.push(self.node.len() as u8);
        head.extend_from_slice(self.node.as_bytes());
        if let Some(room) = batch.get_mut(..head.len()) {
            room.copy_from_slice(&head);
        }
        let mac = key.mac(batch);
        batch.extend_from_slice(&mac);
    }
}

/// Verifies a batch and parses its header. With it comes what is between header and MAC: the records.
///
/// # Errors
/// The bytes are not a batch for the destination of the key.
pub fn open<'a>(batch: &'a [u8], key: &BatchKey) -> Result<(Header<'a>, &'a [u8]), BatchError> {
    let rest = batch.strip_prefix(&MAGIC).ok_or(BatchError::Stranger)?;
    let (version, _) = rest.split_first().ok_or(BatchError::Stranger)?;
    if *version != VERSION {
        return Err(BatchError::Version { version: *version });
    }
    let (signed, mac) = batch.split_last_chunk::<MAC_BYTES>().ok_or(BatchError::Stranger)?;
    if signed.len() < HEADER_BYTES {
        return Err(BatchError::Stranger);
    }
    // in constant time: a stranger learns nothing about the MAC
    let difference = key.mac(signed).iter().zip(mac).fold(0, |all, (own, its)| all | (own ^ its));
    if std::hint::black_box(difference) != 0 {
        return Err(BatchError::Stranger);
    }
    let mut fields = Fields(signed.get(3..).unwrap_or_default());
    parse(&mut fields).map(|header| (header, fields.0)).ok_or(BatchError::Malformed)
}

fn parse<'a>(fields: &mut Fields<'a>) -> Option<Header<'a>> {
    let header = Header {
        kind: BatchKind::from_wire(fields.u8()?)?,
        from_epoch: fields.u64()?,
        to_epoch: fields.u64()?,
        from_session: fields.u64()?,
        to_session: fields.u64()?,
        sequence: fields.u64()?,
        node: {
            let len = usize::from(fields.u8()?);
            std::str::from_utf8(fields.bytes(len)?).ok()?
        },
    };
    let is_valid = header.from_epoch != 0
        && header.node.len() <= MAX_NODE_NAME_BYTES
        && crate::names::check_node_name(header.node).is_ok();
    is_valid.then_some(header)
}

/// Reads integers and bytes from the beginning of a slice.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    #[inline]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
