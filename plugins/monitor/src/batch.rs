//! Batches: the messages of the stream. Encodes records one by one, and the frame around them.

use serde::Serialize;

use crate::record::Record;

/// Bytes of records after which a batch is complete.
pub(crate) const BATCH_BYTES: usize = 32 << 10;

/// The records that are sent next.
#[derive(Default)]
pub(crate) struct Batch {
    /// Records in msgpack, one after the other.
    encoded: Vec<u8>,
    records: u32,
    /// Messages missed, as the records say.
    missed: u64,
}

/// All of a batch but its records.
#[derive(Serialize)]
struct Head<'a> {
    session: u64,
    batch: u64,
    /// Messages missed after the last record.
    missed: u64,
    /// Why the session has ended; nil while it has not.
    end: Option<&'a str>,
}

/// A batch as it is sent.
pub(crate) struct Encoded {
    pub(crate) payload: Vec<u8>,
    pub(crate) records: u32,
    /// Messages missed that it reports.
    pub(crate) missed: u64,
}

impl Batch {
    /// Adds a record. `missed` is what it says was missed before it.
    pub(crate) fn add(&mut self, record: Record<'_>, missed: u64) {
        let length = self.encoded.len();
        match rmp_serde::encode::write_named(&mut self.encoded, &record.after_missing(missed)) {
            Ok(()) => {
                self.records += 1;
                self.missed += missed;
            }
            Err(error) => {
                // writing into memory does not fail
                tracing::error!(%error, "record cannot be encoded");
                self.encoded.truncate(length);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(crate) fn bytes(&self) -> usize {
        self.encoded.len()
    }

    /// Takes the records, as the payload of a message: a map of five keys.
    pub(crate) fn take(&mut self, session: u64, batch: u64, missed: u64, end: Option<&str>) -> Encoded {
        let mut payload = Vec::with_capacity(self.encoded.len() + 64);
        // a map of five pairs: those of `Head`, and the records
        if rmp_serde::encode::write_named(&mut payload, &Head { session, batch, missed, end }).is_ok()
            && let Some(marker) = payload.first_mut()
        {
            *marker = 0x85;
        }
        payload.extend_from_slice(b"\xa7records\xdd");
        payload.extend_from_slice(&self.records.to_be_bytes());
        payload.append(&mut self.encoded);
        let reported = std::mem::take(&mut self.missed) + missed;
        Encoded { payload, records: std::mem::take(&mut self.records), missed: reported }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_one_map() {
        let encoded = Batch::default().take(7, 3, 2, Some("stopped"));
        let value = rmpv::decode::read_value(&mut &*encoded.payload).unwrap();
        let expected = r#"{"session": 7, "batch": 3, "missed": 2, "end": "stopped", "records": []}"#;
        assert_eq!((value.to_string().as_str(), encoded.missed), (expected, 2));
    }
}
