//! The sending end of a session: batches for one client, no more than it confirms. What does not fit is
//! dropped and counted, and the count goes with the next batch.

use elbus_plugin_api::{Client, Code, Op, Payload, Qos, Request};
use std::collections::VecDeque;

use crate::{
    batch::{BATCH_BYTES, Batch},
    record::Record,
};

/// Bytes that a batch takes beside its records.
const FRAME_BYTES: usize = 128;

/// Totals of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Records that were sent.
    pub(crate) records: u64,
    /// Messages that were missed.
    pub(crate) missed: u64,
}

/// The batches of a session.
pub(crate) struct Outbox {
    client: Client,
    session: u64,
    target: Box<str>,
    /// The registration of the target: a later client of the same name gets nothing.
    target_id: u64,
    window_bytes: usize,
    batch: Batch,
    /// The number of the next batch.
    number: u64,
    /// Numbers and bytes of the batches that are not confirmed.
    unconfirmed: VecDeque<(u64, usize)>,
    unconfirmed_bytes: usize,
    /// Messages that were missed and not yet reported.
    missed: u64,
    totals: Totals,
    gone: bool,
}

impl Outbox {
    pub(crate) fn new(
        client: Client,
        session: u64,
        target: &str,
        target_id: u64,
        window_bytes: usize,
    ) -> Self {
        Outbox {
            client,
            session,
            target: target.into(),
            target_id,
            window_bytes,
            batch: Batch::default(),
            number: 1,
            unconfirmed: VecDeque::new(),
            unconfirmed_bytes: 0,
            missed: 0,
            totals: Totals::default(),
            gone: false,
        }
    }

    /// Adds a record; sends the batch if it is complete.
    pub(crate) fn add(&mut self, record: Record<'_>) {
        if self.is_closed() {
            return self.miss(1);
        }
        let missed = std::mem::take(&mut self.missed);
        self.batch.add(record, missed);
        if self.batch.bytes() >= BATCH_BYTES {
            self.send(0, None);
        }
    }

    /// Counts messages that were missed.
    pub(crate) fn miss(&mut self, messages: u64) {
        self.missed += messages;
        self.totals.missed += messages;
    }

    /// Sends the records that there are.
    pub(crate) fn flush(&mut self) {
        if !self.batch.is_empty() {
            self.send(0, None);
        }
    }

    /// Reports messages that were missed and that no record has followed, if the client confirms batches.
    pub(crate) fn report_missed(&mut self) {
        if self.missed > 0 && !self.is_closed() {
            let missed = std::mem::take(&mut self.missed);
            self.send(missed, None);
        }
    }

    /// Sends the last batch, whatever the client has confirmed.
    pub(crate) fn end(&mut self, reason: &str) {
        let missed = std::mem::take(&mut self.missed);
        self.send(missed, Some(reason));
    }

    /// The client has received all batches up to this number.
    pub(crate) fn confirm(&mut self, number: u64) {
        while let Some((_, bytes)) = self.unconfirmed.front().filter(|(first, _)| *first <= number) {
            self.unconfirmed_bytes -= bytes;
            self.unconfirmed.pop_front();
        }
    }

    /// Returns whether something missed is to be reported.
    pub(crate) fn has_missed(&self) -> bool {
        self.missed > 0
    }

    /// Returns whether the client has left.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// Returns whether the client has not confirmed enough to get more.
    fn is_closed(&self) -> bool {
        self.unconfirmed_bytes + self.batch.bytes() >= self.window_bytes
    }

    fn send(&mut self, missed: u64, end: Option<&str>) {
        let encoded = self.batch.take(self.session, self.number, missed, end);
        let payloads = [Payload::from(&*encoded.payload)];
        let request = Request::new(Op::Message, Qos::NO, &self.target, &payloads)
            .with_receiver_id(self.target_id)
            .best_effort()
            .ending_batch();
        let sent = self.client.dispatch(&request);
        match sent.code() {
            Code::Ok => {
                let bytes = encoded.payload.len() + FRAME_BYTES;
                self.unconfirmed.push_back((self.number, bytes));
                self.unconfirmed_bytes += bytes;
                self.number += 1;
                self.totals.records += u64::from(encoded.records);
            }
            code => {
                self.gone |= sent.is_gone() || code == Code::NotRegistered;
                // what it reports as missed is counted already
                self.missed += encoded.missed;
                self.miss(u64::from(encoded.records));
            }
        }
    }
}
