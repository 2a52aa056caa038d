//! Runs one stage after the other: connects the clients, hands out the work, watches over it, draws the progress bar.
//! What the work is stands in `work`.

use elbus_client::Error;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

use super::{
    BenchmarkArguments,
    flow::{Progress, Window},
    report::{Latency, Outcome},
    stage::Stage,
    work::{self, Connection, Done, Job, Source},
};
use crate::{failure::Failure, link::Link};

/// How often the bar is drawn and the stage is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How much longer than an operation may take a stage may stand still: the operation's own error says more.
const STANDSTILL: Duration = Duration::from_secs(1);
/// Payload bytes that may be under way to a receiver, whatever the window says.
const WINDOW_BYTES: u64 = 4 * 1024 * 1024;

/// The clients of a run.
pub(super) struct Stages<'a> {
    link: &'a Link,
    arguments: &'a BenchmarkArguments,
    workers: Vec<Connection>,
    /// The workers answer calls, from the first stage on that needs it.
    serving: bool,
}

impl<'a> Stages<'a> {
    /// Connects the workers.
    pub(super) async fn connect(link: &'a Link, arguments: &'a BenchmarkArguments) -> Result<Self, Failure> {
        let workers = connect(link, arguments, "", arguments.workers).await?;
        Ok(Stages { link, arguments, workers, serving: false })
    }

    /// Keeps everybody busy for a while, unmeasured.
    pub(super) async fn warm_up(&self, time: Duration) -> Result<(), Failure> {
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
            ended.map_err(|error| Failure::bus(format!("warming up: {error}")))??;
        }
        Ok(())
    }

    /// Runs one stage to its end.
    pub(super) async fn run(&mut self, stage: Stage) -> Result<Outcome, Failure> {
        match stage {
            Stage::Publish => self.publish().await,
            Stage::SendReceive => self.send_and_receive().await,
            Stage::Call
            | Stage::CallHandled
            | Stage::CallZero
            | Stage::Send
            | Stage::SendProcessed
            | Stage::SendReceiveProcessed => self.one_task_each(stage).await,
        }
    }

    /// Ends the connections.
    pub(super) async fn close(self) {
        close(self.workers).await;
    }

    async fn one_task_each(&mut self, stage: Stage) -> Result<Outcome, Failure> {
        if stage == Stage::CallHandled && !self.serving {
            self.serving = true;
            for worker in &self.workers {
                worker.client.serve(work::Echo)?;
            }
        }
        let progress = Arc::new(Progress::of(self.workers.len()));
        let jobs = self.jobs(stage);
        let mut running = self.begin(stage, self.arguments.iters, vec![progress.clone()]);
        for (job, worker) in jobs {
            if stage == Stage::Send {
                running.tasks.spawn(work::unanswered(job, worker, progress.clone()));
            } else {
                running.tasks.spawn(work::answered(job, worker, progress.clone()));
            }
        }
        let (outcome, workers) = running.end().await?;
        self.workers = workers;
        Ok(outcome)
    }

    async fn send_and_receive(&mut self) -> Result<Outcome, Failure> {
        let window = || Arc::new(Window::new(self.window(), 1));
        let windows: Vec<_> = self.workers.iter().map(|_| window()).collect();
        let progress = windows.iter().map(|window| window.progress()).collect();
        let jobs = self.jobs(Stage::SendReceive);
        let mut running = self.begin(Stage::SendReceive, self.arguments.iters, progress);
        for ((job, worker), window) in jobs.into_iter().zip(windows) {
            let source = Source::Own(worker.client.name().to_owned());
            running.tasks.spawn(work::ahead(job.clone(), worker.client.clone(), window.clone()));
            running.tasks.spawn(work::receive(job, worker, source, window, 0));
        }
        let (outcome, workers) = running.end().await?;
        self.workers = workers;
        Ok(outcome)
    }

    /// One worker publishes to clients that are there for this stage only.
    async fn publish(&mut self) -> Result<Outcome, Failure> {
        let count = self.arguments.subscribers;
        let subscribers = connect(self.link, self.arguments, "sub-", count).await?;
        let topic = work::topic(self.link.name());
        for subscriber in &subscribers {
            subscriber.client.add_filters(topic.as_str()).await?;
        }
        let window = Arc::new(Window::new(self.window(), subscribers.len()));
        let publications = (self.arguments.iters / u64::from(count)).max(1);
        let publisher = self.workers.first().map(|worker| worker.client.clone());
        let publisher = publisher.ok_or_else(|| Failure::bus("there is no worker to publish"))?;

        let mut running =
            self.begin(Stage::Publish, publications * u64::from(count), vec![window.progress()]);
        for (index, subscriber) in subscribers.into_iter().enumerate() {
            let (job, source) = (self.job(Stage::Publish, index, publications), Source::Topic(topic.clone()));
            running.tasks.spawn(work::receive(job, subscriber, source, window.clone(), index));
        }
        let job = self.job(Stage::Publish, 0, publications);
        running.tasks.spawn(work::publish_ahead(job, publisher, topic, window));
        let (mut outcome, subscribers) = running.end().await?;
        outcome.subscribers = Some(subscribers.len());
        close(subscribers).await;
        Ok(outcome)
    }

    /// Each worker with its share.
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
        Job { stage, index, iterations, payload_size, timeout: self.link.timeout() }
    }

    fn window(&self) -> u64 {
        self.arguments.window.min(WINDOW_BYTES / u64::from(self.arguments.payload_size.max(1)))
    }

    fn begin(&self, stage: Stage, iterations: u64, progress: Vec<Arc<Progress>>) -> Running {
        let target =
            if self.link.quiet() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar =
            ProgressBar::with_draw_target(Some(iterations), target).with_finish(ProgressFinish::AndClear);
        if let Ok(style) = ProgressStyle::with_template("{msg:<24} {wide_bar} {percent:>3}% {eta:>4}") {
            bar.set_style(style);
        }
        bar.set_message(stage.name());
        let outcome = Outcome {
            stage,
            workers: usize::from(self.arguments.workers),
            payload_size: self.arguments.payload_size as usize,
            subscribers: None,
            iterations,
            elapsed: Duration::ZERO,
            latency: None,
        };
        let patience = self.link.timeout() + STANDSTILL;
        Running { outcome, progress, bar, patience, begun: Instant::now(), tasks: JoinSet::new() }
    }
}

