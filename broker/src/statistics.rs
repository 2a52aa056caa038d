//! Counters and durations that the control method `metrics` reports. Owns the numbers; decides nothing, and
//! imports no other part of the core.
//!
//! All are relaxed atomics of std, not of `sync`: no order depends on them.

mod counts_by;
mod durations;
mod instances;
mod kinds;
mod traffic;
mod waiting_time;

pub(crate) use counts_by::CountsBy;
pub(crate) use durations::{DurationSummary, Durations};
pub(crate) use instances::{InstanceStatistics, Instances};
pub(crate) use kinds::{Denial, Refusal, RegistrationRefusal};
pub(crate) use traffic::{Counts, Totals};
pub(crate) use waiting_time::WaitingTime;
