//! The WebSocket frames that a client sends, as a stream: payload is passed on as it arrives, and no message
//! is ever assembled. Owns the rules of RFC 6455 for them; performs no I/O.
//!
//! A declared length allocates nothing. The only bytes that are kept are those of an incomplete header, and
//! of a control frame, at most [`MAX_CONTROL_BYTES`].

use elbus_plugin_api::rate::TokenBucket;
use std::{fmt, io::Cursor, ops::Range, time::Instant};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

/// Maximum length of the payload of a control frame.
pub(crate) const MAX_CONTROL_BYTES: usize = 125;
/// Maximum length of a frame's header.
const MAX_HEADER_BYTES: usize = 14;
/// Frames without data, such as pings and empty messages, that a client can send per second on average: they
/// cost work and count in no other limit. The first one after data is not counted.
const EMPTY_FRAMES_PER_SECOND: f64 = 100.0;
/// Such frames that a client can send at once.
const EMPTY_FRAMES_AT_ONCE: f64 = 1000.0;

/// What a client did that ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A text message.
    Text,
    /// A frame that is not masked.
    Unmasked,
    /// A reserved bit, which only an extension could give a meaning.
    ReservedBit,
    /// An operation that does not exist.
    UnknownOperation,
    /// A length in more bytes than it needs, or above the maximum.
    BadLength,
    /// A control frame that is fragmented or too long.
    BadControl,
    /// A continuation of no message.
    StrayContinuation,
    /// A new message within a fragmented one.
    Interrupted,
    /// A close frame with an invalid code or reason.
    BadClose,
    /// Too many frames without data.
    EmptyFrames,
}

impl Violation {
    /// Returns the code for the close frame.
    pub(crate) fn close_code(self) -> CloseCode {
        match self {
            Violation::Text => CloseCode::Unsupported,
            Violation::EmptyFrames => CloseCode::Policy,
            _ => CloseCode::Protocol,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Text => f.write_str("text message; the protocol is binary"),
            Violation::Unmasked => f.write_str("frame without a mask"),
            Violation::ReservedBit => f.write_str("reserved bit set, and no extension was agreed on"),
            Violation::UnknownOperation => f.write_str("unknown frame type"),
            Violation::BadLength => f.write_str("invalid frame length"),
            Violation::BadControl => f.write_str("control frame is fragmented or longer than 125 bytes"),
            Violation::StrayContinuation => f.write_str("continuation frame without a message"),
            Violation::Interrupted => f.write_str("new message within a fragmented one"),
            Violation::BadClose => f.write_str("invalid close frame"),
            Violation::EmptyFrames => {
                write!(f, "more than {EMPTY_FRAMES_PER_SECOND} frames per second without data")
            }
        }
    }
}

/// What a step has found at the beginning of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// This much of the input was a part of a header or of a control frame.
    Skip(usize),
    /// This much of the input is data, now without its mask.
    Data(usize),
    /// The end of a ping, with this much of the input: its payload is [`control`](FrameDecoder::control).
    Ping(usize),
    /// A close frame. Nothing that follows has a meaning.
    Close(CloseCode),
}

/// The decoder of one connection.
#[derive(Debug)]
pub struct FrameDecoder {
    frame: FrameState,
    /// The beginning of a header that is incomplete.
    header: [u8; MAX_HEADER_BYTES],
    header_len: usize,
    /// A message has begun and its last frame has not.
    is_fragmented: bool,
    control: [u8; MAX_CONTROL_BYTES],
    control_len: usize,
    empty_frames: TokenBucket,
    /// The last frame had data.
    is_after_data: bool,
}

/// The frame whose payload comes next.
#[derive(Debug, Clone, Copy)]
enum FrameState {
    /// None: a header comes next.
    Header,
    Data {
        left: u64,
        mask: [u8; 4],
    },
    Control {
        kind: Control,
        left: usize,
        mask: [u8; 4],
    },
}

impl FrameDecoder {
    /// Returns the decoder of a new connection; `now` is the current time.
    pub fn new(now: Instant) -> Self {
        FrameDecoder {
            frame: FrameState::Header,
            header: [0; MAX_HEADER_BYTES],
            header_len: 0,
            is_fragmented: false,
            control: [0; MAX_CONTROL_BYTES],
            control_len: 0,
            empty_frames: TokenBucket::with_burst(EMPTY_FRAMES_PER_SECOND, EMPTY_FRAMES_AT_ONCE, now),
            is_after_data: false,
        }
    }

