//! `elbus monitor`: prints what passes the bus, as the plugin monitor of the broker reports it. Confirms what
//! it has printed, so that the broker sends no more than that.

mod record;

use elbus_client::{Client, Error, Frame, Frames, Reconnect};
use elbus_protocol::{BROKER_NAME, Code, rpc::METHOD_NOT_FOUND};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, task::JoinHandle};

use super::connection_reporter::{ConnectionChange, ConnectionReporter};
use crate::{
    arguments::monitor::MonitorArguments, context::Context, error::CliError, output::Results,
    shutdown::Shutdown,
};
use record::{Batch, Display};

/// Bytes requested of a payload by default.
const PAYLOAD_BYTES: u64 = 4096;
/// Bytes that the broker counts for a batch beside its payload.
const BATCH_BYTES: usize = 128;
/// Timeout for ending the session and the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for the broker to close the connection after it has ended the session, if it stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The parameters of `monitor.start`.
#[derive(Serialize)]
struct Parameters<'a> {
    topics: &'a [String],
    clients: &'a [String],
    rpc: bool,
    payload_bytes: u64,
}

/// The result of `monitor.start`.
#[derive(Deserialize)]
struct Session {
    session: u64,
    /// The sender of the batches.
    sender: String,
    lease_seconds: f64,
    window_bytes: usize,
}

/// The parameters of `monitor.renew` and `monitor.stop`.
#[derive(Serialize)]
struct Renewal {
    session: u64,
    batch: u64,
}

/// What was printed, and whether to confirm it at once.
#[derive(Default)]
struct Progress {
    batch: AtomicU64,
    confirm: Notify,
}

pub(crate) async fn run(context: &Context, arguments: MonitorArguments) -> Result<(), CliError> {
    let mut shutdown = Shutdown::install()?;
    let reconnect = if arguments.no_reconnect { Reconnect::Off } else { Reconnect::backoff() };
    let builder = context.connection.builder(&context.connection.name).reconnect(reconnect);
    let (client, mut frames) = context.connect_with(builder).await?;
    let mut reporter = ConnectionReporter::new(context, &client, !arguments.no_reconnect);
    let mut printer = Printer {
        results: Results::new(&context.output),
        display: Display { json: context.output.json, zone: TimeZone::system() },
        remaining: arguments.count,
        missed: 0,
    };
    let (address, name) = (&context.connection.address, &context.connection.name);
    let mut first = true;
    let result = loop {
        let started = start(&client, &arguments).await;
        let end = match started {
            Ok(session) => {
                if std::mem::take(&mut first) {
                    context.output.notice(&format!("monitoring {address} as {name}; press Ctrl-C to exit"));
                }
                let printing = print_session(&client, &mut frames, &mut reporter, &mut printer, &session);
                let ended = tokio::select! {
                    biased;
                    () = shutdown.wait() => Ok(()),
                    ended = printing => ended,
                };
                if ended.is_ok() {
                    printer.results.flush()?;
                    // if this times out, the exit of the process ends the session
                    _ = tokio::time::timeout(CLOSE_TIMEOUT, stop(&client, session.session)).await;
                }
                ended
            }
            Err(error) if error.is_disconnected() && !first => Err(SessionEnd::Lost),
            Err(error) => Err(SessionEnd::Failed(explain(error))),
        };
        let error = match end {
            Ok(()) => break Ok(()),
            Err(SessionEnd::Lost) => None,
            Err(SessionEnd::Failed(error)) => break Err(error),
            Err(SessionEnd::ByBroker(error)) => Some(error),
        };
        if arguments.no_reconnect {
            let lost = || CliError::runtime("connection lost: is the broker still running?");
            break Err(error.unwrap_or_else(lost));
        }
        let restored = async {
            if let Some(error) = error {
                // a broker that stops ends its sessions first
                let lost = reporter.wait_for(ConnectionChange::Lost);
                if tokio::time::timeout(STOP_TIMEOUT, lost).await.is_err() {
                    return Err(error);
                }
            }
            reporter.wait_for(ConnectionChange::Restored).await;
            Ok(())
        };
        let restored = tokio::select! {
            biased;
            () = shutdown.wait() => break Ok(()),
            restored = restored => restored,
        };
        if let Err(error) = restored {
            break Err(error);
        }
        // what is left of the session before
        while frames.try_next().is_some() {}
    };
    printer.results.flush()?;
    if printer.missed > 0 {
        context.output.notice(&format!("{} messages missed", printer.missed));
    }
    result
}

/// Why a session has ended that the user has not ended.
enum SessionEnd {
    /// The connection was lost.
    Lost,
    /// The broker has ended it, perhaps because it stops.
    ByBroker(CliError),
    Failed(CliError),
}

impl From<CliError> for SessionEnd {
    fn from(error: CliError) -> Self {
        SessionEnd::Failed(error)
    }
}

async fn start(client: &Client, arguments: &MonitorArguments) -> Result<Session, Error> {
    let parameters = Parameters {
        topics: &arguments.topics,
        clients: &arguments.clients,
        rpc: arguments.rpc,
        payload_bytes: if arguments.full { u64::from(u32::MAX) } else { PAYLOAD_BYTES },
    };
    client.call_as(BROKER_NAME, "monitor.start", &parameters).await
}

