//! The connections of an instance and why each was admitted. Owns the decision which of them end when that
//! changes; reads no file.

use elbus_stream::Closer;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

use crate::admission::Admission;

/// The connections of an instance.
#[derive(Default)]
pub(crate) struct Connections(Mutex<Registry>);

#[derive(Default)]
struct Registry {
    next: u64,
    connections: HashMap<u64, Arc<Admitted>>,
}

struct Admitted {
    admission: Admission,
    closer: Closer,
}

/// A registered connection; removed when it is dropped.
pub(crate) struct RegisteredConnection<'a> {
    registry: &'a Connections,
    number: u64,
}

impl Connections {
    /// Adds a connection.
    pub(crate) fn add(&self, admission: Admission, closer: Closer) -> RegisteredConnection<'_> {
        let mut registry = self.0.lock();
        let number = registry.next;
        registry.next += 1;
        registry.connections.insert(number, Arc::new(Admitted { admission, closer }));
        RegisteredConnection { registry: self, number }
    }

    /// Closes the connections that are no longer admitted. Returns their number.
    pub(crate) fn close_unless(&self, is_admitted: impl Fn(&Admission) -> bool) -> usize {
        // without the lock: closing can end the task that removes the connection
        let all: Vec<_> = self.0.lock().connections.values().cloned().collect();
        let ending = all.iter().filter(|connection| !is_admitted(&connection.admission));
        ending.map(|connection| connection.closer.close(connection.admission.end_reason())).count()
    }
}

impl Drop for RegisteredConnection<'_> {
    fn drop(&mut self) {
        let removed = self.registry.0.lock().connections.remove(&self.number);
        drop(removed); // outside the lock
    }
}
