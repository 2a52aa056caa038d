//! Which addresses have refused rings lately, so that reconnecting clients do not ask each time. One list for
//! all clients of the program; never connects.

use parking_lot::Mutex;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{address::Address, settings::Settings};

/// For this long a client does not ask again. A broker can have rings later, or a client has left.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Number of addresses that are remembered.
const MAX_ADDRESSES: usize = 64;

/// The newest last. A leaf lock.
static REFUSALS: Mutex<Vec<(PathBuf, Instant)>> = Mutex::new(Vec::new());

/// Returns the path of the socket if the client is to ask for rings there.
pub(super) fn path_to_ask<'a>(address: &'a Address, settings: &Settings) -> Option<&'a Path> {
    let path = match address {
        Address::UnixWithRings(path) => path,
        Address::Unix(path) | Address::Default(path) if settings.rings => path,
        _ => return None,
    };
    let mut refusals = REFUSALS.lock();
    refusals.retain(|(_, since)| since.elapsed() < REMEMBERED);
    (!refusals.iter().any(|(refusing, _)| refusing == path)).then_some(path)
}

/// Remembers that there are no rings at this path.
pub(super) fn remember(path: &Path) {
    tracing::debug!(path = %path.display(), "the broker has no rings for this client; using its socket");
    let mut refusals = REFUSALS.lock();
    if refusals.len() >= MAX_ADDRESSES {
        refusals.remove(0);
    }
    refusals.push((path.to_owned(), Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_asked_if_the_client_wants_rings_and_it_has_not_refused() {
        let (off, on) = (Settings::default(), Settings { rings: true, ..Settings::default() });
        let unix = Address::Unix("/run/ring_refusals_1".into());
        let with_rings = Address::UnixWithRings("/run/ring_refusals_1".into());
        assert!(path_to_ask(&unix, &off).is_none() && path_to_ask(&unix, &on).is_some());
        assert!(path_to_ask(&with_rings, &off).is_some());
        assert!(path_to_ask(&Address::Tcp("localhost:1".into()), &on).is_none());
        remember(Path::new("/run/ring_refusals_1"));
        assert!(path_to_ask(&unix, &on).is_none() && path_to_ask(&with_rings, &off).is_none());
        for number in 0..2 * MAX_ADDRESSES {
            remember(Path::new(&format!("/run/ring_refusals_x{number}")));
        }
        assert!(REFUSALS.lock().len() <= MAX_ADDRESSES);
    }
}
