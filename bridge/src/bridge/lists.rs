//! Lists that nodes announce to each other: the own ones with their versions, and those of other nodes.

use crate::{
    filter::Intersections,
    settings::Limits,
    wire::{Changes, ListPart},
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    mem,
    sync::Arc,
};

/// What an announced list and its changes are limited to.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListLimits {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

impl ListLimits {
    pub(super) fn of_names(limits: &Limits) -> Self {
        ListLimits { count: limits.max_names, bytes: limits.max_names_bytes }
    }

    pub(super) fn of_filters(limits: &Limits) -> Self {
        ListLimits { count: limits.max_filters, bytes: limits.max_filters_bytes }
    }
}

/// The texts of a list.
#[derive(Debug, Default)]
struct Texts {
    all: HashSet<Arc<str>>,
    bytes: usize,
}

impl Texts {
    /// Adds a text. `None` if there would be too many, else whether it is new.
    fn add(&mut self, text: &str, limits: ListLimits) -> Option<bool> {
        if self.all.contains(text) {
            return Some(false);
        }
        if !self.fits(text, limits) {
            return None;
        }
        self.bytes += text.len();
        Some(self.all.insert(Arc::from(text)))
    }

    /// Returns whether there is room for a text.
    fn fits(&self, text: &str, limits: ListLimits) -> bool {
        self.all.len() < limits.count && self.bytes + text.len() <= limits.bytes
    }

    fn has(&self, text: &str) -> bool {
        self.all.contains(text)
    }

    fn remove(&mut self, text: &str) -> bool {
        let was_there = self.all.remove(text);
        if was_there {
            self.bytes -= text.len();
        }
        was_there
    }
}

/// A list that this node announces.
#[derive(Debug)]
pub(super) struct OwnList {
    texts: Texts,
    limits: ListLimits,
    version: u64,
    /// Texts that are not announced, because there are too many. Each stands for a local client.
    rest: BTreeSet<Arc<str>>,
}

impl OwnList {
    pub(super) fn new(limits: ListLimits) -> Self {
        OwnList { texts: Texts::default(), limits, version: 0, rest: BTreeSet::new() }
    }

    /// Adds a text. `None` if there would be too many, else whether the list has changed.
    pub(super) fn add(&mut self, text: &str) -> Option<bool> {
        let Some(is_new) = self.texts.add(text, self.limits) else {
            self.rest.insert(Arc::from(text));
            return None;
        };
        self.version += u64::from(is_new);
        Some(is_new)
    }

    /// Adds a text that did not fit before, if it does now. Returns it.
    pub(super) fn add_next(&mut self) -> Option<Arc<str>> {
        let next = self.rest.first().filter(|next| self.texts.fits(next, self.limits)).cloned()?;
        self.rest.remove(&next);
        self.add(&next).map(|_| next)
    }

    /// Removes a text. Returns whether the list has changed.
    pub(super) fn remove(&mut self, text: &str) -> bool {
        self.rest.remove(text);
        let was_there = self.texts.remove(text);
        self.version += u64::from(was_there);
        was_there
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Returns all texts: primaries before their secondaries.
    pub(super) fn sorted(&self) -> Vec<Arc<str>> {
        let mut all: Vec<_> = self.texts.all.iter().cloned().collect();
        all.sort_unstable();
        all
    }
}

/// A list that another node announces.
#[derive(Debug)]
pub(super) struct RemoteList {
    texts: Texts,
    limits: ListLimits,
    /// `None` until the first snapshot is complete.
    version: Option<u64>,
    /// A snapshot that is not complete.
    snapshot: Option<Texts>,
}

/// What has changed in a remote list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) added: Vec<Arc<str>>,
    pub(super) removed: Vec<Arc<str>>,
    /// Texts that were not accepted because there are too many.
    pub(super) over_limit: u64,
    /// Texts that were not accepted for other reasons.
    pub(super) invalid: u64,
}

impl RemoteList {
    pub(super) fn new(limits: ListLimits) -> Self {
        RemoteList { texts: Texts::default(), limits, version: None, snapshot: None }
    }

    pub(super) fn len(&self) -> usize {
        self.texts.all.len()
    }

