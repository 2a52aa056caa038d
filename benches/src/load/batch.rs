//! The frames of one sender. They are encoded once, and only numbers and timestamps are written into them for
//! each write, so that the broker is measured and not the sender.

use std::ops::Range;

use super::{
    Plan, Scenario,
    mix::{self, Mix},
    sequence,
};
use crate::{
    BoxError,
    driver::{Driver, Envelope, MessageKind},
};

/// All frames that a sender sends, again and again.
pub(super) struct Batch {
    /// The messages of a cycle of destinations, and the first ones again, so that each batch is contiguous.
    turns: Frames,
    cycle: usize,
    /// The last message of each share.
    closing: Frames,
    counters: Counters,
}

/// What is written into frames.
struct Counters {
    sender: usize,
    /// Messages sent so far.
    sent: u64,
    /// The number of the next message of each share.
    numbers: Vec<u64>,
    /// The offset of the acknowledgement id in a frame, if frames are acknowledged by id.
    ack_id_offset: Option<usize>,
}

/// Encoded frames, one after the other.
#[derive(Default)]
struct Frames {
    bytes: Vec<u8>,
    positions: Vec<Position>,
}

/// Where a frame is, and whose share its message is.
struct Position {
    start: usize,
    payload: usize,
    end: usize,
    share: usize,
}

impl Batch {
    pub(super) fn new<D: Driver>(
        driver: &D,
        plan: &Plan,
        group: usize,
        sender: usize,
    ) -> Result<Self, BoxError> {
        let (mix, destinations) = (Mix::of(plan), mix::destinations(plan, group, sender));
        let payload: Vec<u8> = (0..plan.bytes).map(|index| b'a' + (index % 26) as u8).collect();
        let kind = match plan.scenario {
            Scenario::Topic => MessageKind::Publish,
            Scenario::Broadcast => MessageKind::Broadcast,
            _ => MessageKind::Direct,
        };
        let mut envelope = Envelope { kind, target: String::new(), qos: plan.qos };
        let mut encode = |out: &mut Frames, destination: usize| {
            envelope.target.clone_from(destinations.get(destination).ok_or("a destination has no name")?);
            let start = out.bytes.len();
            let payload_offset = driver.encode(&mut out.bytes, &envelope, &payload)?;
            let (payload, end) = (start + payload_offset, out.bytes.len());
            out.positions.push(Position { start, payload, end, share: mix.share(destination) });
            Ok::<_, BoxError>(())
        };
        let (mut turns, mut closing) = (Frames::default(), Frames::default());
        for message in 0..mix.cycle() + plan.batch - 1 {
            encode(&mut turns, mix.destination(message))?;
        }
        for destination in 0..mix.shares() {
            encode(&mut closing, destination)?;
        }
        let counters = Counters {
            sender,
            sent: 0,
            numbers: vec![0; mix.shares()],
            ack_id_offset: D::ACK_ID_OFFSET.filter(|_| D::acknowledges(plan.qos)),
        };
        Ok(Batch { turns, cycle: mix.cycle(), closing, counters })
    }

    /// The number of messages so far.
    pub(super) fn sent(&self) -> u64 {
        self.counters.sent
    }

    /// The next `count` messages, at most as many as a batch has; only the first gets the timestamp.
    #[inline]
    pub(super) fn next(&mut self, count: usize, timestamp: u64) -> &[u8] {
        let first = (self.counters.sent % self.cycle as u64) as usize;
        self.counters.stamp(&mut self.turns, first..first + count, timestamp, false)
    }

    /// The last message of each share.
    pub(super) fn close(&mut self, timestamp: u64) -> &[u8] {
        let all = 0..self.closing.positions.len();
        self.counters.stamp(&mut self.closing, all, timestamp, true)
    }
}

