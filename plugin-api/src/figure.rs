//! Figures of a plugin: what it counts and measures, for programs that monitor the broker.

use crate::abi::{FIGURE_COUNTER, FromRaw, IntoRaw, RawFigure, convert::sealed::Sealed};

/// Figures of one instance that the broker passes on; what exceeds this is left out.
pub const MAX_FIGURES: usize = 256;

/// A number that a plugin counts or measures, returned by [`Plugin::figures`](crate::Plugin::figures).
///
/// # Examples
/// ```
/// use elbus_plugin_api::Figure;
///
/// let refused = Figure::counter("refused_connections", 3.0).of("tls");
/// assert_eq!((&*refused.name, &*refused.of, refused.is_counter), ("refused_connections", "tls", true));
/// assert!(!Figure::gauge("connections", 12.0).is_counter);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Figure {
    /// What it is, in lower case, with the unit at the end if there is one: `stored_bytes`.
    pub name: String,
    /// The part that it is about, if there are several with the same name; else empty.
    pub of: String,
    /// Whether it never decreases while the instance runs.
    pub is_counter: bool,
    /// Its current value.
    pub value: f64,
}

impl Figure {
    /// Creates a figure that never decreases while the instance runs.
    pub fn counter(name: impl Into<String>, value: f64) -> Self {
        Figure { name: name.into(), of: String::new(), is_counter: true, value }
    }

    /// Creates a figure that can increase and decrease.
    pub fn gauge(name: impl Into<String>, value: f64) -> Self {
        Figure { name: name.into(), of: String::new(), is_counter: false, value }
    }

    /// Sets the part that it is about, such as a reason or a table.
    pub fn of(mut self, of: impl Into<String>) -> Self {
        self.of = of.into();
        self
    }
}

impl Sealed for Figure {}

impl IntoRaw for Figure {
    type Raw = RawFigure;

    fn into_raw(self) -> RawFigure {
        let flags = if self.is_counter { FIGURE_COUNTER } else { 0 };
        RawFigure { flags, name: self.name.into(), of: self.of.into(), value: self.value }
    }
}

impl FromRaw<RawFigure> for Figure {
    fn from_raw(raw: RawFigure) -> Self {
        let is_counter = raw.flags & FIGURE_COUNTER != 0;
        Figure { name: raw.name.into(), of: raw.of.into(), is_counter, value: raw.value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_cross_the_boundary_unchanged() {
        for figure in [Figure::counter("a", 1.5).of("b"), Figure::gauge("c", -2.0)] {
            assert_eq!(Figure::from_raw(figure.clone().into_raw()), figure);
        }
    }
}
