//! Three nodes and an engine, in virtual time; random events.

use super::{
    account::Account,
    engine::Engine,
    node::{CLIENTS, NODES, Node},
};
use elbus_bridge::Destination;
use fastrand::Rng;
use std::{collections::BTreeSet, time::Duration};

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) engine: Engine,
    pub(crate) nodes: Vec<Node>,
    pub(crate) account: Account,
    pub(crate) random: Rng,
    starts: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let now = Duration::from_secs(100);
        let nodes = (0..3).map(|index| Node::new(index, index as u64, now, &mut random)).collect();
        let (engine, account) = (Engine::new(), Account::default());
        World { now, engine, nodes, account, random, starts: 3 }
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let deadlines = self.nodes.iter().map(|node| match node.is_frozen(self.now) {
                true => node.frozen_until,
                false => node.bridge.next_deadline(),
            });
            let next = deadlines.chain(self.engine.next_arrival()).min().unwrap_or(end);
            // a deadline that has passed must not keep time from passing
            self.now = next.max(self.now + Duration::from_micros(100)).min(end);
            for index in 0..3 {
                self.thaw(index);
                let node = &mut self.nodes[index];
                if !node.is_frozen(self.now) && node.bridge.next_deadline() <= self.now {
                    node.bridge.tick(self.now);
                }
            }
            if self.now >= end {
                self.settle();
                return;
            }
        }
    }

    /// Hands over what has arrived, and carries out outputs, until there are none.
    fn settle(&mut self) {
        loop {
            let mut is_idle = true;
            while let Some((to, start, subject, bytes)) = self.engine.next(self.now) {
                let node = &mut self.nodes[to];
                if node.is_connected && node.start == start {
                    if node.is_frozen(self.now) {
                        node.unread.push((subject, bytes));
                    } else {
                        node.bridge.received(&subject, bytes, self.now);
                        self.poll(to);
                    }
                }
                is_idle = false;
            }
            for index in 0..3 {
                is_idle &= !self.poll(index);
            }
            if is_idle {
                return;
            }
        }
    }

    /// Carries out the outputs of a node. Returns whether it has published something.
    fn poll(&mut self, index: usize) -> bool {
        if self.nodes[index].is_frozen(self.now) {
            return false;
        }
        let published = self.nodes[index].poll(self.now, &mut self.account, &mut self.random);
        for (destination, bytes) in &published {
            for (to, name) in NODES.iter().enumerate() {
                let is_addressed = match destination {
                    Destination::All => true,
                    Destination::Node(node) => **node == **name,
                };
                if is_addressed && self.nodes[to].is_connected {
                    let start = self.nodes[to].start;
                    self.engine.publish((index, to), start, destination, bytes, self.now, &mut self.random);
                }
            }
        }
        !published.is_empty()
    }

    /// Stops the process of a node for some time, as a machine that is suspended does: for the node, its
    /// clock jumps.
    fn freeze(&mut self, index: usize, time: Duration) {
        self.nodes[index].frozen_until = self.now + time;
    }

    /// Hands over what has arrived at a node that was frozen.
    fn thaw(&mut self, index: usize) {
        if self.nodes[index].is_frozen(self.now) {
            return;
        }
        for (subject, bytes) in std::mem::take(&mut self.nodes[index].unread) {
            self.nodes[index].bridge.received(&subject, bytes, self.now);
            self.poll(index);
        }
    }

    pub(crate) fn connect(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if !node.is_connected && !node.is_frozen(self.now) {
            node.is_connected = true;
            node.bridge.connected(self.now);
        }
    }

    pub(crate) fn disconnect(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.is_connected = false;
        node.unread.clear();
        node.bridge.lost(self.now);
    }

    /// Ends a node without a word, and starts it again.
    pub(crate) fn restart(&mut self, index: usize) {
        let node = &self.nodes[index];
        self.account.ended(index, node.start);
        self.account.ended += node.counted();
        self.starts += 1;
        self.nodes[index] = Node::new(index, self.starts, self.now, &mut self.random);
        self.connect(index);
    }

    /// One random event.
    pub(crate) fn disturb(&mut self) {
        let index = self.random.usize(..3);
        if self.nodes[index].is_frozen(self.now) {
            return; // neither it nor its clients do anything
        }
        match self.random.u8(..100) {
            0..70 => {
                for _ in 0..self.random.u8(1..8) {
                    self.nodes[index].send(&mut self.account, &mut self.random);
                }
            }
            70..73 => {
                let other = self.random.usize(..3);
                let both = self.random.bool();
                self.engine.is_cut[index][other] = true;
                self.engine.is_cut[other][index] |= both;
            }
            73..77 => self.engine.is_cut = [[false; 3]; 3],
            77..79 => self.disconnect(index),
            79..83 => (0..3).for_each(|index| self.connect(index)),
            83 => self.restart(index),
            84 => {
                // several at once
                self.restart(index);
                self.restart((index + 1) % 3);
            }
            85 => {
                let time = self.random.u64(100..8000);
                self.freeze(index, Duration::from_millis(time));
            }
            86..88 => {
                let rates = [0.0, 0.0, 0.02, 0.3];
                self.engine.loss = rates[self.random.usize(..4)];
                self.engine.repetition = rates[self.random.usize(..4)];
                self.engine.reordering = rates[self.random.usize(..4)];
                self.engine.delay = [0, 2, 30, 400][self.random.usize(..4)];
            }
            88..91 => {
                let clients = CLIENTS.into_iter().chain(["subscriber"]);
                let clients: Vec<&str> = clients.collect();
                let client = clients[self.random.usize(..clients.len())];
                self.nodes[index].full.insert(client.to_owned());
            }
            91..94 => self.nodes[index].drain_receivers(),
            94 => self.nodes[index].leave(CLIENTS[self.random.usize(..3)]),
            95 => self.nodes[index].register(CLIENTS[self.random.usize(..3)]),
            96 => self.nodes[index].subscribe(["t/#", "t/1", "#"][self.random.usize(..3)]),
            97 => self.nodes[index].unsubscribe(["t/#", "t/1", "#", "t/+"][self.random.usize(..4)]),
            _ => self.nodes[index].supply_results(),
        }
        for node in &self.nodes {
            node.check_limits(self.now);
        }
    }

    /// Ends all faults.
    pub(crate) fn heal(&mut self) {
        self.engine.heal();
        for index in 0..3 {
            self.freeze(index, Duration::ZERO);
            self.thaw(index);
            self.connect(index);
            self.nodes[index].drain_receivers();
            self.nodes[index].supply_results();
        }
    }

    /// Returns the remote names that a node should know.
    pub(crate) fn expected(&self, index: usize) -> BTreeSet<String> {
        let others = self.nodes.iter().filter(|node| node.index != index);
        let names = others.flat_map(|node| {
            let exported = node.clients.iter().filter(|client| client.starts_with("io."));
            exported.map(|client| format!("@{}.{client}", NODES[node.index])).collect::<Vec<_>>()
        });
        names.collect()
    }

    /// Returns messages that were counted as not delivered.
    pub(crate) fn counted(&self) -> u64 {
        self.account.ended + self.nodes.iter().map(Node::counted).sum::<u64>()
    }
}
