//! Time limits and keep-alives of all connections of an instance, in one task. Owns the rhythm; the limits are those
//! of [`liveness`](crate::liveness) and the settings.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::MissedTickBehavior;

use crate::{connection::Connection, instance::Instance, liveness::Phase, reason::Reason};

/// Looks at all connections are so far apart, as a part of the timeout.
const SWEEPS_PER_TIMEOUT: u32 = 16;
const SHORTEST_SWEEP: Duration = Duration::from_millis(10);
/// Spare buffers that nobody has needed so long are freed.
const SPARES_KEPT: Duration = Duration::from_secs(1);

enum Due {
    TooLate(Phase),
    PushOn,
    Nop,
}

/// Runs until it is aborted.
pub(crate) async fn keep(instance: Arc<Instance>) {
    let timeout = instance.settings.timeout();
    let period = (timeout / SWEEPS_PER_TIMEOUT).max(SHORTEST_SWEEP);
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut released = Instant::now();
    loop {
        interval.tick().await;
        let now = Instant::now();
        sweep(&instance, now, period);
        if now.duration_since(released) >= SPARES_KEPT {
            released = now;
            elbus_socket::spares::release_unused();
        }
    }
}

/// Finds out under the census' lock what is due, and does it after that.
fn sweep(instance: &Instance, now: Instant, period: Duration) {
    let timeout = instance.settings.timeout();
    // half a period early or late, half the timeout on average
    let until_nop = (timeout / 2).saturating_sub(period / 2);
    let mut due: Vec<(Arc<Connection>, Due)> = vec![];
    for (_, entry) in &mut instance.census.lock().connections {
        let connection = &entry.connection;
        if let Some(phase) = entry.watch.late(&connection.liveness, now, timeout) {
            due.push((connection.clone(), Due::TooLate(phase)));
        } else if connection.is_blocked() {
            due.push((connection.clone(), Due::PushOn));
        } else if connection.liveness.phase().is_registered() {
            let next = *entry.next_nop.get_or_insert(now + until_nop);
            if now >= next {
                entry.next_nop = Some(now + until_nop);
                due.push((connection.clone(), Due::Nop));
            }
        }
    }
    for (connection, due) in due {
        match due {
            Due::TooLate(phase) => connection.close(Reason::Late { phase, timeout }),
            Due::PushOn => connection.push_on(now, instance.settings.stall()),
            Due::Nop => connection.send_nop(),
        }
    }
}
