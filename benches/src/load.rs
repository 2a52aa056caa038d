//! The load generator: plans, and carrying them out. Every run checks that all messages arrived, each once and in order;
//! one that did not is an error and has no figures.
//!
//! What costs is done once: a batch of frames is encoded at the beginning, and each time only the sequence numbers are put
//! in; readers walk over frame headers and allocate nothing.

mod check;
mod in_process;
mod keeper;
mod outcome;
mod plan;
mod stream;
mod turns;
mod window;

pub use outcome::{Latency, Outcome};
pub use plan::{Bound, Over, Plan, Scenario};

use crate::{
    Failure,
    wire::{elbus::Elbus, mqtt::Mqtt, nats::Nats, redis::Redis, verbatim::Verbatim},
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
        Over::InProcess => in_process::run(plan),
    }
}

fn over<D: crate::wire::Dialect + 'static>(plan: &Plan) -> Result<Outcome, Failure> {
    match plan.scenario {
        Scenario::Echo | Scenario::Call => turns::run::<D>(plan),
        _ => stream::run::<D>(plan),
    }
}