    /// Returns the payload of the control frame that has ended last.
    pub fn control(&self) -> &[u8] {
        &self.control[..self.control_len]
    }

    /// Decodes the beginning of the input, which must not be empty.
    ///
    /// # Errors
    /// The client has violated the protocol; the decoder must not be used again.
    pub fn step(&mut self, input: &mut [u8]) -> Result<Step, Violation> {
        match self.frame {
            FrameState::Header => self.header(input),
            FrameState::Data { left, mask } => {
                let count = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let mask = unmask(input, 0..count, mask);
                let left = left - count as u64;
                self.frame = if left == 0 { FrameState::Header } else { FrameState::Data { left, mask } };
                Ok(Step::Data(count))
            }
            FrameState::Control { kind, left, mask } => {
                let count = input.len().min(left);
                let mask = unmask(input, 0..count, mask);
                let at = self.control_len;
                self.control[at..at + count].copy_from_slice(&input[..count]);
                self.control_len += count;
                if count == left {
                    return self.control_end(kind, count);
                }
                self.frame = FrameState::Control { kind, left: left - count, mask };
                Ok(Step::Skip(count))
            }
        }
    }

    /// A control frame is complete; `count` is how much of the input has completed it.
    fn control_end(&mut self, kind: Control, count: usize) -> Result<Step, Violation> {
        self.frame = FrameState::Header;
        match kind {
            Control::Ping => Ok(Step::Ping(count)),
            Control::Close => close_code(self.control()).map(Step::Close),
            // a pong that nobody has asked for is allowed, and has no meaning
            Control::Pong | Control::Reserved(_) => Ok(Step::Skip(count)),
        }
    }

    fn header(&mut self, input: &[u8]) -> Result<Step, Violation> {
        let (before, mut bytes) = (self.header_len, self.header);
        let end = (before + input.len()).min(MAX_HEADER_BYTES);
        bytes[before..end].copy_from_slice(&input[..end - before]);
        let mut cursor = Cursor::new(&bytes[..end]);
        let (header, len) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => {
                (self.header, self.header_len) = (bytes, end);
                return Ok(Step::Skip(end - before));
            }
            Err(_) => return Err(Violation::UnknownOperation),
        };
        self.header_len = 0;
        let all = cursor.position() as usize;
        // the bytes that were kept were no complete header
        let count = all - before;
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::ReservedBit);
        }
        // before the length: a text message of any form has a code of its own
        if header.opcode == OpCode::Data(Data::Text) {
            return Err(Violation::Text);
        }
        if len > i64::MAX as u64 || all != header.len(len) {
            return Err(Violation::BadLength);
        }
        let Some(mask) = header.mask else { return Err(Violation::Unmasked) };
        let has_data = len > 0 && matches!(header.opcode, OpCode::Data(_));
        let is_counted = !has_data && !self.is_after_data;
        self.is_after_data = has_data;
        if is_counted && !self.empty_frames.try_take(Instant::now()) {
            return Err(Violation::EmptyFrames);
        }
        match header.opcode {
            OpCode::Data(Data::Binary) if self.is_fragmented => return Err(Violation::Interrupted),
            OpCode::Data(Data::Continue) if !self.is_fragmented => {
                return Err(Violation::StrayContinuation);
            }
            OpCode::Data(_) => {
                self.is_fragmented = !header.is_final;
                if len > 0 {
                    self.frame = FrameState::Data { left: len, mask };
                }
            }
            OpCode::Control(kind) => {
                if !header.is_final || len > MAX_CONTROL_BYTES as u64 {
                    return Err(Violation::BadControl);
                }
                self.control_len = 0;
                if len == 0 {
                    return self.control_end(kind, count);
                }
                self.frame = FrameState::Control { kind, left: len as usize, mask };
            }
        }
        Ok(Step::Skip(count))
    }
}

/// Removes the mask from a part of the input. Returns the mask for what follows.
fn unmask(input: &mut [u8], part: Range<usize>, mut mask: [u8; 4]) -> [u8; 4] {
    let count = part.len();
    let Some(bytes) = input.get_mut(part) else { return mask };
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    mask.rotate_left(count % 4);
    mask
}

/// Returns the code of a close frame; 1000 if it has none.
fn close_code(payload: &[u8]) -> Result<CloseCode, Violation> {
    match payload {
        [] => Ok(CloseCode::Normal),
        [high, low, reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
            let is_valid = code.is_allowed() && std::str::from_utf8(reason).is_ok();
            is_valid.then_some(code).ok_or(Violation::BadClose)
        }
        [_] => Err(Violation::BadClose),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
