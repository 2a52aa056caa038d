//! A WebSocket client made of bytes: the opening request, and a stream whose writes become masked frames of
//! every size. Shares no code with the transport.

use crate::stream::Stream;
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// The request that opens a connection, with further header fields.
pub fn request(path: &str, host: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
}

/// Sends a request and reads the head of the response.
pub fn ask(stream: &mut (impl Read + Write), request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let (mut response, mut byte) = (vec![], [0]);
    while !response.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? > 0 {
        response.push(byte[0]);
    }
    Ok(String::from_utf8(response).unwrap())
}

/// A frame of a client: masked with a key that depends on its length.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = payload.len();
    let mut frame = vec![first];
    match len {
        0..126 => frame.push(0x80 | len as u8),
        126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    let mask = (len as u32).wrapping_mul(2_654_435_761).to_be_bytes();
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A close frame.
pub fn close_frame(code: u16) -> Vec<u8> {
    frame(0x88, &code.to_be_bytes())
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    Data(Vec<u8>),
    Pong(Vec<u8>),
    /// The code and the reason; the code is 1005 without one.
    Close(u16, String),
    /// The end of the connection.
    End,
}

/// A connection whose handshake is complete.
pub struct WebSocketPeer {
    pub socket: TcpStream,
    /// Data that has arrived and was not read yet.
    data: Vec<u8>,
    /// The close frame of the server, once it has arrived.
    pub closed: Option<(u16, String)>,
    /// Number of frames written: it decides how the next bytes are cut.
    written: usize,
}

impl WebSocketPeer {
    /// Connects to `ws://HOST:PORT/PATH`.
    pub fn connect(url: &str) -> Self {
        let (host, path) = url.strip_prefix("ws://").unwrap().split_once('/').unwrap();
        let mut socket = TcpStream::connect(host).unwrap();
        let response = ask(&mut socket, &request(&format!("/{path}"), host, "")).unwrap();
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        // that of the key, as RFC 6455 computes it
        assert!(response.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{response}");
        WebSocketPeer::new(socket)
    }

    /// A connection whose handshake is complete.
    pub fn new(socket: TcpStream) -> Self {
        WebSocketPeer { socket, data: vec![], closed: None, written: 0 }
    }

    /// Receives a frame. The server must not mask, fragment or compress.
    pub fn receive(&mut self) -> io::Result<Received> {
        let mut head = [0; 2];
        match self.socket.read(&mut head[..1])? {
            0 => return Ok(Received::End),
            _ => self.socket.read_exact(&mut head[1..])?,
        }
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.socket.read_exact(&mut len)?;
                u16::from_be_bytes(len).into()
            }
            127 => {
                let mut len = [0; 8];
                self.socket.read_exact(&mut len)?;
                u64::from_be_bytes(len)
            }
            len => {
                assert!(len < 126, "masked");
                len.into()
            }
        };
        let mut payload = vec![0; len as usize];
        self.socket.read_exact(&mut payload)?;
        Ok(match head[0] {
            0x82 => Received::Data(payload),
            0x8A => Received::Pong(payload),
            0x88 => {
                let (code, reason) = payload.split_at(payload.len().min(2));
                let code = code.try_into().map_or(1005, u16::from_be_bytes);
                self.closed = Some((code, String::from_utf8(reason.to_vec()).unwrap()));
                Received::Close(code, String::from_utf8(reason.to_vec()).unwrap())
            }
            other => panic!("frame {other:#x}"),
        })
    }
}

impl Read for WebSocketPeer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.data.is_empty() {
            if self.closed.is_some() {
                return Ok(0);
            }
            match self.receive()? {
                Received::Data(data) => self.data = data,
                Received::Pong(_) => {}
                Received::Close(..) => {
                    // answered as RFC 6455 demands; the connection may have ended
                    let _ = self.socket.write_all(&close_frame(1000));
                }
                Received::End => return Ok(0),
            }
        }
        let count = buffer.len().min(self.data.len());
        buffer[..count].copy_from_slice(&self.data[..count]);
        self.data.drain(..count);
        Ok(count)
    }
}

impl Write for WebSocketPeer {
    /// Sends the bytes in frames that are cut anywhere, as one message or several, with a ping or an empty
    /// message between.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (mut wire, mut at, mut is_open) = (vec![], 0, false);
        while at < bytes.len() {
            self.written += 1;
            let len = match self.written % 4 {
                0 => 1,
                1 => 125 + self.written % 3,
                2 => 65_534 + self.written % 4,
                _ => usize::MAX,
            };
            let len = len.min(bytes.len() - at);
            let is_last = at + len == bytes.len() || self.written.is_multiple_of(3);
            let operation = if is_open { 0 } else { 2 };
            let first = operation | if is_last { 0x80 } else { 0 };
            wire.extend(frame(first, &bytes[at..at + len]));
            is_open = !is_last;
            at += len;
            if self.written.is_multiple_of(97) {
                wire.extend(frame(0x89, b"ping"));
            } else if self.written.is_multiple_of(89) && !is_open {
                wire.extend(frame(0x82, b""));
            }
        }
        self.socket.write_all(&wire)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for WebSocketPeer {
    fn limit(&self, limit: Duration) {
        self.socket.limit(limit);
    }

    fn half_close(&self) {
        (&self.socket).write_all(&close_frame(1000)).unwrap();
    }

    fn twin(&self) -> Self {
        WebSocketPeer::new(self.socket.try_clone().unwrap())
    }
}
