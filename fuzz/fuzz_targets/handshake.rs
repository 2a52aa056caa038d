//! A handshake read in pieces equals one read at once.
#![no_main]

use elbus_protocol::handshake::{HandshakeError, Progress, ServerHandshake};
use elbus_protocol::name::{check_name, is_secondary, primary_of};
use libfuzzer_sys::fuzz_target;

/// The steps taken, the name, and the bytes left after it.
type Outcome = Result<(usize, Option<String>, Vec<u8>), HandshakeError>;

fn feed<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let (mut server, mut rest, mut steps, mut found) = (ServerHandshake::with_rings(), vec![], 0, None);
    for piece in pieces {
        rest.extend_from_slice(piece);
        while found.is_none() {
            let used = match server.advance(&rest)? {
                Progress::NeedMore => break,
                Progress::Greeted { consumed } | Progress::RingsAsked { consumed, .. } => consumed,
                Progress::Name { consumed, name } => {
                    assert_eq!(consumed, 2 + name.len());
                    assert!(name.starts_with(primary_of(name)));
                    assert_eq!(is_secondary(name), primary_of(name) != name);
                    assert!(check_name(name).is_err() || !name.is_empty());
                    found = Some(name.to_owned());
                    consumed
                }
            };
            steps += 1;
            rest.drain(..used);
        }
    }
    Ok((steps, found, rest))
}

fuzz_target!(|data: &[u8]| {
    let Some((size, wire)) = data.split_first() else { return };
    let whole = feed([wire].into_iter());
    assert_eq!(feed(wire.chunks(usize::from(*size).max(1))), whole);
});
