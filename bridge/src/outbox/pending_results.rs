//! Acknowledgements that wait for results of the far broker.

use elbus_protocol::Code;
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// The pending acknowledgements of an outbox, by their references.
#[derive(Debug)]
pub(super) struct PendingResults<C> {
    pending: HashMap<u64, Pending<C>, RandomState>,
    next_reference: u64,
}

#[derive(Debug)]
struct Pending<C> {
    completion: C,
    /// Records that the run travels in.
    parts: u32,
    /// Those of them without a result.
    left: u32,
    /// `None` before the first result.
    code: Option<Code>,
}

impl<C> PendingResults<C> {
    pub(super) fn new() -> Self {
        PendingResults { pending: HashMap::default(), next_reference: 1 }
    }

    /// Returns the number of the next reference.
    pub(super) fn next_reference(&self) -> u64 {
        self.next_reference
    }

    /// Adds an acknowledgement under the next reference. `parts` is the number of records of its run.
    pub(super) fn add(&mut self, completion: C, parts: u32) {
        self.pending.insert(self.next_reference, Pending { completion, parts, left: parts, code: None });
        self.next_reference += 1;
    }

    /// Notes the result of a record. Returns whether something waited for it.
    pub(super) fn result(&mut self, reference: u64, code: Code, completed: &mut Vec<(C, Code)>) -> bool {
        if reference == 0 {
            return true;
        }
        let Some(pending) = self.pending.get_mut(&reference) else { return false };
        pending.left -= 1;
        match pending.code {
            None => pending.code = Some(code),
            // some of its messages were delivered and others were not
            Some(other) if other != code => pending.code = Some(Code::Timeout),
            Some(_) => {}
        }
        if pending.left == 0
            && let Some(pending) = self.pending.remove(&reference)
        {
            completed.push((pending.completion, pending.code.unwrap_or(code)));
        }
        true
    }

    /// Notes results that have arrived. Returns how many nothing waited for.
    pub(super) fn results(
        &mut self,
        results: impl Iterator<Item = (u64, Code)>,
        completed: &mut Vec<(C, Code)>,
    ) -> u64 {
        let mut unknown = 0;
        for (reference, code) in results {
            unknown += u64::from(reference == 0 || !self.result(reference, code, completed));
        }
        unknown
    }

    /// Ends waiting for references below `upto`.
    pub(super) fn time_out(&mut self, upto: u64, completed: &mut Vec<(C, Code)>) {
        let late = self.pending.extract_if(|reference, _| *reference < upto);
        completed.extend(late.map(|(_, pending)| (pending.completion, Code::Timeout)));
    }

    /// Ends waiting for all. `unsent` has how many records of each reference were never published.
    pub(super) fn end(&mut self, unsent: &HashMap<u64, u32>) -> Vec<(C, Code)> {
        let completed = std::mem::take(&mut self.pending).into_iter().map(|(reference, pending)| {
            // what was not published at all cannot have been delivered
            let is_unsent = unsent.get(&reference) == Some(&pending.parts);
            let code = if is_unsent { Code::NotRegistered } else { Code::Timeout };
            (pending.completion, code)
        });
        let mut completed: Vec<_> = completed.collect();
        completed.shrink_to_fit();
        completed
    }
}
