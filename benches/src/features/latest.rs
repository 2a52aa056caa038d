//! A reader of newest values beside a fast reader: how old its values are, and what the fast one loses.

use elbus_protocol::Op;
use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use super::{
    Run, Settings,
    broker::Broker,
    client::{BATCH, Frames, PAYLOAD_BYTES, connect, number_of},
};
use crate::BoxError;

const TOPIC: &str = "value";
const PER_SECOND: u64 = 1_000_000;
/// The time between two times that the slow reader empties its socket.
const INTERVAL: Duration = Duration::from_millis(10);

pub(super) fn run(settings: &Settings, is_read: bool) -> Result<Run, BoxError> {
    let broker = Broker::start(settings, &[])?;
    let mut fast = connect(&broker.address(), "fast", TOPIC)?;
    let filter = format!("$latest/{TOPIC}");
    let slow = if is_read { Some(connect(&broker.address(), "slow", &filter)?) } else { None };
    let mut publisher = connect(&broker.address(), "publisher", "")?;
    let (begin, is_over) = (Instant::now(), AtomicBool::new(false));
    thread::scope(|scope| {
        let counting = scope.spawn(move || -> Result<u64, BoxError> {
            let (mut count, mut is_last) = (0, false);
            while !is_last {
                fast.receive(|payload| {
                    is_last = number_of(payload) == u64::MAX;
                    count += 1;
                    Ok(())
                })?;
            }
            Ok(count)
        });
        let is_over = &is_over;
        let reading = slow.map(|slow| {
            scope.spawn(move || {
                let mut ages = Ages::default();
                while !is_over.load(SeqCst) {
                    thread::sleep(INTERVAL);
                    while slow.receiver.connection.try_receive(&mut ages.bytes)? {}
                    ages.take(begin);
                }
                Ok::<_, BoxError>(ages)
            })
        });
        let mut frames = Frames::new(Op::Publish, TOPIC)?;
        let mut sent = 0;
        while begin.elapsed() < settings.time {
            let due = begin.elapsed().as_nanos() as u64 / (1_000_000_000 / PER_SECOND);
            if sent + BATCH as u64 > due {
                thread::sleep(Duration::from_micros(200));
                continue;
            }
            let nanos = begin.elapsed().as_nanos() as u64;
            publisher.sender.send(frames.numbered(BATCH, nanos), 0)?;
            sent += BATCH as u64;
        }
        is_over.store(true, SeqCst);
        publisher.sender.send(frames.numbered(1, u64::MAX), 0)?;
        let count = counting.join().map_err(|_| "the fast reader panicked")??;
        if count != sent + 1 {
            return Err(format!("{count} messages arrived, expected {}", sent + 1).into());
        }
        let run = Run::new(count as f64 / begin.elapsed().as_secs_f64());
        let Some(reading) = reading else { return Ok(run) };
        let mut ages = reading.join().map_err(|_| "the slow reader panicked")??.ages;
        ages.sort_unstable();
        let age = |part: f64| {
            let index = ((ages.len() as f64 * part) as usize).min(ages.len().saturating_sub(1));
            ages.get(index).map_or(f64::NAN, |nanos| *nanos as f64 / 1e6)
        };
        Ok(run
            .with("values read", ages.len() as f64)
            .with("age in ms, median", age(0.5))
            .with("age in ms, 99 %", age(0.99))
            .with("age in ms, oldest", age(1.0)))
    })
}

/// How old values were when they were read.
#[derive(Default)]
struct Ages {
    bytes: Vec<u8>,
    ages: Vec<u64>,
}

impl Ages {
    /// Takes the complete frames. Each payload is the end of its frame.
    fn take(&mut self, begin: Instant) {
        let now = begin.elapsed().as_nanos() as u64;
        let mut left = &self.bytes[..];
        while let Some([_, length @ .., _]) = left.first_chunk::<6>() {
            let end = 6 + u32::from_le_bytes(*length) as usize;
            let Some((frame, behind)) = left.split_at_checked(end) else { break };
            left = behind;
            let payload = frame.len().saturating_sub(PAYLOAD_BYTES);
            match number_of(frame.get(payload..).unwrap_or_default()) {
                u64::MAX => {}
                nanos => self.ages.push(now.saturating_sub(nanos)),
            }
        }
        let left = left.len();
        self.bytes.drain(..self.bytes.len() - left);
    }
}