impl Counters {
    /// Stamps the frames of a range and returns them.
    #[inline]
    fn stamp<'a>(
        &mut self,
        frames: &'a mut Frames,
        range: Range<usize>,
        mut timestamp: u64,
        last: bool,
    ) -> &'a [u8] {
        let positions = frames.positions.get(range).unwrap_or_default();
        for position in positions {
            let number = &mut self.numbers[position.share];
            let payload = &mut frames.bytes[position.payload..position.end];
            sequence::stamp(payload, self.sender, *number, last, timestamp);
            if let Some(offset) = self.ack_id_offset
                && let Some(id) = frames.bytes.get_mut(position.start + offset..position.start + offset + 4)
            {
                id.copy_from_slice(&(self.sent as u32).to_le_bytes());
            }
            *number += 1;
            self.sent += 1;
            timestamp = 0;
        }
        match (positions.first(), positions.last()) {
            (Some(first), Some(last)) => &frames.bytes[first.start..last.end],
            _ => &[],
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{driver::elbus::Elbus, load::Protocol};
    use elbus_protocol::{
        Limits, Qos,
        request::{RunBuffer, Step, next_run},
    };

    /// Target, number, sender's last message or not, timestamp, acknowledgement id.
    type Message = (String, u64, bool, u64, u32);

    fn parse(frames: &[u8]) -> Vec<Message> {
        let (mut run, mut position, mut messages) = (RunBuffer::<&[u8]>::new(), 0, vec![]);
        while let Step::Run(head) = next_run(frames, &mut position, &Limits::default(), &mut run).unwrap() {
            for (payload, id) in run.payloads.iter().zip(&run.op_ids).take(head.len) {
                let number = sequence::number_at(payload, 0).unwrap() & ((1 << 48) - 1);
                let (number, last) = (number & !(1 << 47), number >> 47 == 1);
                let timestamp = sequence::number_at(payload, 8).unwrap();
                messages.push((head.target.to_owned(), number, last, timestamp, *id));
            }
        }
        messages
    }

    fn batch(plan: &Plan) -> Batch {
        Batch::new(&Elbus::new(plan.bytes), plan, 0, 0).unwrap()
    }

    #[test]
    fn topics_in_turn_continue_in_the_next_batch() {
        let plan = Plan::new(Protocol::Elbus, "x", Scenario::Topic, 100);
        let mut batch = batch(&Plan { topics: Some(5), batch: 3, ..plan.clone() });
        let topics = mix::destinations(&Plan { topics: Some(5), ..plan }, 0, 0);
        let mut expected = 0;
        for write in 1..10 {
            for (index, message) in parse(batch.next(3, write)).into_iter().enumerate() {
                let timestamp = if index == 0 { write } else { 0 };
                assert_eq!(message, (topics[expected % 5].clone(), expected as u64, false, timestamp, 0));
                expected += 1;
            }
        }
        assert_eq!(parse(batch.close(7)), [(topics[0].clone(), 27, true, 7, 0)]);
        assert_eq!(batch.sent(), 28);
    }

    #[test]
    fn the_messages_of_each_target_are_numbered_and_have_a_last_one() {
        let qos = Qos::PROCESSED.bits();
        let plan = Plan::new(Protocol::Elbus, "x", Scenario::Pairs, 100);
        let plan = Plan { targets: 3, repeat: 2, qos, batch: 4, ..plan };
        let mut batch = batch(&plan);
        let targets = mix::destinations(&plan, 0, 0);
        let mut messages = parse(batch.next(4, 1));
        messages.extend(parse(batch.next(3, 2)));
        messages.extend(parse(batch.close(3)));
        let target = |index: usize| targets[index].clone();
        let expected = [
            (target(0), 0, false, 1, 0),
            (target(0), 1, false, 0, 1),
            (target(1), 0, false, 0, 2),
            (target(1), 1, false, 0, 3),
            (target(2), 0, false, 2, 4),
            (target(2), 1, false, 0, 5),
            (target(0), 2, false, 0, 6),
            (target(0), 3, true, 3, 7),
            (target(1), 2, true, 0, 8),
            (target(2), 2, true, 0, 9),
        ];
        assert_eq!(messages, expected);
    }
}
