//! What a writer says where nothing transforms it on the way: frames as a broker would send them. For the byte relay, which
//! finds out by names who gets them.

use elbus_protocol::{
    FrameKind,
    delivery::{DeliveryHead, encode_head},
};

use super::{Dialect, Hello, Joining, Kind, Letter, Line, Step, elbus};
use crate::Failure;

pub(crate) struct Verbatim {
    name: String,
    payload_bytes: usize,
}

impl Dialect for Verbatim {
    fn join(joining: &Joining<'_>) -> Result<(Self, Line, Line), Failure> {
        let line = elbus::shake_hands(joining.address, joining.name)?;
        let twin = line.twin()?;
        let verbatim = Verbatim { name: joining.name.to_owned(), payload_bytes: joining.payload_bytes };
        Ok((verbatim, line, twin))
    }

    fn hello(name: &str) -> Result<Hello, Failure> {
        elbus::hello(name)
    }

    fn encode(&self, out: &mut Vec<u8>, letter: &Letter, payload: &[u8]) -> Result<usize, Failure> {
        let (kind, topic) = match letter.kind {
            Kind::Message => (FrameKind::Message, ""),
            Kind::Broadcast => (FrameKind::Broadcast, ""),
            Kind::Publish => (FrameKind::Publish, &*letter.to),
        };
        let head = DeliveryHead { kind, realtime: letter.qos & 2 != 0, sender: &self.name, topic };
        encode_head(out, &head, payload.len())?;
        out.extend_from_slice(payload);
        Ok(head.prefix_len())
    }

    #[inline]
    fn step(&self, received: &[u8]) -> Result<Step, Failure> {
        elbus::step(received, self.payload_bytes)
    }
}