    /// Applies changes. A delta of another version than the current one changes nothing: its sender knows
    /// that an earlier one was lost and sends a snapshot.
    pub(super) fn apply(&mut self, changes: &Changes<'_>, is_valid: impl Fn(&str) -> bool) -> Difference {
        let mut difference = Difference::default();
        if changes.part == ListPart::Delta {
            if self.version.is_none_or(|version| version.checked_add(1) != Some(changes.version)) {
                return difference;
            }
            self.version = Some(changes.version);
            self.apply_delta(changes, is_valid, &mut difference);
            return difference;
        }
        if changes.part.begins() {
            self.snapshot = Some(Texts::default());
        }
        let Some(mut snapshot) = self.snapshot.take() else { return difference };
        for (_, text) in changes.iter() {
            if !is_valid(text) {
                difference.invalid += 1;
            } else if snapshot.add(text, self.limits).is_none() {
                difference.over_limit += 1;
            }
        }
        if !changes.part.ends() {
            self.snapshot = Some(snapshot);
            return difference;
        }
        self.version = Some(changes.version);
        difference.removed.extend(self.texts.all.difference(&snapshot.all).cloned());
        difference.added.extend(snapshot.all.difference(&self.texts.all).cloned());
        difference.removed.sort_unstable();
        difference.added.sort_unstable();
        self.texts = snapshot;
        difference
    }
}

/// What a delta has done to one text.
#[derive(Debug, Clone, Copy)]
struct Touched {
    was_there: bool,
    was_removed: bool,
}

impl RemoteList {
    /// Applies a delta. A text that comes and goes, however often, is one difference: a removal if it was
    /// there, and an addition if it is there and was not, or was removed in between.
    fn apply_delta(
        &mut self,
        changes: &Changes<'_>,
        is_valid: impl Fn(&str) -> bool,
        difference: &mut Difference,
    ) {
        let mut touched: HashMap<&str, Touched> = HashMap::new();
        let mut order: Vec<&str> = Vec::new();
        for (is_added, text) in changes.iter() {
            if is_added && !is_valid(text) {
                difference.invalid += 1;
                continue;
            }
            let has_changed = match is_added {
                true => self.texts.add(text, self.limits),
                false => Some(self.texts.remove(text)),
            };
            match has_changed {
                None => difference.over_limit += 1,
                Some(false) => {}
                Some(true) => {
                    let state = touched.entry(text).or_insert_with(|| {
                        order.push(text);
                        Touched { was_there: !is_added, was_removed: false }
                    });
                    state.was_removed |= state.was_there && !is_added;
                }
            }
        }
        for text in order {
            let Some(state) = touched.get(text) else { continue };
            if state.was_removed {
                difference.removed.push(Arc::from(text));
            }
            if self.texts.all.contains(text) && (!state.was_there || state.was_removed) {
                difference.added.push(Arc::from(text));
            }
        }
    }

    /// Batches were lost: a snapshot that is not complete never will be. The sender sends it again.
    pub(super) fn interrupt(&mut self) {
        self.snapshot = None;
    }
}

/// The interest of the local clients, as it is announced.
#[derive(Debug)]
pub(super) struct OwnInterest {
    list: OwnList,
    /// What the local clients are subscribed to, as far as it is imported.
    wanted: Intersections,
    filters: HashMap<Box<str>, u64>,
    bytes: usize,
    limits: ListLimits,
    imports: Vec<String>,
    /// Subscriptions that are not in `filters`, because there were too many when they began.
    untracked: u64,
    /// Subscriptions at which it is worth counting all of them again.
    recount_at: u64,
    /// Whether the imports are announced as they are, because there is too much to announce.
    is_coarse: bool,
    /// Texts of `wanted` that have come or gone since the list was last adapted.
    touched: HashSet<String>,
}

impl OwnInterest {
    pub(super) fn new(limits: ListLimits, imports: &[String]) -> Self {
        // the imports themselves always fit
        let bytes = limits.bytes.max(imports.iter().map(String::len).sum());
        let limits = ListLimits { count: limits.count.max(imports.len()), bytes };
        OwnInterest {
            list: OwnList::new(limits),
            wanted: Intersections::new(imports),
            filters: HashMap::new(),
            bytes: 0,
            limits,
            imports: imports.to_vec(),
            untracked: 0,
            recount_at: u64::MAX,
            is_coarse: false,
            touched: HashSet::new(),
        }
    }

