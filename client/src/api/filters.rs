//! One topic filter or several. Owns the conversion only.

use std::{borrow::Cow, slice};

use crate::error::Error;

/// One or more topic filters: `"a/+"`, `["a/+", "b/#"]`, a slice or a `Vec` of strings, filters with
/// [`Options`](crate::Options), or a pair of these.
///
/// ```
/// use elbus_client::Filters;
/// assert_eq!(*"a/+".as_filters(), ["a/+"]);
/// assert_eq!(*["a/+", "b/#"].as_filters(), ["a/+", "b/#"]);
/// assert_eq!(*vec![String::from("a/+")].as_filters(), ["a/+"]);
/// ```
pub trait Filters {
    /// Returns the filters.
    fn as_filters(&self) -> Cow<'_, [&str]>;

    /// Returns the features that the broker must have, as its method `features` names them. The client checks
    /// them before it subscribes.
    ///
    /// # Errors
    /// [`Error::BadOptions`] if the filters are malformed.
    fn required_features(&self) -> Result<Cow<'_, [&'static str]>, Error> {
        Ok(Cow::Borrowed(&[]))
    }
}

fn borrowed<S: AsRef<str>>(filters: &[S]) -> Cow<'_, [&str]> {
    Cow::Owned(filters.iter().map(AsRef::as_ref).collect())
}

impl Filters for &str {
    fn as_filters(&self) -> Cow<'_, [&str]> {
        Cow::Borrowed(slice::from_ref(self))
    }
}

impl Filters for &String {
    fn as_filters(&self) -> Cow<'_, [&str]> {
        borrowed(slice::from_ref(*self))
    }
}

impl Filters for String {
    fn as_filters(&self) -> Cow<'_, [&str]> {
        borrowed(slice::from_ref(self))
    }
}

impl<S: AsRef<str>> Filters for &[S] {
    fn as_filters(&self) -> Cow<'_, [&str]> {
        borrowed(self)
    }
}

impl<S: AsRef<str>> Filters for Vec<S> {
    fn as_filters(&self) -> Cow<'_, [&str]> {
        borrowed(self)
    }
}

impl<S: AsRef<str>> Filters for &Vec<S> {
    fn as_filters(&self) -> Cow<'_, [&str]> {
        borrowed(self)
    }
}

impl<S: AsRef<str>, const N: usize> Filters for [S; N] {
    fn as_filters(&self) -> Cow<'_, [&str]> {
        borrowed(self)
    }
}

impl<S: AsRef<str>, const N: usize> Filters for &[S; N] {
    fn as_filters(&self) -> Cow<'_, [&str]> {
        borrowed(*self)
    }
}
