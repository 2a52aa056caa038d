//! Payload bytes as they cross the boundary: borrowed for a call, or shared by reference count.

use abi_stable::{
    StableAbi,
    sabi_trait::TD_Opaque,
    std_types::{RArc, RSlice, RVec},
};
use bytes::Bytes;
use std::{fmt, ops::Deref};

mod raw {
    //! The trait object behind [`SharedBytes`].
    #![allow(missing_docs, non_local_definitions, clippy::undocumented_unsafe_blocks, unused_qualifications)]

    use abi_stable::{sabi_trait, std_types::RSlice};

    /// Bytes owned by the library that allocated them.
    #[sabi_trait]
    pub trait RawBuffer: Send + Sync + Clone + 'static {
        #[sabi(last_prefix_field)]
        fn bytes(&self) -> RSlice<'_, u8>;
    }
}

pub use raw::{RawBuffer, RawBuffer_TO};

/// Size from which sharing a payload by reference count is cheaper than copying it.
pub const SHARE_FROM_BYTES: usize = 64 * 1024;

/// The bytes of one message, borrowed for a call.
///
/// # Examples
/// ```
/// use elbus_plugin_api::Payload;
///
/// let payload = Payload::from(&b"20.5"[..]);
/// assert_eq!(payload.bytes(), b"20.5");
/// ```
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct Payload<'a>(RSlice<'a, u8>);

impl<'a> Payload<'a> {
    /// Returns the bytes.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.0.as_slice()
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Self {
        Payload(RSlice::from_slice(bytes))
    }
}

impl Deref for Payload<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

/// Bytes that several owners share without copying, independent of the library that allocated them.
///
/// # Examples
/// ```
/// use elbus_plugin_api::SharedBytes;
///
/// let shared = SharedBytes::from(vec![7; 100_000]);
/// assert_eq!(shared.clone().as_ptr(), shared.as_ptr());
/// ```
#[repr(C)]
#[derive(StableAbi, Clone)]
pub struct SharedBytes {
    owner: RawBuffer_TO<RArc<()>>,
}

impl Deref for SharedBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.owner.bytes().as_slice()
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shared bytes", self.len())
    }
}

#[derive(Clone)]
struct BytesOwner(Bytes);

impl RawBuffer for BytesOwner {
    fn bytes(&self) -> RSlice<'_, u8> {
        RSlice::from_slice(&self.0)
    }
}

#[derive(Clone)]
struct VecOwner(RVec<u8>);

impl RawBuffer for VecOwner {
    fn bytes(&self) -> RSlice<'_, u8> {
        self.0.as_rslice()
    }
}

impl From<Bytes> for SharedBytes {
    fn from(bytes: Bytes) -> Self {
        SharedBytes { owner: RawBuffer_TO::from_ptr(RArc::new(BytesOwner(bytes)), TD_Opaque) }
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        SharedBytes { owner: RawBuffer_TO::from_ptr(RArc::new(VecOwner(bytes.into())), TD_Opaque) }
    }
}

impl From<SharedBytes> for Bytes {
    fn from(shared: SharedBytes) -> Self {
        Bytes::from_owner(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_bytes_are_not_copied() {
        let shared = SharedBytes::from(Bytes::from(vec![7; 100_000]));
        let address = shared.as_ptr();
        let back = Bytes::from(shared.clone());
        assert_eq!(back.len(), 100_000);
        assert_eq!(back.as_ptr(), address, "nothing was copied");
        drop(shared);
        assert!(back.iter().all(|b| *b == 7));
        let vec = SharedBytes::from(vec![1, 2, 3]);
        assert_eq!(vec.clone().as_ptr(), vec.as_ptr(), "a clone shares");
        assert_eq!(&*vec, &[1, 2, 3]);
    }
}
