//! Load without sockets: a broker inside the generator, and its in-process clients. Broker and clients share
//! the process, so the broker's CPU time includes the generator's.

use elbus_broker::{Broker, PluginDeclaration};
use elbus_plugin_api::{Qos, inproc::InprocClient};
use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Barrier},
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::{Duration, Instant},
};

use super::{
    Plan, RunLength, Scenario, Traffic,
    latency::LatencyHistogram,
    mix::{self, Mix},
    sequence,
    sequence::SequenceCheck,
    window::Window,
};
use crate::{
    BoxError, driver,
    names::{self, Side},
    process::UsageMeter,
};

/// Wakes a thread that waits for a future.
struct ThreadWaker(Thread);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future. Most are ready immediately.
fn block_on<F: Future>(waker: &Waker, future: F) -> F::Output {
    let (mut future, mut context) = (pin!(future), Context::from_waker(waker));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

fn thread_waker() -> Waker {
    Waker::from(Arc::new(ThreadWaker(std::thread::current())))
}

pub(super) fn run(plan: &Plan) -> Result<Traffic, BoxError> {
    let broker = Broker::builder()
        .plugin(PluginDeclaration::linked("clients", elbus_inproc::plugin()))
        .plugin(PluginDeclaration::linked("rpc", elbus_rpc::plugin()))
        .start()?;
    let result = match plan.scenario {
        Scenario::Echo | Scenario::Call => round_trips(plan, &broker),
        _ => stream(plan, &broker),
    };
    broker.stop(Duration::from_secs(1)).wait();
    result
}

fn connect(broker: &Broker, group: usize, side: Side, index: usize) -> Result<InprocClient, BoxError> {
    let name = names::client(group, side, index);
    broker.connect(&name).map_err(|code| format!("{name} could not connect: {code:?}").into())
}

fn stream(plan: &Plan, broker: &Broker) -> Result<Traffic, BoxError> {
    let threads = plan.pairs * (plan.receivers() + plan.senders()) + 1;
    let (start, begin) = (Barrier::new(threads), Instant::now());
    let mut groups = Vec::new();
    for group in 0..plan.pairs {
        let (mut receivers, mut senders) = (Vec::new(), Vec::new());
        for index in 0..plan.receivers() {
            let client = connect(broker, group, Side::Receiver, index)?;
            if let Some(subscription) = mix::subscription(plan, group, index)? {
                for filter in &subscription.filters {
                    client.subscribe(filter).map_err(|code| format!("could not subscribe: {code:?}"))?;
                }
            }
            receivers.push((client, SequenceCheck::new(plan.senders(), begin)?));
        }
        for index in 0..plan.senders() {
            senders.push(connect(broker, group, Side::Sender, index)?);
        }
        groups.push((Window::new(plan.window, plan.receivers(), plan.senders()), receivers, senders));
    }
    std::thread::scope(|scope| {
        let (mut receiving, mut sending) = (Vec::new(), Vec::new());
        for (group, (window, receivers, senders)) in groups.iter_mut().enumerate() {
            let (start, window) = (&start, &*window);
            for (index, (client, check)) in receivers.iter_mut().enumerate() {
                receiving.push(scope.spawn(move || {
                    start.wait();
                    receive(plan, client, index, window, check).inspect_err(|_| window.fail())?;
                    Ok::<_, BoxError>(check)
                }));
            }
            for (index, client) in senders.iter().enumerate() {
                sending.push(scope.spawn(move || {
                    start.wait();
                    send(plan, client, group, index, window, begin).inspect_err(|_| window.fail())
                }));
            }
        }
        start.wait();
        let meter = UsageMeter::start(Some(std::process::id()));
        let (mut received, mut sent, mut latency) = (0, 0, LatencyHistogram::new()?);
        let checks: Vec<_> = receiving.into_iter().map(|thread| thread.join()).collect();
        let usage = meter.stop();
        for check in checks {
            let check = check.map_err(|_| "a receiving thread panicked")??;
            received += check.total_received();
            latency.merge(check.latency())?;
        }
        for thread in sending {
            sent += thread.join().map_err(|_| "a sending thread panicked")??;
        }
        let expected = sent * plan.copies() as u64;
        if received != expected {
            return Err(format!("{received} messages arrived, expected {expected}").into());
        }
        Ok(Traffic::new(plan, received, &usage, &latency))
    })
}

fn receive(
    plan: &Plan,
    client: &InprocClient,
    receiver: usize,
    window: &Window,
    check: &mut SequenceCheck,
) -> Result<(), BoxError> {
    let mix = Mix::of(plan);
    while !check.is_complete() {
        check.begin_read();
        let first = client
            .receive_timeout(driver::TIMEOUT)
            .ok_or("a message is lost, or the client was disconnected")?;
        let mut next = Some(first);
        while let Some(message) = next {
            if !message.sender().starts_with('.') {
                check.accept(message.payload())?;
            }
            // messages that arrived together count as one read
            next = if check.is_complete() { None } else { client.try_receive() };
            if next.is_none() || check.received(0).is_multiple_of(64) {
                for sender in 0..plan.senders() {
                    window.advance(receiver, sender, mix.progress(receiver, check.received(sender)));
                }
                check.begin_read();
            }
        }
    }
    Ok(())
}

fn send(
    plan: &Plan,
    client: &InprocClient,
    group: usize,
    sender: usize,
    window: &Window,
    begin: Instant,
) -> Result<u64, BoxError> {
    let (waker, qos) = (thread_waker(), Qos::from_bits(plan.qos));
    let (mix, destinations) = (Mix::of(plan), mix::destinations(plan, group, sender));
    let closing = mix.shares() as u64;
    let mut numbers = vec![0; mix.shares()];
    let (start, batch) = (Instant::now(), plan.batch as u64);
    let (deadline, limit) = match plan.length {
        RunLength::Messages(messages) => (None, messages.saturating_sub(closing)),
        RunLength::Time(time) => (Some(start + time), u64::MAX),
    };
    // the last message of each share follows the others
    let (mut sent, mut slowest, mut closed) = (0, 0, 0);
    let mut last = limit == 0;
    while closed < closing {
        let mut timestamp = 0;
        if sent % batch == 0 {
            window.wait(sender, sent, batch, &mut slowest)?;
            if let Some(rate) = plan.rate {
                let due = start + Duration::from_secs_f64(sent as f64 / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            timestamp = sequence::nanos_since(begin);
            last |= deadline.is_some_and(|deadline| Instant::now() >= deadline);
        }
        last |= sent >= limit;
        let destination = if last { closed as usize } else { mix.destination(sent as usize) };
        let target = destinations.get(destination).ok_or("a destination has no name")?;
        let number = &mut numbers[mix.share(destination)];
        let mut payload = vec![b'x'; plan.bytes];
        sequence::stamp(&mut payload, sender, *number, last, timestamp);
        *number += 1;
        closed += u64::from(last);
        let sending = async {
            match plan.scenario {
                Scenario::Topic => client.publish(target, payload, qos).await,
                Scenario::Broadcast => client.broadcast(target, payload, qos).await,
                _ => client.send(target, payload, qos).await,
            }
        };
        block_on(&waker, sending).map_err(|code| format!("message {sent} was refused: {code:?}"))?;
        sent += 1;
    }
    Ok(sent)
}

/// Requests and replies. As over sockets, each side has a thread.
fn round_trips(plan: &Plan, broker: &Broker) -> Result<Traffic, BoxError> {
    let mut clients = Vec::new();
    for group in 0..plan.pairs {
        clients.push((connect(broker, group, Side::Sender, 0)?, connect(broker, group, Side::Receiver, 0)?));
    }
    let meter = UsageMeter::start(Some(std::process::id()));
    std::thread::scope(|scope| {
        let mut requesters = Vec::new();
        for (requester, responder) in &clients {
            if plan.scenario == Scenario::Echo {
                scope.spawn(move || respond(plan, responder));
            }
            requesters.push(scope.spawn(move || request(plan, requester, responder.name())));
        }
        let mut latency = LatencyHistogram::new()?;
        for thread in requesters {
            latency.merge(&thread.join().map_err(|_| "a requesting thread panicked")??)?;
        }
        Ok(Traffic::new(plan, latency.samples(), &meter.stop(), &latency))
    })
}

/// Sends each message back to its sender, until one is empty.
fn respond(plan: &Plan, client: &InprocClient) {
    let (waker, qos) = (thread_waker(), Qos::from_bits(plan.qos));
    while let Some(message) = client.receive_timeout(driver::TIMEOUT) {
        if message.sender().starts_with('.') {
            continue;
        }
        let reply = message.to_payload();
        if reply.is_empty() || block_on(&waker, client.send(message.sender(), reply, qos)).is_err() {
            return;
        }
    }
}

fn request(plan: &Plan, client: &InprocClient, responder: &str) -> Result<LatencyHistogram, BoxError> {
    let (waker, qos) = (thread_waker(), Qos::from_bits(plan.qos));
    let (target, header, reply_header_bytes) = match plan.scenario {
        Scenario::Call => (".broker", b"\x01\x01\0\0\0benchmark.test\0".as_slice(), 5),
        _ => (responder, b"".as_slice(), 0),
    };
    let (begin, mut latency, mut number) = (Instant::now(), LatencyHistogram::new()?, 0u64);
    loop {
        let before = Instant::now();
        let mut payload = vec![b'x'; header.len() + plan.bytes];
        payload[..header.len()].copy_from_slice(header);
        payload[header.len()..header.len() + 8].copy_from_slice(&number.to_le_bytes());
        block_on(&waker, client.send(target, payload, qos))
            .map_err(|code| format!("request {number} was refused: {code:?}"))?;
        let reply = client.receive_timeout(driver::TIMEOUT).ok_or("a reply is lost")?;
        let reply = sequence::number_at(reply.payload(), reply_header_bytes);
        if reply != Some(number) {
            return Err(format!("received reply {reply:?}, expected {number}").into());
        }
        latency.record(before.elapsed().as_nanos() as u64);
        number += 1;
        let done = match plan.length {
            RunLength::Messages(messages) => number >= messages,
            RunLength::Time(time) => begin.elapsed() >= time,
        };
        if done {
            if plan.scenario == Scenario::Echo {
                let end = client.send(target, Vec::new(), qos);
                block_on(&waker, end).map_err(|code| format!("the last request was refused: {code:?}"))?;
            }
            return Ok(latency);
        }
    }
}
