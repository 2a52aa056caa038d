//! Loads without a socket: a broker inside the generator, and its in-process clients. What is measured is broker, plugin
//! and client of one process, so the CPU of the broker is that of the generator.

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

use super::{Bound, Plan, Scenario, Traffic, sequence, sequence::Check, window::Window};
use crate::{
    Failure, driver,
    histogram::Histogram,
    names::{self, Side},
    process::Stopwatch,
};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future; most are ready at once.
fn block_on<F: Future>(waker: &Waker, future: F) -> F::Output {
    let (mut future, mut context) = (pin!(future), Context::from_waker(waker));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

fn waker_of_thread() -> Waker {
    Waker::from(Arc::new(Unpark(std::thread::current())))
}

pub(super) fn run(plan: &Plan) -> Result<Traffic, Failure> {
    let broker = Broker::builder()
        .plugin(PluginDeclaration::linked("clients", elbus_inproc::plugin()))
        .plugin(PluginDeclaration::linked("rpc", elbus_rpc::plugin()))
        .start()?;
    let result = match plan.scenario {
        Scenario::Echo | Scenario::Call => turns(plan, &broker),
        _ => stream(plan, &broker),
    };
    broker.stop(Duration::from_secs(1)).wait();
    result
}

fn connect(broker: &Broker, group: usize, side: Side, index: usize) -> Result<InprocClient, Failure> {
    let name = names::client(group, side, index);
    broker.connect(&name).map_err(|code| format!("{name} could not connect: {code:?}").into())
}

fn stream(plan: &Plan, broker: &Broker) -> Result<Traffic, Failure> {
    let threads = plan.pairs * (plan.readers() + plan.writers()) + 1;
    let (start, begin) = (Barrier::new(threads), Instant::now());
    let mut groups = Vec::new();
    for group in 0..plan.pairs {
        let (mut readers, mut writers) = (Vec::new(), Vec::new());
        for index in 0..plan.readers() {
            let client = connect(broker, group, Side::Reader, index)?;
            if plan.scenario == Scenario::Topic {
                client
                    .subscribe(&names::topic(group))
                    .map_err(|code| format!("no subscription: {code:?}"))?;
            }
            readers.push(client);
        }
        for index in 0..plan.writers() {
            writers.push(connect(broker, group, Side::Writer, index)?);
        }
        groups.push((Window::new(plan.readers(), plan.writers()), readers, writers));
    }
    std::thread::scope(|scope| {
        let (mut reading, mut writing) = (Vec::new(), Vec::new());
        for (group, (window, readers, writers)) in groups.iter().enumerate() {
            let start = &start;
            for (index, client) in readers.iter().enumerate() {
                reading.push(scope.spawn(move || {
                    start.wait();
                    let check = Check::new(plan.writers(), begin);
                    read(plan, client, index, window, check).inspect_err(|_| window.fail())
                }));
            }
            for (index, client) in writers.iter().enumerate() {
                writing.push(scope.spawn(move || {
                    start.wait();
                    write(plan, client, group, index, window, begin).inspect_err(|_| window.fail())
                }));
            }
        }
        start.wait();
        let watch = Stopwatch::start(Some(std::process::id()));
        let (mut came, mut sent, mut latency) = (0, 0, Histogram::new());
        let checks: Vec<_> = reading.into_iter().map(|thread| thread.join()).collect();
        let used = watch.stop();
        for check in checks {
            let check = check.map_err(|_| "a reading thread panicked")??;
            came += check.came_in_all();
            latency.merge(&check.into_latency());
        }
        for thread in writing {
            sent += thread.join().map_err(|_| "a writing thread panicked")??;
        }
        match sent * plan.readers() as u64 {
            due if due == came => Ok(Traffic::new(plan, came, &used, &latency)),
            due => Err(format!("{came} messages came where {due} were due").into()),
        }
    })
}

fn read(
    plan: &Plan,
    client: &InprocClient,
    reader: usize,
    window: &Window,
    mut check: Check,
) -> Result<Check, Failure> {
    while !check.is_complete() {
        check.read();
        let first =
            client.receive_timeout(driver::PATIENCE).ok_or("a message is lost, or the client closed")?;
        let mut next = Some(first);
        while let Some(message) = next {
            if !message.sender().starts_with('.') {
                check.take(message.payload())?;
            }
            // the rest of what was received together
            next = if check.is_complete() { None } else { client.try_receive() };
            if next.is_none() || check.came(0).is_multiple_of(64) {
                for writer in 0..plan.writers() {
                    window.advance(reader, writer, check.came(writer));
                }
                check.read();
            }
        }
    }
    Ok(check)
}

fn write(
    plan: &Plan,
    client: &InprocClient,
    group: usize,
    writer: usize,
    window: &Window,
    begin: Instant,
) -> Result<u64, Failure> {
    let (waker, qos) = (waker_of_thread(), Qos::from_bits(plan.qos));
    let to = match plan.scenario {
        Scenario::Topic => names::topic(group),
        Scenario::Broadcast => names::readers(group),
        _ => names::client(group, Side::Reader, 0),
    };
    let (start, batch) = (Instant::now(), plan.batch as u64);
    let (until, most) = match plan.bound {
        Bound::Messages(messages) => (None, messages),
        Bound::Time(time) => (Some(start + time), u64::MAX),
    };
    let (mut sent, mut slowest, mut over) = (0, 0, false);
    while !over {
        let mut time = 0;
        if sent % batch == 0 {
            window.wait(writer, sent, batch.min(most - sent), plan.window as u64, &mut slowest)?;
            if let Some(rate) = plan.rate {
                let due = start + Duration::from_secs_f64(sent as f64 / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            time = sequence::nanos_since(begin);
            over = until.is_some_and(|until| Instant::now() >= until);
        }
        over |= sent + 1 == most;
        let mut payload = vec![b'x'; plan.bytes];
        sequence::stamp(&mut payload, writer, sent, over, time);
        let sending = async {
            match plan.scenario {
                Scenario::Topic => client.publish(&to, payload, qos).await,
                Scenario::Broadcast => client.broadcast(&to, payload, qos).await,
                _ => client.send(&to, payload, qos).await,
            }
        };
        block_on(&waker, sending).map_err(|code| format!("message {sent} was refused: {code:?}"))?;
        sent += 1;
    }
    Ok(sent)
}

/// One asker after the other would not be the same load as with sockets, so there is a thread for each side here, too.
fn turns(plan: &Plan, broker: &Broker) -> Result<Traffic, Failure> {
    let mut clients = Vec::new();
    for group in 0..plan.pairs {
        clients.push((connect(broker, group, Side::Writer, 0)?, connect(broker, group, Side::Reader, 0)?));
    }
    let watch = Stopwatch::start(Some(std::process::id()));
    std::thread::scope(|scope| {
        let mut asking = Vec::new();
        for (asker, answerer) in &clients {
            if plan.scenario == Scenario::Echo {
                scope.spawn(move || answer(plan, answerer));
            }
            asking.push(scope.spawn(move || ask(plan, asker, answerer.name())));
        }
        let mut latency = Histogram::new();
        for thread in asking {
            latency.merge(&thread.join().map_err(|_| "an asking thread panicked")??);
        }
        Ok(Traffic::new(plan, latency.samples(), &watch.stop(), &latency))
    })
}

/// Sends back what comes, until it is empty.
fn answer(plan: &Plan, client: &InprocClient) {
    let (waker, qos) = (waker_of_thread(), Qos::from_bits(plan.qos));
    while let Some(message) = client.receive_timeout(driver::PATIENCE) {
        if message.sender().starts_with('.') {
            continue;
        }
        let reply = message.to_payload();
        if reply.is_empty() || block_on(&waker, client.send(message.sender(), reply, qos)).is_err() {
            return;
        }
    }
}

fn ask(plan: &Plan, client: &InprocClient, answerer: &str) -> Result<Histogram, Failure> {
    let (waker, qos) = (waker_of_thread(), Qos::from_bits(plan.qos));
    let (to, head, reply_head) = match plan.scenario {
        Scenario::Call => (".broker", b"\x01\x01\0\0\0benchmark.test\0".as_slice(), 5),
        _ => (answerer, b"".as_slice(), 0),
    };
    let (begin, mut times, mut number) = (Instant::now(), Histogram::new(), 0u64);
    loop {
        let before = Instant::now();
        let mut payload = vec![b'x'; head.len() + plan.bytes];
        payload[..head.len()].copy_from_slice(head);
        payload[head.len()..head.len() + 8].copy_from_slice(&number.to_le_bytes());
        block_on(&waker, client.send(to, payload, qos)).map_err(|code| format!("refused: {code:?}"))?;
        let reply = client.receive_timeout(driver::PATIENCE).ok_or("a reply is lost")?;
        if reply.payload().get(reply_head..reply_head + 8) != Some(&number.to_le_bytes()[..]) {
            return Err(format!("a reply came that is not the one to request {number}").into());
        }
        times.record(before.elapsed().as_nanos() as u64);
        number += 1;
        let over = match plan.bound {
            Bound::Messages(messages) => number >= messages,
            Bound::Time(time) => begin.elapsed() >= time,
        };
        if over {
            if plan.scenario == Scenario::Echo {
                let end = client.send(to, Vec::new(), qos);
                block_on(&waker, end).map_err(|code| format!("refused: {code:?}"))?;
            }
            return Ok(times);
        }
    }
}
