//! Relations between topic filters, and counted intersections of two sets of them.

use std::collections::HashMap;

/// Returns whether some topic matches both filters. Reads both once and allocates nothing.
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (None, None) | (Some("#"), Some(_)) | (Some(_), Some("#")) => return true,
            (Some(a), Some(b)) if a == b || a == "+" || b == "+" => {}
            _ => return false,
        }
    }
}

/// Returns whether every topic that matches `inner` matches `outer` as well.
pub(crate) fn covers(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('/'), inner.split('/'));
    loop {
        match (outer.next(), inner.next()) {
            (None, None) | (Some("#"), Some(_)) => return true,
            (Some(_), Some("#")) => return false,
            (Some(a), Some(b)) if a == b || a == "+" => {}
            _ => return false,
        }
    }
}

/// The filters of a growing and shrinking set, as far as they overlap some fixed bounds. Of a filter and a
/// bound that overlap, the narrower one stands for both; if neither covers the other, the filter does.
#[derive(Debug)]
pub(crate) struct Intersections {
    bounds: Vec<String>,
    counts: HashMap<String, u32>,
    /// Of all texts.
    bytes: usize,
}

impl Intersections {
    pub(crate) fn new(bounds: &[String]) -> Self {
        let mut bounds = bounds.to_vec();
        bounds.sort_unstable();
        bounds.dedup();
        Intersections { bounds, counts: HashMap::new(), bytes: 0 }
    }

    /// Returns whether a filter overlaps a bound.
    pub(crate) fn concerns(&self, filter: &str) -> bool {
        self.bounds.iter().any(|bound| overlap(bound, filter))
    }

    /// Returns whether the texts are within limits of count and bytes.
    pub(crate) fn fits(&self, count: usize, bytes: usize) -> bool {
        self.counts.len() <= count && self.bytes <= bytes
    }

    /// Returns what stands for a filter, without repetitions.
    fn parts<'a>(&'a self, filter: &'a str) -> Vec<&'a str> {
        // bounds are different from each other; the filter itself can be one of them
        let (mut parts, mut has_filter): (Vec<&str>, bool) = (Vec::new(), false);
        for bound in self.bounds.iter().filter(|bound| overlap(bound, filter)) {
            if *bound != filter && covers(filter, bound) {
                parts.push(bound);
            } else if !std::mem::replace(&mut has_filter, true) {
                parts.push(filter);
            }
        }
        parts
    }

    /// Adds a filter. Returns the texts that are new.
    pub(crate) fn add(&mut self, filter: &str) -> Vec<String> {
        let parts: Vec<String> = self.parts(filter).into_iter().map(str::to_owned).collect();
        let mut added = Vec::new();
        for part in parts {
            let count = self.counts.entry(part.clone()).or_insert(0);
            *count += 1;
            if *count == 1 {
                self.bytes += part.len();
                added.push(part);
            }
        }
        added
    }

    /// Removes a filter that was added. Returns the texts that are not needed any more.
    pub(crate) fn remove(&mut self, filter: &str) -> Vec<String> {
        let parts: Vec<String> = self.parts(filter).into_iter().map(str::to_owned).collect();
        let mut removed = Vec::new();
        for part in parts {
            if let Some(count) = self.counts.get_mut(&part) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&part);
                    self.bytes -= part.len();
                    removed.push(part);
                }
            }
        }
        removed
    }

    /// Returns whether a text stands for one of the filters.
    pub(crate) fn has(&self, text: &str) -> bool {
        self.counts.contains_key(text)
    }

    /// Returns all texts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.counts.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests;
