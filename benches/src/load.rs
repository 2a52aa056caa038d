//! The load generator: plans, and carrying them out. Every run checks that all messages arrived, each once and in order;
//! one that did not is an error and has no figures.
//!
//! What costs is done once: a batch of frames is encoded at the beginning, and each time only the sequence numbers are put
//! in; readers walk over frame headers and allocate nothing.

mod idle;
mod in_process;
mod memory_growth;
mod outcome;
mod pinger;
mod plan;
mod round_trip;
mod sequence;
mod stream;
mod window;

pub use outcome::{Crowd, Latency, Outcome, Traffic};
pub use plan::{Bound, Over, Plan, Scenario};

use memory_growth::Before;

use crate::{
    Failure,
    driver::{elbus::Elbus, mqtt::Mqtt, nats::Nats, redis::Redis, relay::Verbatim},
};

/// Carries a plan out.
///
/// # Errors
/// A plan that makes no sense, a broker that cannot be reached, a message that was lost, repeated or out of order.
pub fn run(plan: &Plan) -> Result<Outcome, Failure> {
    plan.check()?;
    match plan.over {
        Over::Elbus => over::<Elbus>(plan),
        Over::Relay => over::<Verbatim>(plan),
        Over::Nats => over::<Nats>(plan),
        Over::Redis => over::<Redis>(plan),
        Over::Mqtt => over::<Mqtt>(plan),
        Over::InProcess => in_process::run(plan).map(Outcome::Traffic),
    }
}

fn over<D: crate::driver::Dialect + 'static>(plan: &Plan) -> Result<Outcome, Failure> {
    let before = plan.broker.filter(|_| plan.afterwards).and_then(Before::of);
    let mut traffic = match plan.scenario {
        Scenario::Idle => return idle::run::<D>(plan).map(Outcome::Crowd),
        Scenario::Echo | Scenario::Call => round_trip::run::<D>(plan)?,
        _ => stream::run::<D>(plan)?,
    };
    traffic.broker_memory_after = before.and_then(|before| before.above_later());
    Ok(Outcome::Traffic(traffic))
}
