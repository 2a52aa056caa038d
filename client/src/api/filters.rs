//! One topic filter or several, as it comes. Owns nothing but the conversion.

/// One or more topic filters: `"a/+"`, `["a/+", "b/#"]`, a slice or a `Vec` of strings.
pub trait Filters {
    /// The filters.
    fn as_strs(&self) -> Vec<&str>;
}

impl Filters for &str {
    fn as_strs(&self) -> Vec<&str> {
        vec![self]
    }
}

impl Filters for &String {
    fn as_strs(&self) -> Vec<&str> {
        vec![self]
    }
}

impl Filters for String {
    fn as_strs(&self) -> Vec<&str> {
        vec![self]
    }
}

impl<S: AsRef<str>> Filters for &[S] {
    fn as_strs(&self) -> Vec<&str> {
        self.iter().map(AsRef::as_ref).collect()
    }
}

impl<S: AsRef<str>> Filters for Vec<S> {
    fn as_strs(&self) -> Vec<&str> {
        self.iter().map(AsRef::as_ref).collect()
    }
}

impl<S: AsRef<str>> Filters for &Vec<S> {
    fn as_strs(&self) -> Vec<&str> {
        self.iter().map(AsRef::as_ref).collect()
    }
}

impl<S: AsRef<str>, const N: usize> Filters for [S; N] {
    fn as_strs(&self) -> Vec<&str> {
        self.iter().map(AsRef::as_ref).collect()
    }
}

impl<S: AsRef<str>, const N: usize> Filters for &[S; N] {
    fn as_strs(&self) -> Vec<&str> {
        self.iter().map(AsRef::as_ref).collect()
    }
}
