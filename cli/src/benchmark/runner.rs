//! Runs stages: connects the clients, starts the tasks, detects a stall, draws the progress bar. The tasks
//! are in `tasks`.

use elbus_client::Error;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

use super::{
    BenchmarkArguments,
    flow_control::{Progress, Window},
    report::{Latency, StageResult},
    stage::Stage,
    tasks::{self, Connection, ExpectedSource, Job, TaskOutput},
    topics::Topics,
};
use crate::{context::Context, error::CliError};

/// How often the progress bar is drawn and the stage is checked for a stall.
const TICK: Duration = Duration::from_millis(100);
/// A stage has stalled after the timeout of an operation and this margin: the operation's own error is more
/// precise.
const STALL_MARGIN: Duration = Duration::from_secs(1);
/// Maximum payload bytes in flight to a receiver, in addition to the limit of the window.
const WINDOW_BYTES: u64 = 4 * 1024 * 1024;

/// The connected workers, and the options of the stages they run.
pub(super) struct Runner<'a> {
    context: &'a Context,
    arguments: &'a BenchmarkArguments,
    workers: Vec<Connection>,
    /// Whether the workers answer calls. The first stage that needs it starts that.
    serving: bool,
}

impl<'a> Runner<'a> {
    /// Connects the workers.
    pub(super) async fn connect(
        context: &'a Context,
        arguments: &'a BenchmarkArguments,
    ) -> Result<Self, CliError> {
        let workers = connect(context, arguments, "", arguments.workers).await?;
        Ok(Runner { context, arguments, workers, serving: false })
    }

