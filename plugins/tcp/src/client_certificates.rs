//! The certificates that connected clients have shown, to be verified again when the authority changes. Owns who is
//! disconnected then; never reads a file.

use elbus_stream::Closer;
use elbus_tls::{Acceptor, Chain};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// The clients that have shown one.
#[derive(Default)]
pub(crate) struct ClientCertificates(Mutex<Registry>);

#[derive(Default)]
struct Registry {
    next: u64,
    clients: HashMap<u64, Arc<Client>>,
}

struct Client {
    chain: Chain,
    closer: Closer,
}

/// One of them; forgotten when it is dropped.
pub(crate) struct RegisteredCertificate<'a> {
    registry: &'a ClientCertificates,
    number: u64,
    client: Arc<Client>,
}

impl ClientCertificates {
    /// Remembers what a client has shown.
    pub(crate) fn add(&self, chain: Chain, closer: Closer) -> RegisteredCertificate<'_> {
        let client = Arc::new(Client { chain, closer });
        let mut registry = self.0.lock();
        let number = registry.next;
        registry.next += 1;
        registry.clients.insert(number, client.clone());
        drop(registry);
        RegisteredCertificate { registry: self, number, client }
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

impl RegisteredCertificate<'_> {
    /// Verifies this one, as [`ClientCertificates::verify`] does.
    pub(crate) fn verify(&self, acceptor: &Acceptor) {
        self.client.verify(acceptor);
    }
}

impl Drop for RegisteredCertificate<'_> {
    fn drop(&mut self) {
        let gone = self.registry.0.lock().clients.remove(&self.number);
        drop(gone); // not under the lock
    }
}
