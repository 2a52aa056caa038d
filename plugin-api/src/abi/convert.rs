//! Conversions between the types that authors use and those that cross the boundary, for the broker and its
//! tests. Each type implements them in its own file; no other crate can.

/// Conversion from what crossed the boundary.
pub trait FromRaw<R>: sealed::Sealed {
    fn from_raw(raw: R) -> Self;
}

/// Conversion into what crosses the boundary.
pub trait IntoRaw: sealed::Sealed {
    type Raw;
    fn into_raw(self) -> Self::Raw;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}
