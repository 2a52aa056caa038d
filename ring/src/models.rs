//! Models of the two sleep flags and of the rewind: loom runs each in all orders, with all values that the
//! memory model of the language allows. A lost wake-up is a deadlock, which loom reports. Built with
//! `--cfg elbus_model` only, see `.ci/models`.

use loom::{sync::Notify, thread};
use std::{cell::UnsafeCell, mem::MaybeUninit, sync::Arc};

use crate::{
    consumer::Consumer,
    layout::Words,
    memory::RingBytes,
    producer::Producer,
    sync::{Fence, REMOVED},
};

/// One ring of 8 bytes, and what wakes its ends.
#[derive(Default)]
struct Model {
    words: Words,
    bytes: Bytes,
    producer: Producer,
    consumer: Consumer,
    wakes_consumer: Notify,
    wakes_producer: Notify,
}

#[derive(Default)]
struct Bytes(UnsafeCell<[u8; 8]>);

// SAFETY: loom runs one thread at a time; the ring itself keeps the ends apart
unsafe impl Sync for Bytes {}
// SAFETY: plain bytes
unsafe impl Send for Bytes {}

impl Model {
    fn ring(&self) -> RingBytes<'_> {
        RingBytes::of(&self.bytes.0)
    }

    /// Writes once what there is room for; returns how many bytes.
    fn write(&self, bytes: &[u8]) -> usize {
        let written = self.producer.write(&self.words, self.ring(), [bytes].into_iter()).unwrap();
        if written.wake {
            self.wakes_consumer.notify();
        }
        written.bytes
    }

    /// Writes all bytes, sleeping while there is no room.
    fn write_all(&self, mut bytes: &[u8]) {
        loop {
            bytes = &bytes[self.write(bytes)..];
            if bytes.is_empty() {
                return;
            }
            if self.producer.await_room(&self.words, self.ring()) {
                self.wakes_producer.wait();
            }
        }
    }

    /// Reads this many bytes, at most `at_once` in one read, sleeping while there are none.
    fn read_exact(&self, count: usize, at_once: usize) -> Vec<u8> {
        let mut all = vec![];
        while all.len() < count {
            let mut buffer = [MaybeUninit::new(0); 8];
            let read = self.consumer.read(&self.words, self.ring(), &mut buffer[..at_once]).unwrap();
            // SAFETY: initialised above
            all.extend(buffer[..read.bytes].iter().map(|byte| unsafe { byte.assume_init() }));
            if read.wake {
                self.wakes_producer.notify();
            }
            if read.bytes == 0 && self.consumer.prepare_sleep(&self.words, self.ring()).unwrap() {
                self.wakes_consumer.wait();
                self.consumer.end_sleep(&self.words);
            }
        }
        all
    }
}

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn two_messages() {
    let model = Arc::new(Model::default());
    let writer = model.clone();
    let writing = thread::spawn(move || [1, 2].iter().for_each(|byte| writer.write_all(&[*byte])));
    assert_eq!(model.read_exact(2, 8), [1, 2]);
    writing.join().unwrap();
}

fn more_than_a_ring() {
    let model = Arc::new(Model::default());
    let writer = model.clone();
    let all: Vec<u8> = (0..13).collect();
    let expected = all.clone();
    let writing = thread::spawn(move || writer.write_all(&all));
    assert_eq!(model.read_exact(13, 5), expected);
    writing.join().unwrap();
}

#[test]
fn a_sleeping_consumer_is_woken_for_every_message() {
    explore(two_messages);
}

#[test]
fn a_producer_that_waits_for_room_is_woken_and_no_byte_is_lost() {
    explore(more_than_a_ring);
}

/// Explores a model without one of the fences: loom must find a lost wake-up, after which nothing runs.
fn explore_without(fence: Fence, model: fn()) {
    REMOVED.set(Some(fence));
    explore(model);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fence_of_a_write_a_wake_up_is_lost() {
    explore_without(Fence::TailThenSleeps, two_messages);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fence_before_a_sleep_for_bytes_a_wake_up_is_lost() {
    explore_without(Fence::SleepsThenTail, two_messages);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fence_of_a_read_a_wake_up_is_lost() {
    explore_without(Fence::HeadThenWantsRoom, more_than_a_ring);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fence_before_a_sleep_for_room_a_wake_up_is_lost() {
    explore_without(Fence::WantsRoomThenHead, more_than_a_ring);
}

#[test]
fn a_rewind_never_moves_bytes_that_are_still_to_be_read() {
    explore(|| {
        let model = Arc::new(Model::default());
        let writer = model.clone();
        let writing = thread::spawn(move || {
            for bytes in [&[1, 2, 3][..], &[4, 5], &[6, 7, 8]] {
                writer.write_all(bytes);
            }
        });
        assert_eq!(model.read_exact(8, 3), [1, 2, 3, 4, 5, 6, 7, 8]);
        writing.join().unwrap();
    });
}

/// One thread waits for room while another writes under the owner's lock, as a writer task and housekeeping
/// do.
#[test]
fn a_wait_for_room_survives_writes_of_another_thread() {
    explore(|| {
        let model = Arc::new(Model::default());
        assert_eq!(model.write(&[1; 8]), 8);
        let (waiter, writer) = (model.clone(), model.clone());
        let waiting = thread::spawn(move || {
            while waiter.producer.await_room(&waiter.words, waiter.ring()) {
                waiter.wakes_producer.wait();
            }
        });
        let writing = thread::spawn(move || writer.write(&[2, 2]));
        let mut read = model.read_exact(8, 8);
        let written = { writing.join().unwrap() };
        read.extend(model.read_exact(written, 8));
        assert_eq!(read.len(), 8 + written);
        waiting.join().unwrap();
    });
}
