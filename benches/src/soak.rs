//! The soak test: a broker of its own, every kind of load at once for a long time, and a report. Owns the
//! start and the end of its parts; each message is checked by its number where it arrives.

mod churn;
mod fixture;
mod ledger;
mod report;
mod resource_usage;
mod stream_plan;
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

use crate::BoxError;
use churn::Churn;
use fixture::BrokerFixture;
use resource_usage::UsageSamples;
use streams::Streams;

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The duration.
    pub time: Duration,
    /// The seed of the random numbers.
    pub seed: u64,
    /// The time between two reloads of the configuration; zero for none.
    pub reload_interval: Duration,
    /// The path of `elbusd`.
    pub elbusd: PathBuf,
    /// Whether to use the plugins that are linked in.
    pub builtin: bool,
    /// How much the broker's memory may grow.
    pub tolerance_bytes: u64,
}

/// The signal to stop, shared by all parts.
#[derive(Debug, Clone, Default)]
struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The timeout of each client's operations.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The time in which messages in flight must arrive after the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Carries out a plan. Lost messages and growth are no errors: they are in the report.
///
/// # Errors
/// A broker that does not start or ends early, an operation that fails.
pub fn run(plan: &Plan) -> Result<Report, BoxError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut fixture = BrokerFixture::start(plan)?;
    let result = runtime.block_on(soak(plan, &mut fixture));
    runtime.shutdown_timeout(Duration::from_secs(1));
    fixture.stop(result.as_ref().is_ok_and(Report::passed));
    result
}

async fn soak(plan: &Plan, fixture: &mut BrokerFixture) -> Result<Report, BoxError> {
    let stop = StopFlag::default();
    let mut streams = Streams::start(fixture, &stop).await?;
    let churn = Churn::start(plan, fixture, &stop).await?;
    let mut usage = UsageSamples::start(fixture.pid(), plan.time)?;
    let begin = Instant::now();
    let mut error = None;
    while error.is_none() && begin.elapsed() < plan.time {
        tokio::time::sleep(usage.interval()).await;
        error = fixture.error().or(usage.take().err()).or(streams.error().await).or(churn.error());
    }
    stop.set();
    if let Some(error) = error {
        return Err(error);
    }
    let churn = tokio::time::timeout(DRAIN_TIMEOUT, churn.finish())
        .await
        .map_err(|_| "clients that come and go did not finish")??;
    let ledgers = streams.finish().await?;
    Ok(Report { ledgers, churn, usage, tolerance_bytes: plan.tolerance_bytes })
}
