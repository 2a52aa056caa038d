//! The thread of a session: reads what is observed, and sends it as records until the session ends.

use elbus_plugin_api::{
    Call, Host,
    hooks::{Observation, Observer},
};
use std::{
    sync::{Arc, mpsc::RecvTimeoutError},
    time::{Duration, Instant},
};

use crate::{decoder::Decoder, filter::Filter, outbox::Outbox, session::Session};

/// Time between two checks of the lease and of the rights of the client.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which a count of missed messages is reported though no record follows.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// Messages that are read before anything else is done.
const BURST: usize = 256;
/// Niceness of the thread: it gets processor time that the bus leaves.
const NICENESS: i32 = 10;
/// The reason for the end if nobody has given one.
const ENDED: &str = "the plugin monitor has stopped or failed";

/// The parts of a session's thread.
pub(crate) struct Stream {
    pub(crate) host: Host,
    pub(crate) session: Arc<Session>,
    pub(crate) observer: Observer,
    pub(crate) filter: Filter,
    pub(crate) decoder: Decoder,
    pub(crate) outbox: Outbox,
    pub(crate) lease: Duration,
    /// Messages that the observer has missed, as counted here.
    pub(crate) missed: u64,
    /// Those of them that the next messages of the observer report again.
    pub(crate) missed_early: u64,
}

impl Stream {
    /// Sends records until the session ends.
    pub(crate) fn run(mut self) {
        // without the right to do so, it competes like any other thread
        _ = rustix::process::setpriority_process(None, NICENESS);
        let mut checked = Instant::now();
        let mut reported = checked;
        loop {
            let open = self.read();
            let now = Instant::now();
            self.outbox.confirm(self.session.confirmed());
            let Stream { decoder, outbox, .. } = &mut self;
            decoder.expire(now, &mut |record| outbox.add(record));
            outbox.flush();
            if now.duration_since(reported) >= REPORT_INTERVAL {
                reported = now;
                outbox.report_missed();
            }
            self.session.set_totals(self.outbox.totals());
            if !open {
                break;
            }
            if self.outbox.is_gone() {
                self.session.end("the client has left");
            } else if now.duration_since(checked) >= CHECK_INTERVAL {
                checked = now;
                self.check(now);
            }
        }
        let Stream { decoder, outbox, session, .. } = &mut self;
        decoder.finish(&mut |record| outbox.add(record));
        if !outbox.is_gone() {
            outbox.end(session.reason().unwrap_or(ENDED));
        }
    }

    /// Reads what has been observed; waits if there is nothing. Returns `false` once nothing will follow.
    fn read(&mut self) -> bool {
        let longest = if self.outbox.has_missed() { REPORT_INTERVAL } else { CHECK_INTERVAL };
        let mut seen = match self.observer.receive_timeout(self.decoder.wait(longest)) {
            Ok(seen) => seen,
            Err(error) => {
                self.miss_last();
                return error == RecvTimeoutError::Timeout;
            }
        };
        let now = Instant::now();
        for left in (0..BURST).rev() {
            self.take(seen, now);
            if left == 0 {
                break;
            }
            match self.observer.try_receive() {
                Some(next) => seen = next,
                None => {
                    self.miss_last();
                    break;
                }
            }
        }
        true
    }

    fn take(&mut self, seen: Observation, now: Instant) {
        // counted already if the queue was empty in between
        let early = self.missed_early.min(seen.missed());
        self.missed_early -= early;
        self.miss(seen.missed() - early);
        if self.filter.selects(&seen) {
            let outbox = &mut self.outbox;
            self.decoder.take(seen, now, &mut |record| outbox.add(record));
        }
    }

    /// Counts what was missed after the last message in the queue: no later one may say so.
    fn miss_last(&mut self) {
        let last = self.observer.missed() - self.missed;
        self.missed_early += last;
        self.miss(last);
    }

    fn miss(&mut self, messages: u64) {
        self.missed += messages;
        self.outbox.miss(messages);
    }

    /// Ends the session if its client does not renew it, or may not monitor any more.
    fn check(&self, now: Instant) {
        let Session { client, client_id, .. } = &*self.session;
        if self.session.is_expired(self.lease, now) {
            return self.session.end("the client has not called monitor.renew within lease_seconds");
        }
        let call = Call { caller: client, caller_id: *client_id, method: "monitor.start", params: &[] };
        if self.host.authorize(&call).is_err() {
            self.session.end("the client is not allowed to monitor any more");
        }
    }
}
