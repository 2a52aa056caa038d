//! The text protocol of NATS. A name and a topic are both subjects.

use super::{Dialect, Hello, Joining, Letter, Line, Step, number};
use crate::Failure;

const CONNECT: &[u8] =
    b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"raw\",\"version\":\"1\"}\r\n";

pub(crate) struct Nats {
    /// The head of every message that was sent as expected.
    head: Vec<u8>,
    payload_bytes: usize,
}

impl Dialect for Nats {
    fn join(joining: &Joining<'_>) -> Result<(Self, Line, Line), Failure> {
        let line = Line::connect(joining.address)?;
        let info = line.text_line()?;
        if !info.starts_with("INFO ") {
            return Err(format!("the broker said {info} instead of INFO").into());
        }
        let subject = joining.topic.unwrap_or(joining.name);
        line.send(CONNECT)?;
        line.send(format!("SUB {subject} 1\r\nPING\r\n").as_bytes())?;
        line.expect(b"PONG\r\n")?;
        let head = format!("MSG {subject} 1 {}\r\n", joining.payload_bytes).into_bytes();
        let twin = line.twin()?;
        Ok((Nats { head, payload_bytes: joining.payload_bytes }, line, twin))
    }

    fn hello(name: &str) -> Result<Hello, Failure> {
        let said = [CONNECT, format!("SUB {name} 1\r\nPING\r\n").as_bytes()].concat();
        Ok(Hello { said, answered: b"PONG\r\n".to_vec() })
    }

    fn encode(&self, out: &mut Vec<u8>, letter: &Letter, payload: &[u8]) -> Result<usize, Failure> {
        let before = out.len();
        out.extend_from_slice(format!("PUB {} {}\r\n", letter.to, payload.len()).as_bytes());
        let place = out.len() - before;
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
        Ok(place)
    }

    #[inline]
    fn step(&self, received: &[u8]) -> Result<Step, Failure> {
        if received.starts_with(&self.head) {
            let frame = self.head.len() + self.payload_bytes + 2;
            return Ok(match received.len() {
                enough if enough >= frame => Step::Message { payload: self.head.len(), frame },
                _ => Step::Partial { needed: frame },
            });
        }
        let Some(end) = received.iter().position(|byte| *byte == b'\n') else {
            return Ok(Step::Partial { needed: received.len() + 1 });
        };
        let line = &received[..end];
        match line {
            // those of the server stay unanswered: it lets two of them pass, two minutes apart
            [b'P', ..] | [b'I', ..] | [b'+', ..] => Ok(Step::Other { frame: end + 1 }),
            _ => {
                let size = line.rsplit(|byte| *byte == b' ').next().and_then(number);
                Err(format!(
                    "{} (size {size:?}) where {} was due",
                    line.escape_ascii(),
                    self.head.escape_ascii()
                )
                .into())
            }
        }
    }
}
