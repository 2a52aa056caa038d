//! MQTT 3.1.1 at QoS 0. A name and a topic are both topics.

use super::{Dialect, Hello, Joining, Letter, Line, Step};
use crate::Failure;

const CONNECT: u8 = 0x10;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const CONNECTED: [u8; 4] = [0x20, 2, 0, 0];
const SUBSCRIBED: [u8; 5] = [0x90, 3, 0, 1, 0];

pub(crate) struct Mqtt {
    /// The head of every message.
    head: Vec<u8>,
    payload_bytes: usize,
}

impl Dialect for Mqtt {
    fn join(joining: &Joining<'_>) -> Result<(Self, Line, Line), Failure> {
        let line = Line::connect(joining.address)?;
        line.send(&connect(joining.name)?)?;
        line.expect(&CONNECTED)?;
        let topic = joining.topic.unwrap_or(joining.name);
        line.send(&subscribe(topic)?)?;
        line.expect(&SUBSCRIBED)?;
        let twin = line.twin()?;
        let head = head(topic, joining.payload_bytes)?;
        Ok((Mqtt { head, payload_bytes: joining.payload_bytes }, line, twin))
    }

    fn hello(name: &str) -> Result<Hello, Failure> {
        let said = [connect(name)?, subscribe(name)?].concat();
        Ok(Hello { said, answered: [&CONNECTED[..], &SUBSCRIBED].concat() })
    }

    fn encode(&self, out: &mut Vec<u8>, letter: &Letter, payload: &[u8]) -> Result<usize, Failure> {
        let head = head(&letter.to, payload.len())?;
        out.extend_from_slice(&head);
        out.extend_from_slice(payload);
        Ok(head.len())
    }

    #[inline]
    fn step(&self, received: &[u8]) -> Result<Step, Failure> {
        if received.len() >= self.head.len() && !received.starts_with(&self.head) {
            let said = received[..self.head.len()].escape_ascii();
            return Err(format!("{said} where {} was due", self.head.escape_ascii()).into());
        }
        let frame = self.head.len() + self.payload_bytes;
        Ok(match received.len() {
            enough if enough >= frame => Step::Message { payload: self.head.len(), frame },
            _ => Step::Partial { needed: frame },
        })
    }
}

/// Protocol level 4, a clean session, no keep-alive.
fn connect(name: &str) -> Result<Vec<u8>, Failure> {
    let mut body = b"\0\x04MQTT\x04\x02\0\0".to_vec();
    push_text(&mut body, name)?;
    packet(CONNECT, &body, 0)
}

fn subscribe(topic: &str) -> Result<Vec<u8>, Failure> {
    let mut body = vec![0, 1];
    push_text(&mut body, topic)?;
    body.push(0);
    packet(SUBSCRIBE, &body, 0)
}

fn head(topic: &str, payload_bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    push_text(&mut body, topic)?;
    packet(PUBLISH, &body, payload_bytes)
}

/// A packet, the last `more` bytes of which follow on their own.
fn packet(kind: u8, body: &[u8], more: usize) -> Result<Vec<u8>, Failure> {
    let mut left = body.len() + more;
    if left >= 1 << 28 {
        return Err(format!("a packet of {left} bytes is longer than MQTT allows").into());
    }
    let mut out = vec![kind];
    loop {
        let more_follows = if left >= 128 { 0x80 } else { 0 };
        out.push((left % 128) as u8 | more_follows);
        left /= 128;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    Ok(out)
}

fn push_text(out: &mut Vec<u8>, text: &str) -> Result<(), Failure> {
    out.extend_from_slice(&u16::try_from(text.len())?.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_as_many_bytes_as_they_need() {
        for (more, length) in [(0, &[3u8][..]), (124, &[127]), (125, &[128, 1]), (16_381, &[0x80, 0x80, 1])] {
            let head = head("t", more).unwrap_or_default();
            assert_eq!(head, [&[PUBLISH], length, &[0, 1, b't']].concat());
        }
        assert!(head("t", 1 << 28).is_err());
    }
}
