//! The load generator: plans and their execution. Every run checks that each message arrives once and in
//! order; if one does not, the run is an error and has no figures.
//!
//! Costly work is done once: all frames are encoded at the start, and only sequence numbers are written into
//! them afterwards. Receivers parse frame headers and allocate nothing.

mod batch;
mod idle;
mod in_process;
mod latency;
mod memory_growth;
mod mix;
mod outcome;
mod pinger;
mod plan;
mod round_trip;
mod sequence;
mod stream;
mod window;

pub use latency::Latency;
pub use outcome::{IdleClients, Outcome, Traffic};
pub use plan::{FarNode, Plan, Protocol, RunLength, Scenario};

use crate::{
    BoxError,
    driver::{Driver, elbus::Elbus, mqtt::Mqtt, nats::Nats, redis::Redis, relay::Relay},
};
use memory_growth::MemoryBaseline;

/// Carries out a plan.
///
/// # Errors
/// An invalid plan, a broker that cannot be reached, a message that was lost, repeated or out of order.
pub fn run(plan: &Plan) -> Result<Outcome, BoxError> {
    plan.validate()?;
    match plan.protocol {
        Protocol::Elbus => run_over::<Elbus>(plan),
        Protocol::Relay => run_over::<Relay>(plan),
        Protocol::Nats => run_over::<Nats>(plan),
        Protocol::Redis => run_over::<Redis>(plan),
        Protocol::Mqtt => run_over::<Mqtt>(plan),
        Protocol::InProcess => in_process::run(plan).map(Outcome::Traffic),
    }
}

fn run_over<D: Driver + 'static>(plan: &Plan) -> Result<Outcome, BoxError> {
    let baseline = plan.broker_pid.filter(|_| plan.memory_after).and_then(MemoryBaseline::of);
    let mut traffic = match plan.scenario {
        Scenario::Idle => return idle::run::<D>(plan).map(Outcome::IdleClients),
        Scenario::Echo | Scenario::Call => round_trip::run::<D>(plan)?,
        _ => stream::run::<D>(plan)?,
    };
    traffic.broker_memory_after = baseline.and_then(|baseline| baseline.growth_after_settling());
    Ok(Outcome::Traffic(traffic))
}