    /// Runs unmeasured round trips for this time.
    pub(super) async fn warm_up(&self, time: Duration) -> Result<(), CliError> {
        let until = Instant::now() + time;
        let mut tasks = JoinSet::new();
        for worker in &self.workers {
            let client = worker.client.clone();
            tasks.spawn(async move {
                while Instant::now() < until {
                    client.round_trip().await?;
                }
                Ok::<_, Error>(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|error| CliError::runtime(format!("warming up: {error}")))??;
        }
        Ok(())
    }

    /// Runs one stage.
    pub(super) async fn run(&mut self, stage: Stage) -> Result<StageResult, CliError> {
        match stage {
            Stage::Publish | Stage::PublishTopics => self.publish(stage).await,
            Stage::SendReceive => self.send_and_receive().await,
            Stage::Call
            | Stage::CallHandled
            | Stage::CallZero
            | Stage::Send
            | Stage::SendProcessed
            | Stage::SendReceiveProcessed => self.one_task_each(stage).await,
        }
    }

    /// Closes the connections.
    pub(super) async fn close(self) {
        close(self.workers).await;
    }

    async fn one_task_each(&mut self, stage: Stage) -> Result<StageResult, CliError> {
        if stage == Stage::CallHandled && !self.serving {
            self.serving = true;
            for worker in &self.workers {
                worker.client.serve(tasks::Echo)?;
            }
        }
        let progress = Arc::new(Progress::new(self.workers.len()));
        let jobs = self.jobs(stage);
        let mut running = self.start(stage, self.arguments.iters, vec![progress.clone()]);
        for (job, worker) in jobs {
            if stage == Stage::Send {
                running.tasks.spawn(tasks::send_unacknowledged(job, worker, progress.clone()));
            } else {
                running.tasks.spawn(tasks::round_trips(job, worker, progress.clone()));
            }
        }
        let (result, workers) = running.finish().await?;
        self.workers = workers;
        Ok(result)
    }

    async fn send_and_receive(&mut self) -> Result<StageResult, CliError> {
        let window = || Arc::new(Window::new(self.window(), 1));
        let windows: Vec<_> = self.workers.iter().map(|_| window()).collect();
        let progress = windows.iter().map(|window| window.progress()).collect();
        let jobs = self.jobs(Stage::SendReceive);
        let mut running = self.start(Stage::SendReceive, self.arguments.iters, progress);
        for ((job, worker), window) in jobs.into_iter().zip(windows) {
            let source = ExpectedSource::Own(worker.client.name().to_owned());
            running.tasks.spawn(tasks::send_ahead(job.clone(), worker.client.clone(), window.clone()));
            running.tasks.spawn(tasks::receive(job, worker, source, window, 0));
        }
        let (result, workers) = running.finish().await?;
        self.workers = workers;
        Ok(result)
    }

    /// Runs a stage in which one worker publishes to subscribers that are connected for this stage only.
    async fn publish(&mut self, stage: Stage) -> Result<StageResult, CliError> {
        let count = self.arguments.subscribers;
        let subscribers = connect(self.context, self.arguments, "sub-", count).await?;
        let topics = Arc::new(Topics::of(stage, &self.context.connection.name));
        for subscriber in &subscribers {
            subscriber.client.add_filters(topics.filter()).await?;
        }
        let window = Arc::new(Window::new(self.window(), subscribers.len()));
        let publications = (self.arguments.iters / u64::from(count)).max(1);
        let publisher = self.workers.first().map(|worker| worker.client.clone());
        let publisher = publisher.ok_or_else(|| CliError::runtime("no worker is connected"))?;

        let mut running = self.start(stage, publications * u64::from(count), vec![window.progress()]);
        for (index, subscriber) in subscribers.into_iter().enumerate() {
            let (job, source) =
                (self.job(stage, index, publications), ExpectedSource::Topics(topics.clone()));
            running.tasks.spawn(tasks::receive(job, subscriber, source, window.clone(), index));
        }
        let job = self.job(stage, 0, publications);
        running.tasks.spawn(tasks::publish_ahead(job, publisher, topics, window));
        let (mut result, subscribers) = running.finish().await?;
        result.subscribers = Some(subscribers.len());
        close(subscribers).await;
        Ok(result)
    }

    /// Returns each worker with its share of the iterations.
    fn jobs(&mut self, stage: Stage) -> Vec<(Job, Connection)> {
        let workers = std::mem::take(&mut self.workers);
        let (iters, count) = (self.arguments.iters, workers.len() as u64);
        let share = |index: usize| iters / count + u64::from((index as u64) < iters % count);
        workers
            .into_iter()
            .enumerate()
            .map(|(index, worker)| (self.job(stage, index, share(index)), worker))
            .collect()
    }

    fn job(&self, stage: Stage, index: usize, iterations: u64) -> Job {
        let payload_size = self.arguments.payload_size as usize;
        Job { stage, index, iterations, payload_size, timeout: self.context.connection.timeout }
    }

    fn window(&self) -> u64 {
        self.arguments.window.min(WINDOW_BYTES / u64::from(self.arguments.payload_size.max(1)))
    }

    fn start(&self, stage: Stage, iterations: u64, progress: Vec<Arc<Progress>>) -> RunningStage {
        let target = if self.context.output.quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar =
            ProgressBar::with_draw_target(Some(iterations), target).with_finish(ProgressFinish::AndClear);
        if let Ok(style) = ProgressStyle::with_template("{msg:<24} {wide_bar} {percent:>3}% {eta:>4}") {
            bar.set_style(style);
        }
        bar.set_message(stage.name());
        let result = StageResult {
            stage,
            workers: usize::from(self.arguments.workers),
            payload_size: self.arguments.payload_size as usize,
            subscribers: None,
            iterations,
            elapsed: Duration::ZERO,
            latency: None,
        };
        let stall_timeout = self.context.connection.timeout + STALL_MARGIN;
        RunningStage { result, progress, bar, stall_timeout, started: Instant::now(), tasks: JoinSet::new() }
    }
}

/// Connects clients whose names start with that of the command line.
async fn connect(
    context: &Context,
    arguments: &BenchmarkArguments,
    infix: &str,
    count: u16,
) -> Result<Vec<Connection>, CliError> {
    let busy_poll = Duration::from_micros(arguments.busy_poll.into());
    let (name, mut connections) = (&context.connection.name, Vec::new());
    for number in 1..=count {
        let builder = context.connection.builder(&format!("{name}-{infix}{number}")).busy_poll(busy_poll);
        let (client, frames) = context.connect_with(builder).await?;
        connections.push(Connection { client, frames });
    }
    Ok(connections)
}

async fn close(connections: Vec<Connection>) {
    for connection in connections {
        connection.client.close().await;
    }
}

/// A stage in progress. Dropping it aborts its tasks and removes the progress bar.
struct RunningStage {
    /// The result, incomplete until the end.
    result: StageResult,
    progress: Vec<Arc<Progress>>,
    bar: ProgressBar,
    stall_timeout: Duration,
    started: Instant,
    tasks: JoinSet<Result<TaskOutput, CliError>>,
}

impl RunningStage {
    /// Waits for all tasks. Returns the connections in the order of the workers.
    async fn finish(mut self) -> Result<(StageResult, Vec<Connection>), CliError> {
        let (mut connections, mut latency) = (Vec::new(), None::<Latency>);
        let (mut last_total, mut last_progress) = (0, Instant::now());
        let mut tick = tokio::time::interval(TICK);
        loop {
            let joined = tokio::select! {
                joined = self.tasks.join_next() => joined,
                _ = tick.tick() => {
                    let total = self.progress.iter().map(|progress| progress.total()).sum();
                    self.bar.set_position(total);
                    if total != last_total {
                        (last_total, last_progress) = (total, Instant::now());
                    } else if last_progress.elapsed() > self.stall_timeout {
                        return Err(self.stalled(total));
                    }
                    continue;
                }
            };
            let Some(joined) = joined else { break };
            let done =
                joined.map_err(|error| CliError::runtime(format!("a benchmark task failed: {error}")))??;
            connections.extend(done.connection);
            match (&mut latency, done.latency) {
                (Some(all), Some(one)) => {
                    all.add(&one)
                        .map_err(|error| CliError::runtime(format!("cannot merge latencies: {error}")))?;
                }
                (all, one) => *all = all.take().or(one),
            }
        }
        self.result.elapsed = self.started.elapsed();
        self.result.latency = latency;
        connections.sort_unstable_by_key(|(index, _)| *index);
        Ok((self.result, connections.into_iter().map(|(_, connection)| connection).collect()))
    }

    fn stalled(&self, done: u64) -> CliError {
        let (stage, all, seconds) =
            (self.result.stage, self.result.iterations, self.stall_timeout.as_secs_f64());
        CliError::runtime(format!(
            "{stage} stalled: {done} of {all} iterations completed, then none for {seconds:.1} s"
        ))
    }
}
