//! Time limits, keep-alives and stalled sockets of all connections of an instance, in one task. Owns the
//! schedule; the limits are those of [`liveness`](crate::connection::liveness) and the settings. Time is
//! counted in ticks: time in which a busy broker did not serve a client is not held against the client.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    connection::{
        Connection, close_reason::CloseReason, liveness::Phase, pending_acknowledgements::PENDING_LIMIT,
    },
    server::{connection_table::Entry, state::ServerState},
};

/// Ticks per timeout.
const TICKS_PER_TIMEOUT: u32 = 16;
const MIN_PERIOD: Duration = Duration::from_millis(10);
const MAX_PERIOD: Duration = Duration::from_millis(250);
/// Pooled buffers that were unused for this long are freed, at the latest after twice this time.
const BUFFER_POOL_IDLE: Duration = Duration::from_millis(200);

/// The tick period, and limits in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TickSchedule {
    /// Minimum time between two ticks.
    period: Duration,
    timeout: Duration,
    /// Ticks between two keep-alives: half the timeout.
    nop: u64,
    stall: Duration,
    /// Ticks without progress after which a client is stalled, however late they come.
    stalled: u32,
}

impl TickSchedule {
    fn new(timeout: Duration, stall: Duration) -> Self {
        let period = (timeout / TICKS_PER_TIMEOUT).clamp(MIN_PERIOD, MAX_PERIOD);
        let nop = (timeout / 2).as_nanos() / period.as_nanos();
        // one less than fit: ticks are a little further apart than a period
        let stalled = (stall.as_nanos() / period.as_nanos()).saturating_sub(1).max(1);
        let stalled = u32::try_from(stalled).unwrap_or(u32::MAX);
        TickSchedule { period, timeout, nop: (nop as u64).max(1), stall, stalled }
    }

    /// Returns the tick at which a phase that began during tick `since` has lasted too long: never early, and
    /// at most one tick late, since the phase may have begun just before the next tick.
    fn end(&self, phase: Phase, since: u64) -> Option<u64> {
        let limit = phase.limit(self.timeout)?;
        Some(since + limit.as_nanos().div_ceil(self.period.as_nanos()) as u64 + 1)
    }
}

enum DueAction {
    /// Too late, but its reader may have unread bytes.
    Late(Phase),
    /// Too late, after its reader was requested to read everything.
    TooLate(Phase),
    PushOn,
    Nop,
}

/// Runs until it is aborted.
pub(crate) async fn run(server: Arc<ServerState>) {
    let schedule = TickSchedule::new(server.settings.timeout(), server.settings.stall());
    let mut released = Instant::now();
    loop {
        // a tokio interval would compensate a late tick by an early one
        tokio::time::sleep(schedule.period).await;
        tick(&server, &schedule);
        if released.elapsed() >= BUFFER_POOL_IDLE {
            released = Instant::now();
            server.log_suppressed(released);
            elbus_socket::buffer_pool::release_unused();
        }
    }
}

/// Determines under the table's lock what is due, and does it after releasing the lock.
fn tick(server: &ServerState, schedule: &TickSchedule) {
    let now = server.ticks.fetch_add(1, Ordering::Relaxed) + 1;
    let mut due: Vec<(Arc<Connection>, DueAction)> = vec![];
    // most ticks touch no connection: ten thousand of them do not fit in the processor's cache
    let check_all = server.any_blocked.swap(false, Ordering::AcqRel);
    let mut any_blocked = false;
    for (_, entry) in &mut server.table.lock().entries {
        if now < entry.next_check && !check_all {
            continue;
        }
        if let Some(what) = next_action(entry, now, schedule) {
            any_blocked |= matches!(what, DueAction::PushOn);
            due.push((entry.connection.clone(), what));
        }
    }
    if any_blocked {
        server.any_blocked.store(true, Ordering::Release);
    }
    let time = Instant::now();
    expire_acknowledgements(server, time);
    for (connection, due) in due {
        match due {
            // unread bytes excuse a client once only: it can go on sending bytes that complete nothing, and
            // readiness is not reported for out-of-band bytes or at file descriptors
            DueAction::Late(_) if connection.has_unread() => connection.request_read(),
            // the broker is late, not the client
            DueAction::TooLate(_) if connection.is_read_requested() => {}
            DueAction::Late(phase) | DueAction::TooLate(phase) => {
                connection.close(CloseReason::Late { phase, timeout: schedule.timeout })
            }
            DueAction::PushOn => connection.retry_write(time, schedule.stall, schedule.stalled),
            DueAction::Nop => connection.send_nop(),
        }
    }
}

/// Answers acknowledgements that have waited too long for their codes.
fn expire_acknowledgements(server: &ServerState, now: Instant) {
    let mut waiting = std::mem::take(&mut *server.acknowledging.lock());
    if waiting.is_empty() {
        return;
    }
    let waits = |connection: Arc<Connection>| connection.expire_acknowledgements(now, PENDING_LIMIT);
    waiting.retain(|connection| connection.upgrade().is_some_and(waits));
    server.acknowledging.lock().append(&mut waiting);
}

