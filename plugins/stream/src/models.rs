//! Models of what threads do to one connection at the same time: shuttle runs each in many orders, over a
//! real socket that is soon full. Built with `--cfg elbus_model` only, see `.ci/models`.

use elbus_plugin_api::{DeliveryStatus, Notifier, Qos};
use shuttle::{Config, Runner, future, scheduler::RandomScheduler, thread};
use std::{
    io::{ErrorKind, Read},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use crate::{
    connection::{Connection, close_reason::CloseReason, waiter::Side},
    settings::StreamSettings,
    testing::{Pair, with_mixed_run, with_run},
};

/// Orders that each model is run in, unless `ELBUS_MODEL_ORDERS` says otherwise.
const ORDERS: usize = 1000;
/// A few of these fill a socket.
const LONG: usize = 100_000;
/// What a frame of `with_run` has around its payload.
const AROUND: usize = 8;

/// Runs `model` in many orders; panics in the first that does not hold, and says how to have it again.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let orders = std::env::var("ELBUS_MODEL_ORDERS").ok().and_then(|text| text.parse().ok());
    let mut config = Config::new();
    config.stack_size = 1024 * 1024;
    Runner::new(RandomScheduler::new(orders.unwrap_or(ORDERS)), config).run(model);
}

fn pair(queue_bytes: usize) -> Pair {
    let pair = Pair::new(StreamSettings { queue_bytes, ..StreamSettings::default() });
    pair.peer.set_nonblocking(true).unwrap();
    pair
}

fn deliver(connection: &Arc<Connection>, byte: u8, len: usize) -> DeliveryStatus {
    with_run(Qos::NO, &vec![byte; len], None, |run| connection.deliver(run))
}

