//! The soak: a broker of its own, everything at once for a long time, and a verdict. Owns how its parts begin and end; each
//! message is checked by its number where it arrives.

mod churn;
mod fixture;
mod ledger;
mod report;
mod resource_usage;
mod rng;
mod streams;

pub use report::Report;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::Failure;
use churn::Unrest;
use fixture::House;
use resource_usage::Samples;
use rng::Chance;

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// For how long.
    pub time: Duration,
    /// What chance begins with.
    pub seed: u64,
    /// Between two reloads of the configuration; none where it is zero.
    pub reload_every: Duration,
    /// The program.
    pub elbusd: PathBuf,
    /// Whether its plugins are those linked in.
    pub builtin: bool,
    /// What its memory may grow by.
    pub tolerance_bytes: u64,
}

/// The end of a soak, as all its parts see it.
#[derive(Debug, Clone, Default)]
struct End(Arc<AtomicBool>);

impl End {
    fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long after the end what is under way may take to arrive.
const REST: Duration = Duration::from_secs(60);

/// Carries a plan out.
///
/// # Errors
/// A broker that does not start or ends too early, an operation that fails. Loss and growth are no errors: they are in the
/// report.
pub fn run(plan: &Plan) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut house = House::open(plan)?;
    let result = runtime.block_on(soak(plan, &mut house));
    runtime.shutdown_timeout(Duration::from_secs(1));
    house.close(result.as_ref().is_ok_and(Report::is_good));
    result
}

async fn soak(plan: &Plan, house: &mut House) -> Result<Report, Failure> {
    let end = End::default();
    let mut lanes = streams::begin(house, &end).await?;
    let unrest = Unrest::begin(plan, house, &end).await?;
    let mut samples = Samples::begin(house.pid(), plan.time)?;
    let begun = Instant::now();
    let mut failure = None;
    while failure.is_none() && begun.elapsed() < plan.time {
        tokio::time::sleep(samples.interval()).await;
        failure = house.failure().or(samples.take()).or(lanes.failure().await).or(unrest.failure());
    }
    end.0.store(true, Ordering::Relaxed);
    if let Some(failure) = failure {
        return Err(failure);
    }
    let unrest = tokio::time::timeout(REST, unrest.finish()).await.map_err(|_| "clients that hang")??;
    let accounts = lanes.finish(REST).await?;
    Ok(Report { accounts, unrest, samples, tolerance_bytes: plan.tolerance_bytes })
}