/// Connects clients that are called after the command line.
async fn connect(
    link: &Link,
    arguments: &BenchmarkArguments,
    infix: &str,
    count: u16,
) -> Result<Vec<Connection>, Failure> {
    let busy_poll = Duration::from_micros(arguments.busy_poll.into());
    let mut connections = Vec::new();
    for number in 1..=count {
        let builder = link.builder(&format!("{}-{infix}{number}", link.name())).busy_poll(busy_poll);
        let (client, frames) = link.connect_with(builder).await?;
        connections.push(Connection { client, frames });
    }
    Ok(connections)
}

async fn close(connections: Vec<Connection>) {
    for connection in connections {
        connection.client.close().await;
    }
}

/// A stage that runs. Dropping it ends its tasks and takes the bar away.
struct Running {
    /// What it comes to; incomplete until the end.
    outcome: Outcome,
    progress: Vec<Arc<Progress>>,
    bar: ProgressBar,
    patience: Duration,
    begun: Instant,
    tasks: JoinSet<Result<Done, Failure>>,
}

impl Running {
    /// Waits for all tasks. The connections come back in the order of the workers.
    async fn end(mut self) -> Result<(Outcome, Vec<Connection>), Failure> {
        let (mut connections, mut latency) = (Vec::new(), None::<Latency>);
        let (mut before, mut moved) = (0, Instant::now());
        let mut tick = tokio::time::interval(TICK);
        loop {
            let joined = tokio::select! {
                joined = self.tasks.join_next() => joined,
                _ = tick.tick() => {
                    let now = self.progress.iter().map(|progress| progress.total()).sum();
                    self.bar.set_position(now);
                    if now != before {
                        (before, moved) = (now, Instant::now());
                    } else if moved.elapsed() > self.patience {
                        return Err(self.stuck(now));
                    }
                    continue;
                }
            };
            let Some(joined) = joined else { break };
            let done = joined.map_err(|error| Failure::bus(format!("a worker has failed: {error}")))??;
            connections.extend(done.connection);
            match (&mut latency, done.latency) {
                (Some(all), Some(one)) => {
                    all.add(&one)
                        .map_err(|error| Failure::bus(format!("latencies do not add up: {error}")))?;
                }
                (all, one) => *all = all.take().or(one),
            }
        }
        self.outcome.elapsed = self.begun.elapsed();
        self.outcome.latency = latency;
        connections.sort_unstable_by_key(|(index, _)| *index);
        Ok((self.outcome, connections.into_iter().map(|(_, connection)| connection).collect()))
    }

    fn stuck(&self, done: u64) -> Failure {
        let (stage, all, patience) =
            (self.outcome.stage, self.outcome.iterations, self.patience.as_secs_f64());
        Failure::bus(format!(
            "{stage}: {done} of {all} iterations were done, then nothing for {patience:.1} s"
        ))
    }
}