/// Returns what is due for a connection, and schedules the next check.
fn next_action(entry: &mut Entry, now: u64, schedule: &TickSchedule) -> Option<DueAction> {
    let connection = &entry.connection;
    let (phase, since) = connection.liveness.last();
    let end = schedule.end(phase, since).unwrap_or(u64::MAX);
    let was_late = connection.was_late.swap(now >= end, Ordering::Relaxed);
    if now >= end {
        return Some(if was_late { DueAction::TooLate(phase) } else { DueAction::Late(phase) });
    }
    if connection.is_blocked() {
        return Some(DueAction::PushOn);
    }
    if !phase.is_registered() {
        return None;
    }
    let is_due = now >= entry.next_nop;
    let first = entry.next_nop == 0;
    if is_due {
        entry.next_nop = now + schedule.nop;
    }
    entry.next_check = entry.next_nop.min(end);
    (is_due && !first).then_some(DueAction::Nop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{settings::StreamSettings, testing::Pair};
    use std::io::{ErrorKind, Read, Write};

    const NOP: [u8; 6] = elbus_protocol::delivery::NOP;

    fn registered() -> (Pair, TickSchedule) {
        let pair = Pair::new(StreamSettings::default());
        pair.peer.set_nonblocking(true).unwrap();
        let schedule = TickSchedule::new(Duration::from_secs(5), Duration::from_secs(4));
        assert_eq!((schedule.period, schedule.nop, schedule.stalled), (Duration::from_millis(250), 10, 15));
        assert!(pair.connection.server.insert(&pair.connection).is_some());
        pair.connection.liveness.step(Phase::Header, 0);
        (pair, schedule)
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
        let (mut pair, schedule) = registered();
        let mut nops = vec![];
        for now in 1..100 {
            tick(&pair.connection.server, &schedule);
            assert!(!pair.connection.is_closed(), "{now}");
            match &*read(&mut pair) {
                [] => {}
                bytes => {
                    assert_eq!(bytes, NOP);
                    nops.push(now);
                }
            }
            // the last one during tick 60
            if now % 20 == 0 && now <= 60 {
                pair.connection.liveness.step(Phase::Header, pair.connection.server.now());
            }
            if now == 85 {
                break;
            }
        }
        assert_eq!(nops, [11, 21, 31, 41, 51, 61, 71, 81]);
        // 25 ticks are 1.25 of the timeout, and it may have pinged just before tick 61
        tick(&pair.connection.server, &schedule);
        assert!(pair.connection.is_closed());
    }

    #[test]
    fn a_connection_that_does_not_register_is_closed_after_the_timeout() {
        let (pair, schedule) = registered();
        pair.connection.liveness.step(Phase::Name, 0);
        (1..=20).for_each(|_| tick(&pair.connection.server, &schedule));
        assert!(!pair.connection.is_closed());
        tick(&pair.connection.server, &schedule);
        assert!(pair.connection.is_closed());
    }

    #[test]
    fn a_client_whose_bytes_the_broker_has_not_read_is_not_silent() {
        let (mut pair, schedule) = registered();
        pair.peer.write_all(&[0; 9]).unwrap();
        (1..=100).for_each(|_| tick(&pair.connection.server, &schedule));
        assert!(!pair.connection.is_closed() && pair.connection.is_read_requested());
        // now it has read them, and they were a ping
        pair.connection.liveness.step(Phase::Header, pair.connection.server.now());
        pair.connection.finish_requested_read();
        (1..=26).for_each(|_| tick(&pair.connection.server, &schedule));
        assert!(!pair.connection.is_closed() && pair.connection.is_read_requested(), "its bytes count again");
    }

    #[test]
    fn unread_bytes_count_no_longer_when_the_reader_has_read_what_there_was() {
        let (mut pair, schedule) = registered();
        pair.peer.write_all(&[0; 9]).unwrap();
        (1..=100).for_each(|_| tick(&pair.connection.server, &schedule));
        assert!(!pair.connection.is_closed());
        // it completed nothing, and there is more
        pair.connection.finish_requested_read();
        tick(&pair.connection.server, &schedule);
        assert!(pair.connection.is_closed());
    }

    #[test]
    fn a_client_is_stalled_after_attempts_not_after_time_in_which_nobody_tried() {
        let (pair, schedule) = registered();
        pair.connection.send(&vec![1; 1 << 20]);
        let late = Instant::now() + Duration::from_secs(3600);
        for _ in 1..schedule.stalled {
            pair.connection.retry_write(late, schedule.stall, schedule.stalled);
            assert!(!pair.connection.is_closed());
        }
        pair.connection.retry_write(Instant::now(), schedule.stall, schedule.stalled);
        assert!(!pair.connection.is_closed(), "nor after attempts in no time");
        pair.connection.retry_write(late, schedule.stall, schedule.stalled);
        assert!(pair.connection.is_closed());
    }

    #[test]
    fn a_full_socket_is_checked_in_every_tick_until_it_is_empty() {
        let (mut pair, schedule) = registered();
        let server = pair.connection.server.clone();
        tick(&server, &schedule);
        assert!(!server.any_blocked.load(Ordering::Acquire));
        pair.connection.send(&vec![1; 1 << 20]);
        for _ in 0..3 {
            tick(&server, &schedule);
            assert!(server.any_blocked.load(Ordering::Acquire));
        }
        pair.peer.set_nonblocking(false).unwrap();
        let mut all = vec![0; 1 << 20];
        pair.peer.read_exact(&mut all).unwrap();
        // two: that of a socket that has just been emptied by the tick is seen by the next one
        (0..2).for_each(|_| tick(&server, &schedule));
        assert!(!server.any_blocked.load(Ordering::Acquire));
    }
}