/// Prints the batches of a session until the count is reached.
async fn print_session(
    client: &Client,
    frames: &mut Frames,
    reporter: &mut ConnectionReporter<'_>,
    printer: &mut Printer,
    session: &Session,
) -> Result<(), SessionEnd> {
    let progress = Arc::new(Progress::default());
    // in a thread of its own: a full stdout blocks this one, and the session goes on
    let mut renewing = AbortOnDrop(tokio::spawn(renew(client.clone(), progress.clone(), session)));
    let (mut unconfirmed, mut lost) = (0, false);
    loop {
        let frame = tokio::select! {
            biased;
            frame = frames.next() => frame,
            change = reporter.next() => match change {
                ConnectionChange::Lost => return Err(SessionEnd::Lost),
                _ => continue,
            },
            failed = &mut renewing.0, if !lost => match failed {
                // the reporter has it next, or the end of the frames
                Ok(error) if error.is_disconnected() => {
                    lost = true;
                    continue;
                }
                Ok(error) => return Err(SessionEnd::ByBroker(explain_end(error))),
                Err(error) => return Err(CliError::runtime(error.to_string()).into()),
            },
        };
        // without reconnecting, the client ends with its connection
        let Some(frame) = frame else { return Err(SessionEnd::Lost) };
        if frame.sender() != session.sender {
            continue;
        }
        let batch = read(&frame)?;
        printer.print(&batch)?;
        if printer.remaining == Some(0) {
            return Ok(());
        }
        if let Some(reason) = batch.end {
            let error = CliError::runtime(format!("the broker has ended the session: {reason}"));
            return Err(SessionEnd::ByBroker(error));
        }
        progress.batch.store(batch.batch, Ordering::Relaxed);
        unconfirmed += frame.payload().len() + BATCH_BYTES;
        if unconfirmed >= session.window_bytes / 4 {
            unconfirmed = 0;
            progress.confirm.notify_one();
        }
    }
}

fn read(frame: &Frame) -> Result<Batch<'_>, CliError> {
    rmp_serde::from_slice(frame.payload()).map_err(|error| {
        CliError::runtime(format!("the broker's plugin monitor is of another version: {error}"))
    })
}

async fn stop(client: &Client, session: u64) {
    let params = rmp_serde::to_vec_named(&Renewal { session, batch: 0 }).unwrap_or_default();
    // the session may have ended
    _ = client.call(BROKER_NAME, "monitor.stop", params).await;
    client.close().await;
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<Error>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Renews the session and confirms what was printed; returns why that is no longer possible.
fn renew(client: Client, progress: Arc<Progress>, session: &Session) -> impl Future<Output = Error> + use<> {
    let interval = Duration::try_from_secs_f64(session.lease_seconds / 3.0).unwrap_or(CLOSE_TIMEOUT);
    let session = session.session;
    async move {
        loop {
            _ = tokio::time::timeout(interval, progress.confirm.notified()).await;
            let batch = progress.batch.load(Ordering::Relaxed);
            let params = rmp_serde::to_vec_named(&Renewal { session, batch }).unwrap_or_default();
            if let Err(error) = client.call(BROKER_NAME, "monitor.renew", params).await {
                return error;
            }
        }
    }
}

/// Adds a remedy to an error of `monitor.start`.
fn explain(error: Error) -> CliError {
    let missing = "the broker cannot be monitored: its configuration does not load the plugin";
    if matches!(error, Error::NotRegistered { .. }) {
        return CliError::runtime(format!("{missing} elbus_rpc"));
    }
    match CliError::from(error) {
        CliError::Rpc { code: METHOD_NOT_FOUND, .. } => CliError::runtime(format!("{missing} elbus_monitor")),
        CliError::Rpc { code, text } if code == Code::AccessDenied.rpc_code() => {
            let hint = match text.contains("remote_admin") {
                true => "monitor it on the broker's machine, through its UNIX socket",
                false => "use a --name that the access rules allow to call monitor.start and monitor.renew",
            };
            CliError::Rpc { code, text: format!("access denied: {text}: {hint}") }
        }
        error => error,
    }
}

/// Explains why the session could not be renewed.
fn explain_end(error: Error) -> CliError {
    match CliError::from(error) {
        CliError::Rpc { text, .. } => CliError::runtime(format!("the broker has ended the session: {text}")),
        error => error,
    }
}

/// Prints batches.
struct Printer {
    results: Results,
    display: Display,
    /// Records until the exit, if `--count` is given.
    remaining: Option<u64>,
    missed: u64,
}

impl Printer {
    fn print(&mut self, batch: &Batch<'_>) -> Result<(), CliError> {
        for record in &batch.records {
            self.print_missed(record.missed)?;
            if self.display.json {
                self.results.json(&self.display.to_json(record))?;
            } else {
                self.results.line(&self.display.to_text(record, self.results.palette))?;
            }
            if let Some(remaining) = &mut self.remaining {
                *remaining = remaining.saturating_sub(1);
            }
            if self.remaining == Some(0) {
                return self.results.flush();
            }
        }
        self.print_missed(batch.missed)?;
        self.results.flush()
    }

    fn print_missed(&mut self, missed: u64) -> Result<(), CliError> {
        if missed == 0 {
            return Ok(());
        }
        self.missed += missed;
        match self.display.json {
            true => self.results.json(&serde_json::json!({ "kind": "missed", "count": missed })),
            false => self.results.line(&format!("... {missed} messages missed")),
        }
    }
}
