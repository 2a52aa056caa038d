//! Shared work: senders that publish to a topic which workers share, compared with as many senders that each
//! have a receiver of their own.

use elbus_protocol::Op;
use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use super::{
    Run, Settings,
    broker::Broker,
    client::{BATCH, Frames, connect, number_of},
};
use crate::BoxError;

const CLIENTS: usize = 8;
/// Messages in flight of each sender.
const WINDOW: u64 = 4096;
/// The number of a message that ends its receiver.
const END: u64 = u64::MAX;
const TOPIC: &str = "jobs/all";

pub(super) fn run(settings: &Settings, shared: bool) -> Result<Run, BoxError> {
    let broker = Broker::start(settings, &[])?;
    let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
    let name = |index: usize| format!("worker.{index}");
    let filter = if shared { format!("$share/workers/{TOPIC}") } else { String::new() };
    let mut workers = Vec::new();
    for index in 0..CLIENTS {
        workers.push(connect(&broker.address(), &name(index), &filter)?);
    }
    let mut senders = Vec::new();
    for index in 0..CLIENTS {
        let (op, target) = if shared { (Op::Publish, TOPIC.to_owned()) } else { (Op::Message, name(index)) };
        senders
            .push((connect(&broker.address(), &format!("sender.{index}"), "")?, Frames::new(op, &target)?));
    }
    let mut closing = connect(&broker.address(), "closing", "")?;
    let (mut most, mut elapsed) = (0, Duration::ZERO);
    thread::scope(|scope| {
        let workers: Vec<_> = workers
            .into_iter()
            .map(|mut client| {
                let received = &received;
                scope.spawn(move || -> Result<u64, BoxError> {
                    let (mut own, mut is_over) = (0, false);
                    while !is_over {
                        let before = own;
                        client.receive(|payload| {
                            is_over = number_of(payload) == END;
                            own += u64::from(!is_over);
                            Ok(())
                        })?;
                        received.fetch_add(own - before, SeqCst);
                    }
                    Ok(own)
                })
            })
            .collect();
        let begin = Instant::now();
        let senders: Vec<_> = senders
            .into_iter()
            .map(|(mut client, mut frames)| {
                let (sent, received) = (&sent, &received);
                scope.spawn(move || -> Result<(), BoxError> {
                    let batch = frames.numbered(BATCH, 0);
                    while begin.elapsed() < settings.time {
                        client.sender.send(batch, 0)?;
                        sent.fetch_add(BATCH as u64, SeqCst);
                        while sent.load(SeqCst) > received.load(SeqCst) + CLIENTS as u64 * WINDOW {
                            thread::sleep(Duration::from_micros(50));
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        for sender in senders {
            sender.join().map_err(|_| "a sender panicked")??;
        }
        while received.load(SeqCst) < sent.load(SeqCst) {
            if begin.elapsed() > settings.time + crate::driver::TIMEOUT {
                return Err("messages are lost".into());
            }
            thread::sleep(Duration::from_micros(50));
        }
        elapsed = begin.elapsed();
        for index in 0..CLIENTS {
            closing.sender.send(Frames::new(Op::Message, &name(index))?.numbered(1, END), 0)?;
        }
        for worker in workers {
            most = most.max(worker.join().map_err(|_| "a worker panicked")??);
        }
        Ok::<_, BoxError>(())
    })?;
    let total = sent.into_inner();
    if received.into_inner() != total {
        return Err("more messages arrived than were sent".into());
    }
    let share = most as f64 * CLIENTS as f64 / total as f64;
    Ok(Run::new(total as f64 / elapsed.as_secs_f64()).with("most of a worker, 1 is equal", share))
}
