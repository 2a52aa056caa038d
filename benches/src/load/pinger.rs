//! Pings for those who only listen: a broker closes clients that have not said anything for some seconds. Those who send are
//! left alone, since bytes of two threads would mix.

use std::{
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use crate::{Failure, driver::Line};

const EVERY: Duration = Duration::from_secs(2);

/// Pings until it is dropped.
pub(super) struct Keeper {
    over: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn of(lines: Vec<Line>, ping: &'static [u8]) -> Result<Self, Failure> {
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        let mut thread = None;
        if !ping.is_empty() && !lines.is_empty() {
            let over = over.clone();
            let keep = move || {
                let (over, changed) = &*over;
                let Ok(mut guard) = over.lock() else { return };
                while !*guard {
                    guard = match changed.wait_timeout(guard, EVERY) {
                        Ok((guard, _)) => guard,
                        Err(_) => return,
                    };
                    for line in &lines {
                        let _ = line.send(ping); // who is gone is missed by its reader
                    }
                }
            };
            thread = Some(std::thread::Builder::new().name("keeper".into()).spawn(keep)?);
        }
        Ok(Keeper { over, thread })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Ok(mut over) = self.over.0.lock() {
            *over = true;
        }
        self.over.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
