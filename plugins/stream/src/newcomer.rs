//! What a connection has until it is registered: its place among those that wait, and its turn. Owns the steps from
//! one to the other; a registered connection has given all of it back.

use tokio::sync::oneshot;

use crate::{
    Place, Source,
    instance::{Instance, Leaving},
};

/// A connection that is not registered yet.
pub(crate) struct Newcomer {
    place: Place,
    source: Source,
    /// In the census.
    key: usize,
    /// It has had its turn, or has asked for it.
    is_paced: bool,
    /// It waits for its turn.
    pub(crate) turn: Option<oneshot::Receiver<()>>,
    /// It waits for the name of this one.
    pub(crate) former: Option<Leaving>,
}

impl Newcomer {
    /// Boxed, since every connection has room for it, and few have one.
    pub(crate) fn new(place: Place, source: Source, key: usize, is_paced: bool) -> Box<Self> {
        Box::new(Newcomer { place, source, key, is_paced, turn: None, former: None })
    }

    /// The connection has greeted; whether it must wait for its turn.
    pub(crate) fn has_greeted(&mut self, instance: &Instance) -> bool {
        self.place.spoken();
        if !std::mem::replace(&mut self.is_paced, true)
            && let Some(turns) = &instance.turns
        {
            self.turn = turns.ask(self.source, &instance.runtime);
        }
        self.turn.is_some()
    }

    /// Whether it waits for something else than its peer.
    pub(crate) fn waits(&self) -> bool {
        self.turn.is_some() || self.former.is_some()
    }

    /// What to do when its place is needed, instead of what was to be done before.
    pub(crate) fn on_eviction(&self, evict: impl FnOnce() + Send + 'static) {
        self.place.on_eviction(evict);
    }

    /// Counts it as a registered client; the error is the limit that is reached.
    pub(crate) fn claim(&self, instance: &Instance) -> Result<(), usize> {
        instance.claim(self.source, self.key)
    }

    /// It is not registered after all.
    pub(crate) fn release(&self, instance: &Instance) {
        instance.release(self.source, self.key);
    }
}
