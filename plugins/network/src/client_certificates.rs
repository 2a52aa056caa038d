//! The certificates of connected clients, which are verified again when the authority changes. Owns the
//! decision which clients are then disconnected; never reads a file.

use elbus_stream::Closer;
use elbus_tls::{Acceptor, Chain};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// The certificates of connected clients.
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

/// A registered certificate; removed when it is dropped.
pub struct RegisteredCertificate<'a> {
    registry: &'a ClientCertificates,
    number: u64,
    client: Arc<Client>,
}

impl ClientCertificates {
    /// Adds the certificate chain of a client.
    pub(crate) fn add(&self, chain: Chain, closer: Closer) -> RegisteredCertificate<'_> {
        let client = Arc::new(Client { chain, closer });
        let mut registry = self.0.lock();
        let number = registry.next;
        registry.next += 1;
        registry.clients.insert(number, client.clone());
        drop(registry);
        RegisteredCertificate { registry: self, number, client }
    }

    /// Verifies all chains and disconnects the clients of invalid ones. Returns their number.
    pub(crate) fn verify(&self, acceptor: &Acceptor) -> usize {
        // without the lock: each verification takes a tenth of a millisecond
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
    /// Verifies this chain, as [`ClientCertificates::verify`] does.
    pub(crate) fn verify(&self, acceptor: &Acceptor) {
        self.client.verify(acceptor);
    }
}

impl Drop for RegisteredCertificate<'_> {
    fn drop(&mut self) {
        let removed = self.registry.0.lock().clients.remove(&self.number);
        drop(removed); // outside the lock
    }
}
