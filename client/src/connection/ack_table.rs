//! Operations that wait for their acknowledgement. Owns operation ids and outcomes; has no lock and wakes no
//! task: the send queue does both.

use elbus_protocol::{Code, Op};
use slab::Slab;
use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::request::operation_text;
use crate::{error::Error, receive::read_limit::ReadLimit};

/// An acknowledgement that is expected or has arrived.
pub(crate) enum PendingAck {
    /// A future waits for it.
    Awaited(Option<Waker>),
    /// It has arrived, or never will.
    Completed(Result<u8, Error>),
    /// The future was dropped.
    Abandoned,
    /// It acknowledges the request of this call, which fails if the code is not [`Code::Ok`].
    Call(u32),
    /// It acknowledges filters that are restored after a lost connection. Refused filters are requested again
    /// in halves; a single one is logged.
    Restore { op: Op, filters: Vec<String> },
}

/// The acknowledgement of a frame with target and payload. Cheap to move and to drop: it is passed on with
/// each frame.
#[derive(Clone, Copy)]
pub(crate) enum FrameAck {
    /// A future waits for it.
    Awaited,
    /// It acknowledges the request of this call.
    Call(u32),
}

impl From<FrameAck> for PendingAck {
    fn from(ack: FrameAck) -> Self {
        match ack {
            FrameAck::Awaited => PendingAck::Awaited(None),
            FrameAck::Call(call) => PendingAck::Call(call),
        }
    }
}

/// A refusal that concerns more than the future of one operation.
pub(crate) enum AckEvent {
    /// The request of a call was refused.
    CallRefused { call: u32, code: u8 },
    /// Filters were refused together; some of them can be accepted alone.
    FiltersRefused { op: Op, filters: Vec<String> },
}

pub(crate) struct AckTable {
    acks: Slab<PendingAck>,
    read_limit: Arc<ReadLimit>,
}

impl AckTable {
    pub(crate) fn new(read_limit: Arc<ReadLimit>) -> Self {
        AckTable { acks: Slab::new(), read_limit }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.acks.is_empty()
    }

    /// Returns the operation id that the next [`insert`](Self::insert) uses.
    pub(crate) fn next_id(&self) -> u32 {
        self.acks.vacant_key() as u32
    }

    pub(crate) fn insert(&mut self, ack: PendingAck) {
        self.acks.insert(ack);
        self.read_limit.operation_started();
    }

    /// Completes an operation. The caller wakes `wakers` and handles `events` after it has released its lock.
    pub(crate) fn complete(
        &mut self,
        op_id: u32,
        code: u8,
        events: &mut Vec<AckEvent>,
        wakers: &mut Vec<Waker>,
    ) {
        let key = op_id as usize;
        let Some(ack) = self.acks.get_mut(key) else {
            tracing::debug!(op_id, "acknowledgement of an unknown operation");
            return;
        };
        match ack {
            PendingAck::Completed(_) => return, // a duplicate: the first one counts
            PendingAck::Awaited(waker) => {
                wakers.extend(waker.take());
                *ack = PendingAck::Completed(Ok(code));
            }
            PendingAck::Abandoned => drop(self.acks.remove(key)),
            PendingAck::Call(call) => {
                if code != Code::Ok as u8 {
                    events.push(AckEvent::CallRefused { call: *call, code });
                }
                self.acks.remove(key);
            }
            PendingAck::Restore { op, filters } => {
                let (op, filters) = (*op, std::mem::take(filters));
                if code != Code::Ok as u8 {
                    // other codes apply to all filters of the frame, for example a limit
                    let concerns_one = [Code::AccessDenied as u8, Code::BadData as u8].contains(&code);
                    if concerns_one && filters.len() > 1 {
                        events.push(AckEvent::FiltersRefused { op, filters });
                    } else {
                        let (operation, filter, count) = (operation_text(op), filters.first(), filters.len());
                        tracing::warn!(operation, filter, count, code, "cannot restore topic filters");
                    }
                }
                self.acks.remove(key);
            }
        }
        self.read_limit.operation_finished();
    }

    /// Fails all operations. Those that are awaited report `error`.
    pub(crate) fn fail_all(&mut self, error: &Error, wakers: &mut Vec<Waker>) {
        let read_limit = &self.read_limit;
        self.acks.retain(|_, ack| {
            if matches!(ack, PendingAck::Completed(_)) {
                return true;
            }
            read_limit.operation_finished();
            match std::mem::replace(ack, PendingAck::Completed(Err(error.clone()))) {
                PendingAck::Awaited(waker) => {
                    wakers.extend(waker);
                    true
                }
                _ => false,
            }
        });
    }

    /// Polls an awaited operation and removes it once it is complete. Returns `None` if the id is not
    /// awaited.
    pub(crate) fn poll(&mut self, key: usize, context: &Context<'_>) -> Option<Poll<Result<u8, Error>>> {
        match self.acks.get_mut(key)? {
            PendingAck::Awaited(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                return Some(Poll::Pending);
            }
            PendingAck::Completed(_) => {}
            _ => return None,
        }
        match self.acks.remove(key) {
            PendingAck::Completed(outcome) => Some(Poll::Ready(outcome)),
            _ => None,
        }
    }

    /// Forgets an awaited operation whose future is dropped.
    pub(crate) fn abandon(&mut self, key: usize) {
        match self.acks.get_mut(key) {
            Some(PendingAck::Completed(_)) => drop(self.acks.remove(key)),
            Some(ack @ PendingAck::Awaited(_)) => *ack = PendingAck::Abandoned,
            _ => {}
        }
    }
}
