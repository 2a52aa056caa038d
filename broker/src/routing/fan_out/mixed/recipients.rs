//! The recipients of the current mixed run, and which of its frames each of them gets. Their memory is kept
//! by the thread.

use std::{cell::Cell, sync::Arc};

use crate::routing::{mixed_targets::Receiver, registered_client::RegisteredClient};

/// The most recipients of a mixed run. A frame with more of them is dispatched alone.
pub(super) const MAX_RECIPIENTS: usize = 256;
/// [`Receiver::place`] of a client that has left.
const LEFT: u32 = u32::MAX;

thread_local! {
    /// Taken out while a mixed run is dispatched, because a sink may dispatch itself.
    static RECIPIENTS: Cell<Option<Vec<Recipient>>> = const { Cell::new(None) };
}

/// A recipient of a mixed run.
#[derive(Default)]
pub(super) struct Recipient {
    pub(super) client: Option<Arc<RegisteredClient>>,
    /// Indices of its frames, ascending.
    pub(super) selected: Vec<u32>,
    /// Length of their tails.
    pub(super) tail_bytes: usize,
    /// Length of their bodies.
    pub(super) body_bytes: usize,
    pub(super) outcome: Outcome,
}

/// What becomes of the frames of a recipient.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Outcome {
    /// They are collected.
    #[default]
    Collected,
    /// They are delivered one by one.
    OneByOne,
    /// They were delivered, and sending is paused.
    Paused,
    /// They were delivered.
    Delivered,
    /// They were not taken: the client has left.
    Closed,
}

/// The recipients of the current mixed run: the first `used` of the vector, whose memory is reused.
pub(super) struct Recipients {
    all: Vec<Recipient>,
    used: usize,
}

/// A frame whose recipients are being selected.
#[derive(Clone, Copy)]
pub(super) struct Selection {
    pub(super) run: u32,
    pub(super) index: u32,
    pub(super) tail_bytes: usize,
    pub(super) body_bytes: usize,
}

impl Recipients {
    pub(super) fn take() -> Self {
        let all = RECIPIENTS.try_with(Cell::take).ok().flatten().unwrap_or_default();
        Recipients { all, used: 0 }
    }

    /// Returns the memory to the thread.
    pub(super) fn give_back(mut self) {
        for recipient in self.used() {
            recipient.client = None;
            recipient.selected.clear();
            (recipient.tail_bytes, recipient.body_bytes) = (0, 0);
        }
        _ = RECIPIENTS.try_with(|place| place.set(Some(self.all)));
    }

    /// Returns whether no further recipient can be added.
    pub(super) fn is_complete(&self) -> bool {
        self.used == MAX_RECIPIENTS
    }

    pub(super) fn used(&mut self) -> &mut [Recipient] {
        self.all.get_mut(..self.used).unwrap_or_default()
    }

    /// Returns the place of a client that gets its first frame of the run. [`LEFT`] if it is not registered,
    /// `None` if the frame must be dispatched alone.
    fn add(&mut self, receiver: &Receiver) -> Option<u32> {
        let Some(client) = receiver.client.upgrade().filter(|client| !client.is_gone()) else {
            return Some(LEFT);
        };
        if client.is_full() || client.is_replaying() || self.is_complete() {
            return None;
        }
        if self.used == self.all.len() {
            self.all.push(Recipient::default());
        }
        let takes_mixed_runs = client.takes_mixed_runs();
        if let Some(recipient) = self.all.get_mut(self.used) {
            recipient.client = Some(client);
            recipient.outcome = if takes_mixed_runs { Outcome::Collected } else { Outcome::OneByOne };
        }
        self.used += 1;
        Some(self.used as u32 - 1)
    }

    /// Selects a frame for the receivers with these numbers. Returns how many of them are registered; `None`
    /// if the frame must be dispatched alone, and then it is selected for none.
    #[inline(always)]
    pub(super) fn select(
        &mut self,
        (numbers, receivers): (&[u32], &mut [Receiver]),
        selection: Selection,
    ) -> Option<u32> {
        let mut reached = 0;
        for (visited, number) in numbers.iter().enumerate() {
            let Some(receiver) = receivers.get_mut(*number as usize) else { continue };
            if receiver.run != selection.run {
                let Some(place) = self.add(receiver) else {
                    self.deselect(numbers.get(..visited).unwrap_or_default(), receivers, selection);
                    return None;
                };
                (receiver.run, receiver.place) = (selection.run, place);
            }
            if let Some(recipient) = self.all.get_mut(receiver.place as usize) {
                recipient.selected.push(selection.index);
                recipient.tail_bytes += selection.tail_bytes;
                recipient.body_bytes += selection.body_bytes;
                reached += 1;
            }
        }
        Some(reached)
    }

    /// Reverses the selection of a frame for these receivers.
    #[cold]
    fn deselect(&mut self, numbers: &[u32], receivers: &[Receiver], selection: Selection) {
        for receiver in numbers.iter().filter_map(|number| receivers.get(*number as usize)) {
            if let Some(recipient) = self.all.get_mut(receiver.place as usize)
                && recipient.selected.pop_if(|last| *last == selection.index).is_some()
            {
                recipient.tail_bytes -= selection.tail_bytes;
                recipient.body_bytes -= selection.body_bytes;
            }
        }
    }
}

impl Recipient {
    /// Returns whether it has got the frames that are selected for it.
    pub(super) fn has_taken(&self) -> bool {
        matches!(self.outcome, Outcome::Paused | Outcome::Delivered | Outcome::OneByOne)
    }

    pub(super) fn is_collected(&self) -> bool {
        self.outcome == Outcome::Collected
    }
}
