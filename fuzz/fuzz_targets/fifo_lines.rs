//! Any line from a FIFO is refused with a message, or gives a request that can be encoded.
#![no_main]

use elbus_fifo::parse;
use elbus_plugin_api::{Op, Qos};
use elbus_protocol::{
    request::encode_request,
    rpc::{RpcFrame, decode_rpc},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let line = data.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let command = match parse(line) {
        Ok(Some(command)) => command,
        Ok(None) => return assert!(line.is_empty() || line == b"\r"),
        Err(wrong) => return assert!(!wrong.to_string().is_empty()),
    };
    assert!(matches!(command.op, Op::Message | Op::Broadcast | Op::Publish));
    let mut frame = Vec::new();
    encode_request(&mut frame, 1, command.op, Qos::NO, command.target, "", &command.payload).unwrap();
    let text = line.iter().position(|byte| *byte == b' ').map(|at| &line[at + 1..]).unwrap_or_default();
    if command.op == Op::Message && text.first() == Some(&b':') {
        let Ok(RpcFrame::Request { params, .. }) = decode_rpc(&command.payload) else {
            panic!("{command:?}")
        };
        assert!(rmpv::decode::read_value(&mut &*params).unwrap().is_map());
    }
});
