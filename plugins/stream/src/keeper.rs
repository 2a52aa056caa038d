//! Time limits and keep-alives of all connections of an instance, in one task. Owns the rhythm; the limits are those
//! of [`liveness`](crate::liveness) and the settings. Time is counted in sweeps: what a broker that was busy elsewhere has not
//! looked at is not held against a client.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    connection::Connection,
    instance::{Entry, Instance},
    liveness::Phase,
    reason::Reason,
};

/// Looks at all connections are so far apart, as a part of the timeout.
const SWEEPS_PER_TIMEOUT: u32 = 16;
const SHORTEST_SWEEP: Duration = Duration::from_millis(10);
const LONGEST_SWEEP: Duration = Duration::from_millis(250);
/// Spare buffers that nobody has needed for this time are freed, and at the latest after twice as long.
const SPARES_KEPT: Duration = Duration::from_millis(200);

/// The rhythm of the sweeps, and what lasts how many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rhythm {
    /// Sweeps are at least so far apart.
    period: Duration,
    timeout: Duration,
    /// Sweeps between two keep-alives, half the timeout.
    nop: u64,
    stall: Duration,
    /// In so many sweeps a client takes nothing before it is stalled, however late they come.
    stalled: u32,
}

impl Rhythm {
    fn new(timeout: Duration, stall: Duration) -> Self {
        let period = (timeout / SWEEPS_PER_TIMEOUT).clamp(SHORTEST_SWEEP, LONGEST_SWEEP);
        let nop = (timeout / 2).as_nanos() / period.as_nanos();
        // one less than fit: sweeps are a little further apart than a period
        let stalled = (stall.as_nanos() / period.as_nanos()).saturating_sub(1).max(1);
        let stalled = u32::try_from(stalled).unwrap_or(u32::MAX);
        Rhythm { period, timeout, nop: (nop as u64).max(1), stall, stalled }
    }

    /// When a phase has lasted too long that began during the sweep `since`: never early, and late by a sweep at most,
    /// since it may have begun just before the next one.
    fn end(&self, phase: Phase, since: u64) -> Option<u64> {
        let limit = phase.limit(self.timeout)?;
        Some(since + limit.as_nanos().div_ceil(self.period.as_nanos()) as u64 + 1)
    }
}

enum Due {
    /// Its reader may have something unread.
    Late(Phase),
    /// Its reader was asked to read everything.
    TooLate(Phase),
    PushOn,
    Nop,
}

/// Runs until it is aborted.
pub(crate) async fn keep(instance: Arc<Instance>) {
    let rhythm = Rhythm::new(instance.settings.timeout(), instance.settings.stall());
    let mut released = Instant::now();
    loop {
        // an interval would make up for a late sweep by an early one
        tokio::time::sleep(rhythm.period).await;
        sweep(&instance, &rhythm);
        if released.elapsed() >= SPARES_KEPT {
            released = Instant::now();
            instance.tell_hidden(released);
            elbus_socket::spares::release_unused();
        }
    }
}

/// Finds out under the census' lock what is due, and does it after that.
fn sweep(instance: &Instance, rhythm: &Rhythm) {
    let now = instance.sweeps.fetch_add(1, Ordering::Relaxed) + 1;
    let mut due: Vec<(Arc<Connection>, Due)> = vec![];
    // most sweeps touch no connection: ten thousand of them are not in the processor's cache
    let look_at_all = instance.any_blocked.swap(false, Ordering::AcqRel);
    let mut any_blocked = false;
    for (_, entry) in &mut instance.census.lock().connections {
        if now < entry.next_look && !look_at_all {
            continue;
        }
        if let Some(what) = look(entry, now, rhythm) {
            any_blocked |= matches!(what, Due::PushOn);
            due.push((entry.connection.clone(), what));
        }
    }
    if any_blocked {
        instance.any_blocked.store(true, Ordering::Release);
    }
    let time = Instant::now();
    for (connection, due) in due {
        match due {
            // whose bytes wait to be read is not silent, but they count once only: the client may go on sending what
            // completes nothing, and there is no readiness for what is out of band or came with file descriptors
            Due::Late(_) if connection.has_unread() => connection.ask_reader(),
            // the broker is late, not the client
            Due::TooLate(_) if connection.is_asked() => {}
            Due::Late(phase) | Due::TooLate(phase) => {
                connection.close(Reason::Late { phase, timeout: rhythm.timeout })
            }
            Due::PushOn => connection.push_on(time, rhythm.stall, rhythm.stalled),
            Due::Nop => connection.send_nop(),
        }
    }
}

