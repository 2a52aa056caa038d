//! The certificates that connected clients have shown, to be verified again when the authority changes. Owns who is
//! disconnected then; never reads a file.

use elbus_stream::Closer;
use elbus_tls::{Acceptor, Chain};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// The clients that have shown one.
#[derive(Default)]
pub(crate) struct Shown(Mutex<All>);

#[derive(Default)]
struct All {
    next: u64,
    clients: HashMap<u64, Arc<Client>>,
}

struct Client {
    chain: Chain,
    closer: Closer,
}

/// One of them; forgotten when it is dropped.
pub(crate) struct Entry<'a> {
    shown: &'a Shown,
    number: u64,
    client: Arc<Client>,
}

impl Shown {
    /// Remembers what a client has shown.
    pub(crate) fn add(&self, chain: Chain, closer: Closer) -> Entry<'_> {
        let client = Arc::new(Client { chain, closer });
        let mut all = self.0.lock();
        let number = all.next;
        all.next += 1;
        all.clients.insert(number, client.clone());
        drop(all);
        Entry { shown: self, number, client }
    }

    /// Verifies all of them, and disconnects whose certificate is not valid. Returns how many those are.
    pub(crate) fn verify(&self, acceptor: &Acceptor) -> usize {
        // without the lock: it takes a tenth of a millisecond for each
        let clients: Vec<_> = self.0.lock().clients.values().cloned().collect();
        clients.iter().filter(|client| !client.verify(acceptor)).count()
    }
}

impl Client {
    fn verify(&self, acceptor: &Acceptor) -> bool {
        let verified = acceptor.verify(&self.chain);
        if let Err(error) = &verified {
            self.closer.close(&format!("the client certificate is no longer valid: {error} (tls.client_ca)"));
        }
        verified.is_ok()
    }
}

impl Entry<'_> {
    /// Verifies this one, as [`Shown::verify`] does.
    pub(crate) fn verify(&self, acceptor: &Acceptor) {
        self.client.verify(acceptor);
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let gone = self.shown.0.lock().clients.remove(&self.number);
        drop(gone); // not under the lock
    }
}