    pub(super) fn list(&self) -> &OwnList {
        &self.list
    }

    /// Adds a filter. Returns whether it is tracked by itself, or does not concern the imports.
    pub(super) fn add(&mut self, filter: &str) -> bool {
        if !self.wanted.concerns(filter) {
            return true;
        }
        if let Some(count) = self.filters.get_mut(filter) {
            *count += 1;
            return true;
        }
        if self.filters.len() >= self.limits.count || self.bytes + filter.len() > self.limits.bytes {
            self.untracked += 1;
            return false;
        }
        self.filters.insert(filter.into(), 1);
        self.bytes += filter.len();
        self.touched.extend(self.wanted.add(filter));
        true
    }

    /// Removes a filter.
    pub(super) fn remove(&mut self, filter: &str) {
        if !self.wanted.concerns(filter) {
            return;
        }
        match self.filters.get_mut(filter) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                self.filters.remove(filter);
                self.bytes -= filter.len();
                self.touched.extend(self.wanted.remove(filter));
            }
            None => self.untracked = self.untracked.saturating_sub(1),
        }
    }

    /// Returns whether all subscriptions may fit, although some are not tracked.
    pub(super) fn may_fit(&self) -> bool {
        let subscriptions = self.filters.len() as u64 + self.untracked;
        let room = (self.limits.count * 3 / 4) as u64;
        self.untracked > 0 && subscriptions <= room.min(self.recount_at)
    }

    /// Replaces all filters, as often as there are subscriptions.
    pub(super) fn replace<'f>(&mut self, filters: impl IntoIterator<Item = &'f str>) {
        self.wanted = Intersections::new(&self.imports);
        self.filters.clear();
        (self.bytes, self.untracked) = (0, 0);
        filters.into_iter().for_each(|filter| _ = self.add(filter));
        let subscriptions = self.filters.len() as u64 + self.untracked;
        self.recount_at = if self.untracked > 0 { subscriptions / 2 } else { u64::MAX };
    }

    /// Adapts the list to what is wanted now. Returns the changes of the list: removals first.
    pub(super) fn adapt(&mut self) -> Vec<(bool, String)> {
        let was_coarse = self.is_coarse;
        // back only with some room, so that a client at the limit does not change the whole list each time
        let ListLimits { count, bytes } = self.limits;
        let (count, bytes) = if was_coarse { (count * 3 / 4, bytes * 3 / 4) } else { (count, bytes) };
        self.is_coarse = self.untracked > 0 || !self.wanted.fits(count, bytes);
        let touched = mem::take(&mut self.touched);
        let changes = match (was_coarse, self.is_coarse) {
            (false, false) => self.changes_of(touched),
            (true, true) => Vec::new(),
            _ => self.all_changes(),
        };
        for (is_added, text) in &changes {
            if *is_added {
                self.list.texts.add(text, self.limits);
            } else {
                self.list.texts.remove(text);
            }
        }
        self.list.version += u64::from(!changes.is_empty());
        changes
    }

    /// Returns what distinguishes the list from what is wanted among these texts.
    fn changes_of(&self, touched: HashSet<String>) -> Vec<(bool, String)> {
        let changes = touched.into_iter().map(|text| (self.wanted.has(&text), text));
        let is_change = |(is_wanted, text): &(bool, String)| *is_wanted != self.list.texts.has(text);
        let mut changes: Vec<(bool, String)> = changes.filter(is_change).collect();
        changes.sort_unstable();
        changes
    }

    /// Returns what distinguishes the list from what is wanted: removals first.
    fn all_changes(&self) -> Vec<(bool, String)> {
        let wanted: HashSet<&str> = if self.is_coarse {
            self.imports.iter().map(String::as_str).collect()
        } else {
            self.wanted.iter().collect()
        };
        let removed = self.list.texts.all.iter().filter(|text| !wanted.contains(&***text));
        let mut changes: Vec<(bool, String)> = removed.map(|text| (false, text.to_string())).collect();
        let added = wanted.iter().filter(|text| !self.list.texts.all.contains(**text));
        changes.extend(added.map(|text| (true, (*text).to_owned())));
        changes.sort_unstable();
        changes
    }
}

#[cfg(test)]
mod tests;
