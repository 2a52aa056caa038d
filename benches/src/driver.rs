//! Raw blocking clients of the brokers that can be loaded: no more than the load needs, so that what is measured is the
//! broker. What differs between brokers is behind [`Dialect`].

mod connection;
pub(crate) mod elbus;
pub(crate) mod mqtt;
pub(crate) mod nats;
pub(crate) mod redis;
pub(crate) mod relay;

pub(crate) use connection::{Line, PATIENCE};

use crate::Failure;

/// What a client sends, over and over: everything but the payload.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) kind: Kind,
    /// Target, mask or topic.
    pub(crate) to: String,
    /// Bits of the QoS, as the protocol of ELBUS has them.
    pub(crate) qos: u8,
}

/// How a message finds its receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By the name of its one receiver.
    Message,
    /// By a mask of names.
    Broadcast,
    /// By a topic, to which they have subscribed.
    Publish,
}

/// Who joins, and what it is to receive.
pub(crate) struct Joining<'a> {
    pub(crate) address: &'a str,
    pub(crate) name: &'a str,
    /// The topic to subscribe to. Where a broker has no names, these are topics, too.
    pub(crate) topic: Option<&'a str>,
    /// The length of every payload that will be received.
    pub(crate) payload_bytes: usize,
}

/// What stands at the beginning of the bytes received.
pub(crate) enum Step {
    /// A message: where its payload begins, and how long the frame is.
    Message { payload: usize, frame: usize },
    /// Something else of so many bytes.
    Other { frame: usize },
    /// A frame that is not whole. It has so many bytes, or more.
    Partial { needed: usize },
}

/// What a client says at once when it connects, and how the answers end once it is known to the broker.
pub(crate) struct Hello {
    pub(crate) said: Vec<u8>,
    pub(crate) answered: Vec<u8>,
}

/// How a broker speaks.
pub(crate) trait Dialect: Sized + Send {
    /// Connects, and returns once what is sent to this client will arrive. The lines are the one to send and the one to
    /// receive by.
    fn join(joining: &Joining<'_>) -> Result<(Self, Line, Line), Failure>;

    /// What makes a client of one connection, without waiting in between.
    fn hello(name: &str) -> Result<Hello, Failure>;

    /// Appends a frame; tells where in it the payload is.
    fn encode(&self, out: &mut Vec<u8>, letter: &Letter, payload: &[u8]) -> Result<usize, Failure>;

    /// Looks at what was received.
    fn step(&self, received: &[u8]) -> Result<Step, Failure>;

    /// Whether frames of this QoS are answered.
    fn answers(_qos: u8) -> bool {
        false
    }

    /// Takes whole answers from the beginning: how many bytes, and how many answers. Each must say that the message was
    /// delivered.
    fn take_answers(_received: &[u8], _next: u32) -> Result<(usize, u32), Failure> {
        Ok((0, 0))
    }

    /// Where in a frame the number is that comes back in its answer, where there is one.
    const NUMBER: Option<usize> = None;

    /// Whether a client has two connections, one for each direction.
    const TWO_LINES: bool = false;

    /// What keeps an idle connection open, if it must be kept.
    const PING: &'static [u8] = &[];
}

/// A client: both directions.
pub(crate) struct Client<D> {
    pub(crate) sending: Sending<D>,
    pub(crate) receiving: Receiving,
}

/// The direction to the broker.
pub(crate) struct Sending<D> {
    pub(crate) dialect: D,
    pub(crate) line: Line,
    /// Answers that are still to come, the number of the next, and the part of one that has arrived.
    owed: u64,
    next_answer: u32,
    answers: Vec<u8>,
}

/// The direction from the broker.
pub(crate) struct Receiving {
    pub(crate) line: Line,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    payload_bytes: usize,
}

/// What is left of a frame is moved to the front of the buffer where it is no longer than this.
const MOVED_AT_ONCE: usize = 4096;
const BUFFER_BYTES: usize = 128 * 1024;

impl<D: Dialect> Client<D> {
    pub(crate) fn join(joining: &Joining<'_>) -> Result<Self, Failure> {
        let (dialect, out, into) = D::join(joining)
            .map_err(|error| format!("{} could not join {}: {error}", joining.name, joining.address))?;
        Ok(Client {
            sending: Sending { dialect, line: out, owed: 0, next_answer: 0, answers: Vec::new() },
            receiving: Receiving {
                line: into,
                buffer: vec![0; BUFFER_BYTES],
                start: 0,
                end: 0,
                payload_bytes: joining.payload_bytes,
            },
        })
    }

    /// One read; hands over the payload of every message that is whole.
    #[inline]
    pub(crate) fn receive(&mut self, take: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        self.receiving.receive(&self.sending.dialect, take)
    }
}

impl<D: Dialect> Sending<D> {
    /// Sends frames, `asking` of which are answered.
    #[inline]
    pub(crate) fn send(&mut self, frames: &[u8], asking: u64) -> Result<(), Failure> {
        self.owed += asking;
        self.line.send(frames)
    }

    /// Takes the answers that are there, without waiting.
    pub(crate) fn collect_answers(&mut self) -> Result<(), Failure> {
        while self.owed > 0 && self.line.receive_now(&mut self.answers)? {
            let (bytes, count) = D::take_answers(&self.answers, self.next_answer)?;
            self.answers.drain(..bytes);
            self.next_answer = self.next_answer.wrapping_add(count);
            self.owed = self.owed.checked_sub(u64::from(count)).ok_or("more answers than questions")?;
        }
        Ok(())
    }

    /// Answers that are still to come.
    pub(crate) fn owed(&self) -> u64 {
        self.owed
    }

    /// Waits for all answers.
    pub(crate) fn await_answers(&mut self) -> Result<(), Failure> {
        while self.owed > 0 {
            self.line.wait_readable()?;
            self.collect_answers()?;
        }
        Ok(())
    }
}

impl Receiving {
    #[inline]
    fn receive<D: Dialect>(
        &mut self,
        dialect: &D,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.end += self.line.receive(&mut self.buffer[self.end..])?;
        loop {
            let received = &self.buffer[self.start..self.end];
            match dialect.step(received)? {
                Step::Message { payload, frame } => {
                    let payload = received.get(payload..payload + self.payload_bytes);
                    take(payload.ok_or("a message is shorter than what was sent")?)?;
                    self.start += frame;
                }
                Step::Other { frame } => self.start += frame,
                Step::Partial { needed } => {
                    self.make_room(needed);
                    return Ok(());
                }
            }
        }
    }

    #[inline]
    fn make_room(&mut self, needed: usize) {
        let left = self.end - self.start;
        if left <= MOVED_AT_ONCE || self.start + needed > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, left);
        }
        if needed > self.buffer.len() {
            self.buffer.resize(needed + MOVED_AT_ONCE, 0);
        }
    }
}

/// Whether an address is a path, as the command line of the broker sees it.
pub(crate) fn is_path(address: &str) -> bool {
    address.contains('/') || [".sock", ".socket", ".ipc"].iter().any(|end| address.ends_with(end))
}

/// The number at a place in a text, as far as there are digits.
fn number(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(text.get(..digits)?).ok()?.parse().ok()
}