/// Reads so many bytes, each time as much as there is, and gives the others their turn.
fn read(peer: &mut UnixStream, wanted: usize) -> Vec<u8> {
    let (mut all, mut buffer) = (vec![], vec![0; LONG]);
    while all.len() < wanted {
        match peer.read(&mut buffer) {
            Ok(0) => panic!("closed after {} of {wanted} bytes", all.len()),
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        thread::yield_now();
    }
    all
}

/// Where the frames of these bytes stand, which must be whole.
fn frames(all: &[u8]) -> Vec<(u8, usize)> {
    let (mut rest, mut found) = (all, vec![]);
    while let Some(header) = rest.first_chunk::<6>() {
        let body = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let (frame, after) = rest.split_at(6 + body);
        let payload = &frame[AROUND..];
        assert!(payload.iter().all(|byte| *byte == payload[0]), "frames interleave");
        found.push((payload[0], payload.len()));
        rest = after;
    }
    found
}

#[test]
fn no_byte_is_left_behind_by_any_order_of_deliveries_and_flushes() {
    explore(|| {
        let mut pair = pair(usize::MAX);
        let connection = pair.connection.clone();
        let delivering = |first: u8| {
            let connection = connection.clone();
            thread::spawn(move || {
                for (byte, len) in [(first, 2 * LONG), (first + 1, 10), (first + 2, 3 * LONG)] {
                    if deliver(&connection, byte, len).has(DeliveryStatus::DIRTY) {
                        thread::yield_now();
                        connection.flush();
                    }
                }
            })
        };
        let pausing = {
            let connection = connection.clone();
            thread::spawn(move || {
                let delivery =
                    with_mixed_run(&[30; LONG], &[0, 1], true, |run| connection.deliver_mixed(run));
                thread::yield_now();
                connection.resume_sending();
                if delivery.has(DeliveryStatus::DIRTY) {
                    connection.flush();
                }
            })
        };
        let threads = [delivering(10), delivering(20), pausing];
        let housekeeping = {
            let connection = connection.clone();
            thread::spawn(move || {
                connection.retry_write(Instant::now(), Duration::MAX, 0);
                connection.send_nop();
            })
        };
        // a keep-alive may be among them, or not
        let wanted = 2 * (5 * LONG + 10 + 3 * AROUND) + 2 * (LONG + AROUND);
        let all = read(&mut pair.peer, wanted);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        housekeeping.join().unwrap();
        assert!(all.len() <= wanted + 6);
        let found: Vec<_> = frames_without_nops(&all);
        for first in [10, 20] {
            let of: Vec<_> = found.iter().filter(|(byte, _)| (first..first + 3).contains(byte)).collect();
            assert_eq!(of, [&(first, 2 * LONG), &(first + 1, 10), &(first + 2, 3 * LONG)]);
        }
    });
}

/// As [`frames`], with keep-alives, which are six zeros, left out.
fn frames_without_nops(all: &[u8]) -> Vec<(u8, usize)> {
    let (mut rest, mut kept) = (all, vec![]);
    while let Some(header) = rest.first_chunk::<6>() {
        let body = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let length = if *header == elbus_protocol::delivery::NOP { 6 } else { 6 + body };
        let (frame, after) = rest.split_at(length);
        if length > 6 {
            kept.extend_from_slice(frame);
        }
        rest = after;
    }
    frames(&kept)
}

/// Somebody waits for room in a full queue while it is read empty, or the connection ends.
fn wait_for_room(ends: bool) {
    let mut pair = pair(LONG);
    let connection = pair.connection.clone();
    let mut sent = 0;
    while !connection.is_blocked() {
        deliver(&connection, 1, LONG);
        connection.flush();
        sent += LONG + AROUND;
    }
    deliver(&connection, 1, LONG);
    sent += LONG + AROUND;
    let woken = Arc::<AtomicUsize>::default();
    let waiting = {
        let (connection, woken) = (connection.clone(), woken.clone());
        thread::spawn(move || {
            let notifier = Notifier::new(move || _ = woken.fetch_add(1, SeqCst));
            connection.when_drained(notifier, Side::Senders);
        })
    };
    let pushing = {
        let connection = connection.clone();
        thread::spawn(move || connection.retry_write(Instant::now(), Duration::MAX, 0))
    };
    if ends {
        connection.close(CloseReason::Gone);
    } else {
        read(&mut pair.peer, sent);
    }
    waiting.join().unwrap();
    pushing.join().unwrap();
    // the writer may have the last of it still to do
    while woken.load(SeqCst) == 0 {
        thread::yield_now();
    }
    assert_eq!(woken.load(SeqCst), 1);
}

#[test]
fn a_waiter_is_notified_once_when_there_is_room() {
    explore(|| wait_for_room(false));
}

#[test]
fn a_waiter_is_notified_once_when_the_connection_closes() {
    explore(|| wait_for_room(true));
}

#[test]
fn the_reader_hears_of_the_end() {
    explore(|| {
        let pair = pair(LONG);
        let (closed, read) = (pair.connection.clone(), pair.connection.clone());
        let closing = thread::spawn(move || closed.close(CloseReason::Gone));
        // few threads, so that the end often falls between any two steps of the reader
        let reading = future::spawn(async move { read.wait_unless_closed(std::future::pending()).await });
        closing.join().unwrap();
        future::block_on(reading).unwrap();
        assert!(pair.connection.is_closed());
    });
}

#[test]
fn the_reader_hears_of_the_end_and_the_first_reason_stands() {
    explore(|| {
        let pair = pair(LONG);
        let connection = pair.connection.clone();
        let closing: Vec<_> = [CloseReason::Left, CloseReason::Gone]
            .into_iter()
            .map(|reason| {
                let connection = connection.clone();
                thread::spawn(move || connection.close(reason))
            })
            .collect();
        let delivering = {
            let connection = connection.clone();
            thread::spawn(move || {
                // taken before the end, or refused after it
                if deliver(&connection, 1, 10) == DeliveryStatus::CLOSED {
                    assert!(connection.is_closed());
                } else {
                    connection.flush();
                }
            })
        };
        // a future of its own, so that it begins at any moment
        let reader = connection.clone();
        let reading = future::spawn(async move { reader.wait_unless_closed(std::future::pending()).await });
        future::block_on(reading).unwrap();
        assert!(connection.is_closed());
        closing.into_iter().for_each(|thread| thread.join().unwrap());
        delivering.join().unwrap();
        assert!(connection.close_reason().is_some());
        assert!(connection.lock().queue.is_empty());
    });
}
