//! The protocol of Redis, version 2. A name and a topic are both channels. A connection that has subscribed cannot publish,
//! so a client has two.

use super::{Dialect, Hello, Joining, Letter, Line, Step, number};
use crate::Failure;

pub(crate) struct Redis {
    /// The head of every message.
    head: Vec<u8>,
    payload_bytes: usize,
}

impl Dialect for Redis {
    const TWO_LINES: bool = true;

    fn join(joining: &Joining<'_>) -> Result<(Self, Line, Line), Failure> {
        let channel = joining.topic.unwrap_or(joining.name);
        let (sending, receiving) = (Line::connect(joining.address)?, Line::connect(joining.address)?);
        let size = channel.len();
        let Hello { said, answered } = Self::hello(channel)?;
        receiving.send(&said)?;
        receiving.expect(&answered)?;
        let payload_bytes = joining.payload_bytes;
        let head =
            format!("*3\r\n$7\r\nmessage\r\n${size}\r\n{channel}\r\n${payload_bytes}\r\n").into_bytes();
        Ok((Redis { head, payload_bytes }, sending, receiving))
    }

    fn hello(channel: &str) -> Result<Hello, Failure> {
        let size = channel.len();
        Ok(Hello {
            said: format!("*2\r\n$9\r\nSUBSCRIBE\r\n${size}\r\n{channel}\r\n").into_bytes(),
            answered: format!("*3\r\n$9\r\nsubscribe\r\n${size}\r\n{channel}\r\n:1\r\n").into_bytes(),
        })
    }

    fn encode(&self, out: &mut Vec<u8>, letter: &Letter, payload: &[u8]) -> Result<usize, Failure> {
        let before = out.len();
        let (channel, size) = (&letter.to, payload.len());
        let head = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${size}\r\n", channel.len());
        out.extend_from_slice(head.as_bytes());
        let place = out.len() - before;
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
        Ok(place)
    }

    #[inline]
    fn step(&self, received: &[u8]) -> Result<Step, Failure> {
        if received.len() >= self.head.len() && !received.starts_with(&self.head) {
            let said = received[..received.len().min(80)].escape_ascii();
            return Err(format!("{said} where {} was due", self.head.escape_ascii()).into());
        }
        let frame = self.head.len() + self.payload_bytes + 2;
        Ok(match received.len() {
            enough if enough >= frame => Step::Message { payload: self.head.len(), frame },
            _ => Step::Partial { needed: frame },
        })
    }

    /// Each publication is answered with the number of its receivers.
    fn answers(_: u8) -> bool {
        true
    }

    fn take_answers(received: &[u8], _: u32) -> Result<(usize, u32), Failure> {
        let (mut bytes, mut count) = (0, 0);
        for line in received.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            match line.strip_prefix(b":").and_then(number) {
                Some(1..) => count += 1,
                _ => return Err(format!("a publication was answered with {}", line.escape_ascii()).into()),
            }
            bytes += line.len();
        }
        Ok((bytes, count))
    }
}
