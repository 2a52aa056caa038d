//! Requests and replies, one at a time. Measures the round trip.

use elbus_protocol::rpc;
use std::{
    sync::{Arc, Barrier},
    time::Instant,
};

use super::{Plan, RunLength, Scenario, Traffic, latency::LatencyHistogram, sequence::number_at};
use crate::{
    BoxError,
    driver::{Client, ConnectOptions, Driver, Envelope, MessageKind},
    names::{self, Side},
    process::UsageMeter,
};

/// Messages between two reads of acknowledgements.
const READ_ACKS_EVERY: u64 = 256;
/// Round trips before the measurement.
const WARM_UP: u64 = 200;
/// The number that ends the responder.
const END: u64 = u64::MAX;
/// The bytes of an RPC reply before the result.
const REPLY_HEADER_BYTES: usize = 5;

pub(super) fn run<D: Driver + 'static>(plan: &Plan) -> Result<Traffic, BoxError> {
    let start = Arc::new(Barrier::new(plan.pairs + 1));
    let mut requesters = Vec::new();
    let mut responders = Vec::new();
    for group in 0..plan.pairs {
        let mut requester = Requester::<D>::new(plan, group)?;
        if plan.scenario == Scenario::Echo {
            let mut responder = Responder::<D>::new(plan, group)?;
            responders.push(std::thread::spawn(move || responder.run()));
        }
        plan.wait_for_names();
        let (start, length) = (start.clone(), plan.length);
        requesters.push(std::thread::spawn(move || requester.run(length, &start)));
    }
    start.wait();
    let meter = UsageMeter::start(plan.broker_pid);
    let mut latency = LatencyHistogram::new()?;
    for thread in requesters {
        // the responder of a failed requester is not joined, as it waits for a request until its timeout
        latency.merge(&thread.join().map_err(|_| "a requesting thread panicked")??)?;
    }
    let usage = meter.stop();
    for thread in responders {
        thread.join().map_err(|_| "a responding thread panicked")??;
    }
    Ok(Traffic::new(plan, latency.samples(), &usage, &latency))
}

/// A client that sends one frame again and again, each time with another number.
struct Endpoint<D> {
    client: Client<D>,
    frame: Vec<u8>,
    /// The offset in the frame of the number that relates a reply to its request.
    number_offset: usize,
    acks_per_frame: u64,
    sent: u64,
}

impl<D: Driver> Endpoint<D> {
    /// `header` precedes the payload in what is sent; what is received has `received_bytes`.
    fn connect(
        plan: &Plan,
        side: Side,
        name: &str,
        target: String,
        header: &[u8],
        received_bytes: usize,
    ) -> Result<Self, BoxError> {
        let options = ConnectOptions {
            address: plan.address_of(side),
            name,
            subscription: None,
            payload_bytes: received_bytes,
        };
        let client = Client::<D>::connect(&options)?;
        let payload = [header, &vec![b'x'; plan.bytes]].concat();
        let mut frame = Vec::new();
        let envelope = Envelope { kind: MessageKind::Direct, target, qos: plan.qos };
        let number_offset = client.sender.driver.encode(&mut frame, &envelope, &payload)? + header.len();
        let acks_per_frame = u64::from(D::acknowledges(plan.qos) && D::TWO_CONNECTIONS);
        Ok(Endpoint { client, frame, number_offset, acks_per_frame, sent: 0 })
    }

    #[inline]
    fn send(&mut self, number: u64) -> Result<(), BoxError> {
        if let Some(bytes) = self.frame.get_mut(self.number_offset..self.number_offset + 8) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        self.client.sender.send(&self.frame, self.acks_per_frame)?;
        self.sent += 1;
        if self.acks_per_frame > 0 && self.sent.is_multiple_of(READ_ACKS_EVERY) {
            self.client.sender.read_acks()?;
        }
        Ok(())
    }

    /// Waits in `poll`, as a client with several sockets does. A client that blocks in `recv` on a UNIX
    /// socket is also woken when the broker reads what it has sent: one more wake-up per request, which no
    /// broker can avoid.
    #[inline]
    fn receive(&mut self, accept: impl FnMut(&[u8]) -> Result<(), BoxError>) -> Result<(), BoxError> {
        self.client.receiver.connection.wait_readable()?;
        self.client.receive(accept)
    }
}

struct Requester<D> {
    endpoint: Endpoint<D>,
    /// The bytes of a reply before the echoed payload.
    reply_header_bytes: usize,
}

impl<D: Driver> Requester<D> {
    fn new(plan: &Plan, group: usize) -> Result<Self, BoxError> {
        let name = names::client(group, Side::Sender, 0);
        let (target, header, reply_header_bytes) = match plan.scenario {
            Scenario::Call => {
                let header = [&[rpc::REQUEST, 1, 0, 0, 0], b"benchmark.test\0".as_slice()].concat();
                (".broker".to_owned(), header, REPLY_HEADER_BYTES)
            }
            _ => {
                let name = names::client(group, Side::Receiver, 0);
                (plan.reached_as(Side::Receiver, name), Vec::new(), 0)
            }
        };
        let received = reply_header_bytes + plan.bytes;
        let endpoint = Endpoint::connect(plan, Side::Sender, &name, target, &header, received)?;
        Ok(Requester { endpoint, reply_header_bytes })
    }

    fn run(&mut self, length: RunLength, start: &Barrier) -> Result<LatencyHistogram, BoxError> {
        // an error before the start would leave the other threads at the barrier
        let warm_up = (0..WARM_UP).try_for_each(|number| self.round_trip(number));
        start.wait();
        warm_up?;
        let mut latency = LatencyHistogram::new()?;
        let (begin, mut number) = (Instant::now(), WARM_UP);
        let mut previous = begin;
        loop {
            self.round_trip(number)?;
            let now = Instant::now();
            latency.record((now - previous).as_nanos() as u64);
            previous = now;
            number += 1;
            let done = match length {
                RunLength::Messages(messages) => latency.samples() >= messages,
                RunLength::Time(time) => now - begin >= time,
            };
            if done {
                self.endpoint.send(END)?;
                return Ok(latency);
            }
        }
    }

    #[inline]
    fn round_trip(&mut self, number: u64) -> Result<(), BoxError> {
        self.endpoint.send(number)?;
        let mut replied = false;
        while !replied {
            self.endpoint.receive(|payload| match number_at(payload, self.reply_header_bytes) {
                Some(reply) if reply == number && !replied => {
                    replied = true;
                    Ok(())
                }
                reply => Err(format!("received reply {reply:?}, expected {number}").into()),
            })?;
        }
        Ok(())
    }
}

struct Responder<D> {
    endpoint: Endpoint<D>,
}

impl<D: Driver> Responder<D> {
    fn new(plan: &Plan, group: usize) -> Result<Self, BoxError> {
        let name = names::client(group, Side::Receiver, 0);
        let target = plan.reached_as(Side::Sender, names::client(group, Side::Sender, 0));
        let endpoint = Endpoint::connect(plan, Side::Receiver, &name, target, &[], plan.bytes)?;
        Ok(Responder { endpoint })
    }

    fn run(&mut self) -> Result<(), BoxError> {
        loop {
            let mut request = None;
            self.endpoint.receive(|payload| match (number_at(payload, 0), request) {
                (Some(number), None) => {
                    request = Some(number);
                    Ok(())
                }
                (number, _) => {
                    Err(format!("received request {number:?} before the reply to the previous one").into())
                }
            })?;
            match request {
                Some(END) => return Ok(()),
                Some(number) => self.endpoint.send(number)?,
                None => {} // the frame is not complete yet
            }
        }
    }
}
