//! Numbered messages from one node to another, and the full account of them: every acknowledged message has
//! arrived exactly once, every other one was reported, and the order is kept.

use elbus_protocol::{Op, Qos};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    network::wait_for_client,
    support::{
        daemon::Daemon,
        wait_until,
        wire::{Frame, Wire},
    },
};

/// The last message of all, by another sender.
const END: &[u8] = b"end";
/// Pause after a refusal, so that an absent receiver does not fill the account.
const PAUSE: Duration = Duration::from_millis(2);

/// A node and its name.
pub(crate) type Place<'d> = (&'static str, &'d Daemon);

/// Messages from a client of one node to a client of another one.
pub(crate) struct Traffic {
    /// The receiver, as the node of the senders knows it.
    target: String,
    /// Another client of this node, which sends the last message.
    last: String,
    stop: Arc<AtomicBool>,
    /// Messages that were acknowledged with 01.
    delivered: Arc<AtomicUsize>,
    sending: JoinHandle<Vec<u8>>,
    receiving: JoinHandle<Vec<u32>>,
}

/// What has become of the messages.
#[derive(Debug)]
pub(crate) struct Account {
    /// Codes by the numbers of messages.
    pub(crate) codes: Vec<u8>,
}

impl Traffic {
    /// Starts to send messages of `bytes` bytes from the client `from` at the node `press` to `to` at the
    /// node `mill`, with at most `in_flight` that are not acknowledged.
    pub(crate) fn start(mill: &Daemon, press: &Daemon, in_flight: usize, bytes: usize) -> Self {
        Self::between(("press", press), ("mill", mill), "", (in_flight, bytes))
    }

    /// As [`start`](Self::start), between any two nodes. `of` distinguishes the clients of several.
    pub(crate) fn between(
        (near, press): Place<'_>,
        (far, mill): Place<'_>,
        of: &str,
        (in_flight, bytes): (usize, usize),
    ) -> Self {
        let target = format!("@{far}.to{of}");
        let to = mill.client(&format!("to{of}"));
        wait_for_client(press, &target);
        let (from, last) = (format!("from{of}"), format!("last{of}"));
        let sender = press.client(&from);
        let senders = [&from, &last].map(|name| format!("@{near}.{name}"));
        let (stop, delivered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopping, counter, receiver) = (stop.clone(), delivered.clone(), target.clone());
        let sending = move || send(sender, &receiver, (in_flight, bytes), &stopping, &counter);
        Traffic {
            target,
            last,
            stop,
            delivered,
            sending: std::thread::spawn(sending),
            receiving: std::thread::spawn(move || receive(to, &senders)),
        }
    }

    /// Returns the name of the receiver at the node of the sender.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Waits until this many further messages are acknowledged as delivered.
    pub(crate) fn wait_for(&self, count: usize) {
        let before = self.delivered.load(Ordering::SeqCst);
        wait_until(&format!("{count} further messages"), || {
            self.delivered.load(Ordering::SeqCst) >= before + count
        });
    }

    /// Stops, and checks the account. The nodes must be linked; `press` is that of the sender.
    pub(crate) fn end(self, press: &Daemon) -> Account {
        self.stop.store(true, Ordering::SeqCst);
        let codes = self.sending.join().unwrap();
        let mut last = press.client(&self.last);
        wait_until("the end arrives", || last.send(&self.target, END) == 0x01);
        let arrived = self.receiving.join().unwrap();
        assert!(arrived.is_sorted_by(|one, other| one < other), "repeated or out of order");
        let account = Account { codes };
        for (number, code) in (0u32..).zip(&account.codes) {
            let is_there = arrived.binary_search(&number).is_ok();
            match code {
                0x01 => assert!(is_there, "{number} was acknowledged and has not arrived"),
                // it may have been delivered
                0x78 => {}
                0x71 | 0x77 => assert!(!is_there, "{number} was refused and has arrived"),
                code => panic!("{number}: {code:#x}"),
            }
        }
        assert!(account.count(0x01) > 0, "nothing was acknowledged");
        account
    }
}

impl Account {
    /// Returns how many messages were answered with a code.
    pub(crate) fn count(&self, code: u8) -> usize {
        self.codes.iter().filter(|other| **other == code).count()
    }
}

fn send(
    mut from: Wire,
    target: &str,
    (in_flight, bytes): (usize, usize),
    stop: &AtomicBool,
    delivered: &AtomicUsize,
) -> Vec<u8> {
    let (mut codes, mut ids) = (vec![], VecDeque::new());
    let mut payload = vec![0x5A; bytes.max(4)];
    for number in 0u32.. {
        let is_over = stop.load(Ordering::SeqCst);
        while ids.len() >= in_flight || (is_over && !ids.is_empty()) {
            let code = ids.pop_front().map(|id| from.expect_ack(id)).unwrap();
            codes.push(code);
            match code {
                0x01 => _ = delivered.fetch_add(1, Ordering::SeqCst),
                0x71 | 0x77 => std::thread::sleep(PAUSE),
                _ => {}
            }
        }
        if is_over {
            break;
        }
        payload[..4].copy_from_slice(&number.to_le_bytes());
        ids.push_back(from.request(Op::Message, Qos::PROCESSED, target, "", &payload));
    }
    codes
}

fn receive(mut to: Wire, [from, last]: &[String; 2]) -> Vec<u32> {
    let mut numbers = vec![];
    loop {
        let Some(frame) = to.frame_within(Duration::from_secs(120)) else {
            panic!("nothing for two minutes")
        };
        let Frame::Data(_, sender, _, payload, _) = frame else { panic!("no message") };
        if sender == *from {
            numbers.push(u32::from_le_bytes(payload[..4].try_into().unwrap()));
        } else {
            assert!(sender == *last && payload == END, "a message of {sender}");
            return numbers;
        }
    }
}
