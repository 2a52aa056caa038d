//! A client with rings writes what it likes to the shared memory, between what the broker does with its end:
//! the broker gets the bytes that the words promise, or an error that ends the connection.
#![no_main]

use elbus_ring::{End, MIN_RING_BYTES, Transfer};
use libfuzzer_sys::fuzz_target;
use std::{fs::File, io, os::unix::fs::FileExt};

/// The words of the ring to the broker and of the one to the client (`docs/protocol.md`, section 12).
const WORDS: [u64; 10] = [128, 132, 136, 256, 260, 384, 388, 392, 512, 516];
const TAIL: u64 = 128;
const WANTS_ROOM: u64 = 132;
const BASE: u64 = 136;
const HEAD: u64 = 256;
const CLIENTS_HEAD: u64 = 512;
const CLIENT_SLEEPS: u64 = 516;
const RING: u32 = MIN_RING_BYTES;

struct Shared(File);

impl Shared {
    fn word(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.0.read_exact_at(&mut bytes, at).unwrap();
        u32::from_ne_bytes(bytes)
    }

    /// The bytes of the ring to the broker from this count on.
    fn bytes(&self, count: u32, base: u32, len: usize) -> Vec<u8> {
        let mut ring = vec![0; RING as usize];
        self.0.read_exact_at(&mut ring, 4096).unwrap();
        let place = |at: usize| count.wrapping_sub(base).wrapping_add(at as u32) % RING;
        (0..len).map(|at| ring[place(at) as usize]).collect()
    }
}

/// Whether an index of the peer was refused. Any other error is a finding.
fn refused<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            None
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (broker, memory) = End::create(RING).unwrap();
    let shared = Shared(File::from(memory));
    // what the broker has read and written
    let (mut head, mut tail) = (0u32, 0u32);
    for step in data.chunks_exact(6) {
        let [action, at, value @ ..] = step else { return };
        let value = u32::from_le_bytes(value.try_into().unwrap());
        let size = (value % (2 * RING)) as usize;
        match action % 8 {
            0..=2 => {
                let word = WORDS[usize::from(*at) % WORDS.len()];
                shared.0.write_all_at(&value.to_ne_bytes(), word).unwrap();
            }
            3 => shared.0.write_all_at(&[*at; 64], 4096 + u64::from(value % (2 * RING - 64))).unwrap(),
            4 | 5 => {
                let (tail, base) = (shared.word(TAIL), shared.word(BASE));
                let left = tail.wrapping_sub(head);
                let mut buffer = vec![0xAA; size];
                let read = if action % 8 == 4 {
                    broker.read(&mut buffer)
                } else {
                    let mut spare = Vec::with_capacity(size);
                    let read = broker.read_more(&mut spare);
                    buffer[..spare.len()].copy_from_slice(&spare);
                    read
                };
                let Some(Transfer { bytes, wake }) = refused(read) else {
                    assert!(left > RING);
                    return;
                };
                assert_eq!(bytes, size.min(left as usize));
                assert!(buffer[..bytes] == shared.bytes(head, base, bytes));
                assert!(buffer[bytes..].iter().all(|byte| *byte == 0xAA));
                if bytes > 0 {
                    head = head.wrapping_add(bytes as u32);
                    assert_eq!(shared.word(HEAD), head);
                }
                assert!(!wake || shared.word(WANTS_ROOM) == 0);
            }
            6 => {
                let theirs = shared.word(CLIENTS_HEAD);
                let pieces = [&vec![1; size / 3][..], &[], &vec![2; size - size / 3]];
                let Some(Transfer { bytes, wake }) = refused(broker.write(pieces.into_iter())) else {
                    assert!(tail.wrapping_sub(theirs) > RING);
                    return;
                };
                assert!(bytes <= size.min(RING as usize));
                tail = tail.wrapping_add(bytes as u32);
                assert!(!wake || shared.word(CLIENT_SLEEPS) == 0);
            }
            _ => {
                let asleep = match at % 4 {
                    0 => refused(broker.prepare_sleep()),
                    1 => refused(broker.has_bytes()),
                    2 => Some(broker.await_room()),
                    _ => {
                        broker.end_sleep();
                        Some(false)
                    }
                };
                if asleep.is_none() {
                    assert!(shared.word(TAIL).wrapping_sub(head) > RING);
                    return;
                }
            }
        }
    }
});
