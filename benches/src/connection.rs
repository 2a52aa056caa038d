//! A raw blocking client: no more than the load needs, so that what is measured is the broker.

use elbus_protocol::{
    Limits, Op, Qos,
    delivery::{Delivery, decode_delivery},
    handshake::{encode_client_greeting, encode_client_name},
    request::encode_filters,
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
};

use crate::Failure;

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    filled: usize,
}

impl Connection {
    pub(crate) fn open(address: &str, name: &str) -> Result<Self, Failure> {
        let stream: Box<dyn Stream> = if address.contains('/') || address.ends_with(".sock") {
            Box::new(UnixStream::connect(address)?)
        } else {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        };
        let mut connection = Connection { stream, buffer: vec![0; 256 * 1024], filled: 0 };
        connection.exactly(&[0xEB, 1, 0])?;
        connection.send(&encode_client_greeting())?;
        connection.exactly(&[1])?;
        connection.send(&encode_client_name(name)?)?;
        connection.exactly(&[1])?;
        Ok(connection)
    }

    fn exactly(&mut self, expected: &[u8]) -> Result<(), Failure> {
        let mut bytes = vec![0; expected.len()];
        self.stream.read_exact(&mut bytes)?;
        if bytes == expected { Ok(()) } else { Err(format!("the broker answered {bytes:x?}").into()) }
    }

    pub(crate) fn subscribe(&mut self, filter: &str) -> Result<(), Failure> {
        let mut out = Vec::new();
        encode_filters(&mut out, 1, Op::Subscribe, Qos::PROCESSED, [filter])?;
        self.send(&out)?;
        self.exactly(&[0xFE, 1, 0, 0, 0, 1])
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// One read; hands over the payload of every message in it.
    pub(crate) fn receive(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let read = self.stream.read(&mut self.buffer[self.filled..])?;
        if read == 0 {
            return Err("the broker closed the connection".into());
        }
        self.filled += read;
        let mut used = 0;
        while let Some((delivery, bytes)) =
            decode_delivery(&self.buffer[used..self.filled], &Limits::default())?
        {
            used += bytes;
            match delivery {
                // not what the broker announces
                Delivery::Message { sender, payload, .. } | Delivery::Publish { sender, payload, .. }
                    if sender.starts_with("load.") =>
                {
                    take(payload)?
                }
                _ => {}
            }
        }
        self.buffer.copy_within(used..self.filled, 0);
        self.filled -= used;
        Ok(())
    }
}
