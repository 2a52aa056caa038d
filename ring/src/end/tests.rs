//! The two ends together: against a queue of bytes, around the end of the counts, and against a hostile peer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::{
    layout::{Control, MIN_RING_BYTES},
    sync::AtomicU32,
};
use proptest::prelude::*;
use std::{
    collections::VecDeque,
    sync::atomic::Ordering::{Relaxed, SeqCst},
    thread,
};

fn pair() -> (End, End) {
    let (broker, memory) = End::create(MIN_RING_BYTES).unwrap();
    let client = End::open(memory).unwrap();
    (broker, client)
}

fn write(end: &End, bytes: &[u8]) -> usize {
    end.write([bytes].into_iter()).unwrap().bytes
}

fn read(end: &End, room: usize) -> Vec<u8> {
    let mut buffer = vec![0; room];
    let read = end.read(&mut buffer).unwrap();
    buffer.truncate(read.bytes);
    buffer
}

/// What a hostile client writes to.
fn control(end: &End) -> &Control {
    end.memory.control()
}

#[derive(Debug, Clone)]
enum Step {
    Write(bool, Vec<usize>),
    Read(bool, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![0..300usize, 4000..4200usize, 0..70_000usize];
    prop_oneof![
        (any::<bool>(), prop::collection::vec(len.clone(), 0..4))
            .prop_map(|(side, lens)| Step::Write(side, lens)),
        (any::<bool>(), len).prop_map(|(side, room)| Step::Read(side, room)),
    ]
}

proptest! {
    /// Both directions are queues of bytes, from any count on, and never hold more than a ring.
    #[test]
    fn the_rings_are_queues_of_bytes(start in any::<u32>(), steps in prop::collection::vec(step(), 1..60)) {
        let (broker, client) = pair();
        for (from, to, words) in
            [(&client, &broker, &control(&broker).rings[0]), (&broker, &client, &control(&broker).rings[1])]
        {
            from.producer.start_at(start);
            to.consumer.start_at(start);
            words.producer.tail.store(start, Relaxed);
            words.consumer.head.store(start, Relaxed);
        }
        let mut expected = [VecDeque::new(), VecDeque::new()];
        let mut next = 0u32;
        for step in steps {
            match step {
                Step::Write(side, lens) => {
                    let mut byte = || {
                        next = next.wrapping_mul(5).wrapping_add(1);
                        (next >> 24) as u8
                    };
                    let pieces: Vec<Vec<u8>> =
                        lens.iter().map(|len| (0..*len).map(|_| byte()).collect()).collect();
                    let end = if side { &broker } else { &client };
                    let queue = &mut expected[usize::from(side)];
                    let room = MIN_RING_BYTES as usize - queue.len();
                    let written = end.write(pieces.iter().map(Vec::as_slice)).unwrap().bytes;
                    let all = pieces.concat();
                    prop_assert_eq!(written, all.len().min(room));
                    queue.extend(&all[..written]);
                }
                Step::Read(side, room) => {
                    let end = if side { &client } else { &broker };
                    let queue = &mut expected[usize::from(side)];
                    let count = queue.len().min(room);
                    prop_assert_eq!(end.has_bytes().unwrap(), !queue.is_empty());
                    let wanted: Vec<u8> = queue.drain(..count).collect();
                    prop_assert!(read(end, room) == wanted);
                }
            }
        }
    }

    /// Whatever a peer writes to the words of either ring, at any time, ends in an error or in bytes.
    #[test]
    fn forged_words_do_no_harm(forged in prop::collection::vec((0..10usize, any::<u32>(), 0..6u8), 1..40)) {
        let (broker, client) = pair();
        let all: Vec<&AtomicU32> = control(&client)
            .rings
            .iter()
            .flat_map(|words| {
                let (producer, consumer) = (&words.producer, &words.consumer);
                [&producer.tail, &producer.wants_room, &producer.base, &consumer.head, &consumer.sleeps]
            })
            .collect();
        for (word, value, action) in forged {
            all[word].store(value, SeqCst);
            let mut spare = Vec::with_capacity(1000);
            let outcome = match action {
                0 => broker.read(&mut [0; 70_000]).map(|read| read.bytes),
                1 => broker.read_more(&mut spare).map(|read| read.bytes),
                2 => broker.write([&[1; 70_000][..]].into_iter()).map(|written| written.bytes),
                3 => broker.prepare_sleep().map(usize::from),
                4 => broker.has_bytes().map(usize::from),
                _ => Ok(usize::from(broker.await_room())),
            };
            match outcome {
                Ok(bytes) => prop_assert!(bytes <= MIN_RING_BYTES as usize),
                Err(error) => prop_assert_eq!(error.kind(), io::ErrorKind::InvalidData),
            }
        }
    }
}

#[test]
fn an_index_out_of_bounds_is_an_error_and_one_within_is_not() {
    let capacity = MIN_RING_BYTES;
    for (tail, is_valid) in [(0, true), (1, true), (capacity, true), (capacity + 1, false), (u32::MAX, false)]
    {
        let (broker, client) = pair();
        control(&client).rings[0].producer.tail.store(tail, SeqCst);
        assert_eq!(broker.has_bytes().is_ok(), is_valid, "{tail}");
        assert_eq!(broker.read(&mut [0; 100]).is_ok(), is_valid, "{tail}");
        assert_eq!(broker.prepare_sleep().is_ok(), is_valid, "{tail}");
    }
    // the broker has written 100 bytes
    for (head, is_valid) in [(0, true), (100, true), (101, false), (0x8000_0000, false)] {
        let (broker, client) = pair();
        assert_eq!(write(&broker, &[1; 100]), 100);
        control(&client).rings[1].consumer.head.store(head, SeqCst);
        let written = broker.write([&[1; 70_000][..]].into_iter());
        assert_eq!(written.is_ok(), is_valid, "{head}");
    }
}

#[test]
fn a_sleeping_end_is_woken_once() {
    let (broker, client) = pair();
    assert!(!client.write([&b"a"[..]].into_iter()).unwrap().wake, "it does not sleep");
    assert!(!broker.prepare_sleep().unwrap(), "there is a byte");
    assert_eq!(read(&broker, 10), b"a");
    assert!(broker.prepare_sleep().unwrap());
    assert!(client.write([&b"b"[..]].into_iter()).unwrap().wake);
    assert!(!client.write([&b"c"[..]].into_iter()).unwrap().wake);
    broker.end_sleep();
    assert_eq!(read(&broker, 10), b"bc");
}

#[test]
fn a_writer_is_woken_when_half_of_the_ring_is_free() {
    let (broker, client) = pair();
    let all = vec![1; MIN_RING_BYTES as usize + 10];
    assert_eq!(write(&broker, &all), MIN_RING_BYTES as usize);
    assert_eq!(write(&broker, &all), 0);
    assert!(broker.await_room());
    let mut buffer = vec![0; MIN_RING_BYTES as usize / 2 - 1];
    assert!(!client.read(&mut buffer).unwrap().wake);
    assert!(client.read(&mut [0]).unwrap().wake);
    assert!(!client.read(&mut [0]).unwrap().wake, "once");
    assert!(!broker.await_room());
}

#[test]
fn idle_traffic_stays_in_the_first_pages() {
    let (broker, client) = pair();
    for _ in 0..20_000 {
        assert_eq!(write(&client, &[0; 9]), 9);
        assert_eq!(read(&broker, 100).len(), 9);
    }
    // 180,000 bytes would have filled the ring, which has 64 KiB
    let mut all = vec![MaybeUninit::new(1); MIN_RING_BYTES as usize];
    write(&client, &[7; 1]);
    let base = control(&broker).rings[0].producer.base.load(Relaxed);
    let tail = control(&broker).rings[0].producer.tail.load(Relaxed);
    assert!(tail.wrapping_sub(base) <= 2 * 4096, "{tail} {base}");
    assert_eq!(broker.memory.bytes(0).copy_out(0, &mut all), all.len());
}

#[test]
fn memory_of_a_burst_is_given_back_once_it_is_read() {
    let (broker, memory) = End::create(MIN_RING_BYTES).unwrap();
    let client = End::open(&memory).unwrap();
    let allocated = || rustix::fs::fstat(&memory).unwrap().st_blocks as u64 * 512;
    let burst = vec![7; MIN_RING_BYTES as usize];
    for (from, to) in [(&broker, &client), (&client, &broker)] {
        assert_eq!(write(from, &[1; 5000]), 5000);
        assert!(!from.give_back_memory().unwrap(), "nothing is behind the first pages");
        assert_eq!(read(to, 70_000).len(), 5000);
        assert_eq!(write(from, &burst), burst.len());
        assert!(allocated() >= u64::from(MIN_RING_BYTES));
        assert!(!from.give_back_memory().unwrap(), "not read");
        assert_eq!(read(to, 65_535).len(), 65_535);
        assert!(!from.give_back_memory().unwrap(), "not read completely");
        assert_eq!(read(to, 10), [7]);
        assert!(from.give_back_memory().unwrap() && !from.give_back_memory().unwrap());
        assert!(allocated() <= 4096 + 2 * 16 * 1024 + 4096, "{}", allocated());
        for round in 0..3 {
            assert_eq!(write(from, &burst[round..]), burst.len() - round);
            assert!(read(to, 70_000) == burst[round..]);
        }
        assert!(from.give_back_memory().unwrap());
    }
    control(&client).rings[1].consumer.head.store(0x8000_0000, SeqCst);
    assert_eq!(write(&broker, &[1; 20_000]), 20_000, "there is room by the head that is known");
    assert!(broker.give_back_memory().is_err());
}

#[test]
fn a_stream_between_two_threads_arrives_in_order() {
    let (broker, client) = pair();
    let total = 20_000_000usize;
    let byte = |count: usize| (count * 7 / 5) as u8;
    let writing = thread::spawn(move || {
        let (mut at, mut size) = (0, 1);
        while at < total {
            size = (size * 31 + 7) % 5000 + 1;
            let bytes: Vec<u8> = (at..total.min(at + size)).map(byte).collect();
            let mut left = &bytes[..];
            while !left.is_empty() {
                match client.write([left].into_iter()).unwrap().bytes {
                    0 => thread::yield_now(),
                    written => left = &left[written..],
                }
            }
            at += bytes.len();
        }
    });
    let mut at = 0;
    let mut buffer = vec![0; 10_000];
    while at < total {
        let read = broker.read(&mut buffer).unwrap().bytes;
        if read == 0 {
            thread::yield_now();
        }
        for got in &buffer[..read] {
            assert_eq!(*got, byte(at), "byte {at}");
            at += 1;
        }
    }
    writing.join().unwrap();
}