/// What is due for a connection, and when it is to be looked at again.
fn look(entry: &mut Entry, now: u64, rhythm: &Rhythm) -> Option<Due> {
    let connection = &entry.connection;
    let (phase, since) = connection.liveness.last();
    let end = rhythm.end(phase, since).unwrap_or(u64::MAX);
    let was_asked = connection.was_asked.swap(now >= end, Ordering::Relaxed);
    if now >= end {
        return Some(if was_asked { Due::TooLate(phase) } else { Due::Late(phase) });
    }
    if connection.is_blocked() {
        return Some(Due::PushOn);
    }
    if !phase.is_registered() {
        return None;
    }
    let is_due = now >= entry.next_nop;
    let first = entry.next_nop == 0;
    if is_due {
        entry.next_nop = now + rhythm.nop;
    }
    entry.next_look = entry.next_nop.min(end);
    (is_due && !first).then_some(Due::Nop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StreamSettings, instance::Entered, testing::Pair};
    use std::io::{ErrorKind, Read, Write};

    const NOP: [u8; 6] = elbus_protocol::delivery::NOP;

    fn registered() -> (Pair, Rhythm) {
        let pair = Pair::new(StreamSettings::default());
        pair.peer.set_nonblocking(true).unwrap();
        let rhythm = Rhythm::new(Duration::from_secs(5), Duration::from_secs(4));
        assert_eq!((rhythm.period, rhythm.nop, rhythm.stalled), (Duration::from_millis(250), 10, 15));
        assert!(matches!(pair.connection.instance.enter(&pair.connection), Entered::As(_)));
        pair.connection.liveness.step(Phase::Header, 0);
        (pair, rhythm)
    }

    /// What has come, an end as nothing.
    fn read(pair: &mut Pair) -> Vec<u8> {
        let mut buffer = [0; 64];
        match pair.peer.read(&mut buffer) {
            Ok(count) => buffer[..count].to_vec(),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                vec![]
            }
        }
    }

    #[test]
    fn a_client_that_pings_gets_a_nop_each_half_timeout_and_one_that_stops_is_closed() {
        let (mut pair, rhythm) = registered();
        let mut nops = vec![];
        for now in 1..100 {
            sweep(&pair.connection.instance, &rhythm);
            assert!(!pair.connection.has_ended(), "{now}");
            match &*read(&mut pair) {
                [] => {}
                bytes => {
                    assert_eq!(bytes, NOP);
                    nops.push(now);
                }
            }
            // the last one during sweep 60
            if now % 20 == 0 && now <= 60 {
                pair.connection.liveness.step(Phase::Header, pair.connection.instance.now());
            }
            if now == 85 {
                break;
            }
        }
        assert_eq!(nops, [11, 21, 31, 41, 51, 61, 71, 81]);
        // 25 sweeps are 1.25 of the timeout, and it may have pinged just before sweep 61
        sweep(&pair.connection.instance, &rhythm);
        assert!(pair.connection.has_ended());
    }

    #[test]
    fn whoever_does_not_register_is_closed_after_the_timeout() {
        let (pair, rhythm) = registered();
        pair.connection.liveness.step(Phase::Name, 0);
        (1..=20).for_each(|_| sweep(&pair.connection.instance, &rhythm));
        assert!(!pair.connection.has_ended());
        sweep(&pair.connection.instance, &rhythm);
        assert!(pair.connection.has_ended());
    }

    #[test]
    fn a_client_whose_bytes_the_broker_has_not_read_is_not_silent() {
        let (mut pair, rhythm) = registered();
        pair.peer.write_all(&[0; 9]).unwrap();
        (1..=100).for_each(|_| sweep(&pair.connection.instance, &rhythm));
        assert!(!pair.connection.has_ended() && pair.connection.is_asked());
        // now it has read them, and they were a ping
        pair.connection.liveness.step(Phase::Header, pair.connection.instance.now());
        pair.connection.answer_asked();
        (1..=26).for_each(|_| sweep(&pair.connection.instance, &rhythm));
        assert!(!pair.connection.has_ended() && pair.connection.is_asked(), "its bytes count again");
    }

    #[test]
    fn unread_bytes_count_no_longer_when_the_reader_has_read_what_there_was() {
        let (mut pair, rhythm) = registered();
        pair.peer.write_all(&[0; 9]).unwrap();
        (1..=100).for_each(|_| sweep(&pair.connection.instance, &rhythm));
        assert!(!pair.connection.has_ended());
        // it completed nothing, and there is more
        pair.connection.answer_asked();
        sweep(&pair.connection.instance, &rhythm);
        assert!(pair.connection.has_ended());
    }

    #[test]
    fn a_client_is_stalled_after_attempts_not_after_time_in_which_nobody_tried() {
        let (pair, rhythm) = registered();
        pair.connection.send(&vec![1; 1 << 20]);
        let late = Instant::now() + Duration::from_secs(3600);
        for _ in 1..rhythm.stalled {
            pair.connection.push_on(late, rhythm.stall, rhythm.stalled);
            assert!(!pair.connection.has_ended());
        }
        pair.connection.push_on(Instant::now(), rhythm.stall, rhythm.stalled);
        assert!(!pair.connection.has_ended(), "nor after attempts in no time");
        pair.connection.push_on(late, rhythm.stall, rhythm.stalled);
        assert!(pair.connection.has_ended());
    }

    #[test]
    fn a_full_socket_is_looked_at_in_every_sweep_until_it_is_empty() {
        let (mut pair, rhythm) = registered();
        let instance = pair.connection.instance.clone();
        sweep(&instance, &rhythm);
        assert!(!instance.any_blocked.load(Ordering::Acquire));
        pair.connection.send(&vec![1; 1 << 20]);
        for _ in 0..3 {
            sweep(&instance, &rhythm);
            assert!(instance.any_blocked.load(Ordering::Acquire));
        }
        pair.peer.set_nonblocking(false).unwrap();
        let mut all = vec![0; 1 << 20];
        pair.peer.read_exact(&mut all).unwrap();
        // two: that of a socket that has just been emptied by the sweep is seen by the next one
        (0..2).for_each(|_| sweep(&instance, &rhythm));
        assert!(!instance.any_blocked.load(Ordering::Acquire));
    }
}
