//! Requests and replies, one at a time: what is measured is the round trip.

use elbus_protocol::rpc;
use std::{
    sync::{Arc, Barrier},
    time::Instant,
};

use super::{Bound, Plan, Scenario, Traffic};
use crate::{
    Failure,
    driver::{Client, Dialect, Joining, Kind, Letter},
    histogram::Histogram,
    names::{self, Side},
    process::Stopwatch,
};

/// Answers to publications are collected once in so many rounds.
const COLLECT_EVERY: u64 = 256;
/// Rounds before the clock starts.
const WARM_UP: u64 = 200;
/// Says to the answering side that it is over.
const END: u64 = u64::MAX;
const METHOD: &[u8] = b"benchmark.test";

pub(super) fn run<D: Dialect + 'static>(plan: &Plan) -> Result<Traffic, Failure> {
    let start = Arc::new(Barrier::new(plan.pairs + 1));
    let mut asking = Vec::new();
    let mut answering = Vec::new();
    for group in 0..plan.pairs {
        let mut asker = Asker::<D>::new(plan, group)?;
        if plan.scenario == Scenario::Echo {
            let mut answerer = Answerer::<D>::new(plan, group)?;
            answering.push(std::thread::spawn(move || answerer.run()));
        }
        let (start, bound) = (start.clone(), plan.bound);
        asking.push(std::thread::spawn(move || asker.run(bound, &start)));
    }
    start.wait();
    let watch = Stopwatch::start(plan.broker);
    let mut latency = Histogram::new();
    for thread in asking {
        // who answers somebody that has failed waits in vain, and is left behind
        latency.merge(&thread.join().map_err(|_| "an asking thread panicked")??);
    }
    let used = watch.stop();
    for thread in answering {
        thread.join().map_err(|_| "an answering thread panicked")??;
    }
    Ok(Traffic::new(plan, latency.samples(), &used, &latency))
}

/// A client with the one frame that it sends.
struct Turn<D> {
    client: Client<D>,
    frame: Vec<u8>,
    /// Where the number of the round is: it makes sure that a reply is the one to the request.
    number: usize,
    asks: u64,
    sent: u64,
}

impl<D: Dialect> Turn<D> {
    /// `head` precedes what is echoed, also in what is received.
    fn new(plan: &Plan, name: &str, to: String, head: &[u8], reply: usize) -> Result<Self, Failure> {
        let client =
            Client::<D>::join(&Joining { address: &plan.address, name, topic: None, payload_bytes: reply })?;
        let payload = [head, &vec![b'x'; plan.bytes]].concat();
        let mut frame = Vec::new();
        let letter = Letter { kind: Kind::Message, to, qos: plan.qos };
        let number = client.sending.dialect.encode(&mut frame, &letter, &payload)? + head.len();
        let asks = u64::from(D::answers(plan.qos) && D::TWO_LINES);
        Ok(Turn { client, frame, number, asks, sent: 0 })
    }

    #[inline]
    fn send(&mut self, number: u64) -> Result<(), Failure> {
        if let Some(place) = self.frame.get_mut(self.number..self.number + 8) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        self.client.sending.send(&self.frame, self.asks)?;
        self.sent += 1;
        if self.asks > 0 && self.sent.is_multiple_of(COLLECT_EVERY) {
            self.client.sending.collect_answers()?;
        }
        Ok(())
    }

    /// Waits as whoever has several sockets does. A client that sleeps in `recv` on a UNIX socket is also woken when the
    /// broker takes in what it has sent: each request would be a wake-up more that no broker can help.
    #[inline]
    fn receive(&mut self, take: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        self.client.receiving.line.wait_readable()?;
        self.client.receive(take)
    }
}

fn number_behind(payload: &[u8], head: usize) -> Option<u64> {
    payload.get(head..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

struct Asker<D> {
    turn: Turn<D>,
    /// Bytes before what is echoed, in a reply.
    reply_head: usize,
}

impl<D: Dialect> Asker<D> {
    fn new(plan: &Plan, group: usize) -> Result<Self, Failure> {
        let name = names::client(group, Side::Writer, 0);
        let (to, head, reply_head) = match plan.scenario {
            Scenario::Call => {
                let head = [&[rpc::REQUEST, 1, 0, 0, 0], METHOD, &[0]].concat();
                (".broker".to_owned(), head, 5)
            }
            _ => (names::client(group, Side::Reader, 0), Vec::new(), 0),
        };
        let turn = Turn::new(plan, &name, to, &head, reply_head + plan.bytes)?;
        Ok(Asker { turn, reply_head })
    }

    fn run(&mut self, bound: Bound, start: &Barrier) -> Result<Histogram, Failure> {
        // whoever fails must not leave the others waiting
        let warm = (0..WARM_UP).try_for_each(|number| self.round(number));
        start.wait();
        warm?;
        let mut times = Histogram::new();
        let (begin, mut number) = (Instant::now(), WARM_UP);
        let mut before = begin;
        loop {
            self.round(number)?;
            let now = Instant::now();
            times.record((now - before).as_nanos() as u64);
            before = now;
            number += 1;
            let over = match bound {
                Bound::Messages(messages) => times.samples() >= messages,
                Bound::Time(time) => now - begin >= time,
            };
            if over {
                self.turn.send(END)?;
                return Ok(times);
            }
        }
    }

    #[inline]
    fn round(&mut self, number: u64) -> Result<(), Failure> {
        self.turn.send(number)?;
        let mut came = false;
        while !came {
            self.turn.receive(|payload| match number_behind(payload, self.reply_head) {
                Some(reply) if reply == number && !came => {
                    came = true;
                    Ok(())
                }
                other => Err(format!("reply {other:?} came where {number} was due").into()),
            })?;
        }
        Ok(())
    }
}

struct Answerer<D> {
    turn: Turn<D>,
}

impl<D: Dialect> Answerer<D> {
    fn new(plan: &Plan, group: usize) -> Result<Self, Failure> {
        let name = names::client(group, Side::Reader, 0);
        let to = names::client(group, Side::Writer, 0);
        Ok(Answerer { turn: Turn::new(plan, &name, to, &[], plan.bytes)? })
    }

    fn run(&mut self) -> Result<(), Failure> {
        loop {
            let mut asked = None;
            self.turn.receive(|payload| match (number_behind(payload, 0), asked) {
                (Some(number), None) => {
                    asked = Some(number);
                    Ok(())
                }
                (number, _) => Err(format!("request {number:?} came before the last was answered").into()),
            })?;
            match asked {
                Some(END) => return Ok(()),
                Some(number) => self.turn.send(number)?,
                None => {} // a part of one
            }
        }
    }
}
