//! `elbus monitor`: prints what passes the bus, as the plugin monitor of the broker reports it. Confirms what
//! it has printed, so that the broker sends no more than that.

mod record;

use elbus_client::{Client, Error, Frame};
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
use tokio::sync::Notify;

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
    let (client, mut frames) = context.connect().await?;
    let parameters = Parameters {
        topics: &arguments.topics,
        clients: &arguments.clients,
        rpc: arguments.rpc,
        payload_bytes: if arguments.full { u64::from(u32::MAX) } else { PAYLOAD_BYTES },
    };
    let started = client.call_as(BROKER_NAME, "monitor.start", &parameters).await;
    let session: Session = started.map_err(explain)?;
    let (address, name) = (&context.connection.address, &context.connection.name);
    context.output.notice(&format!("monitoring {address} as {name}; press Ctrl-C to exit"));
    let progress = Arc::new(Progress::default());
    // in a thread of its own: a full stdout blocks this one, and the session goes on
    let mut renewing = tokio::spawn(renew(client.clone(), progress.clone(), &session));
    let mut printer = Printer {
        results: Results::new(&context.output),
        display: Display { json: context.output.json, zone: TimeZone::system() },
        remaining: arguments.count,
        missed: 0,
    };
    let mut unconfirmed = 0;
    let result = loop {
        let frame = tokio::select! {
            biased;
            () = shutdown.wait() => break Ok(()),
            frame = frames.next() => frame,
            failed = &mut renewing => break Err(failed.map_or_else(
                |error| CliError::runtime(error.to_string()), explain_end)),
        };
        let Some(frame) = frame else {
            break Err(CliError::runtime("connection lost: is the broker still running?"));
        };
        if frame.sender() != session.sender {
            continue;
        }
        let batch = read(&frame)?;
        printer.print(&batch)?;
        if printer.remaining == Some(0) {
            break Ok(());
        }
        if let Some(reason) = batch.end {
            break Err(CliError::runtime(format!("the broker has ended the session: {reason}")));
        }
        progress.batch.store(batch.batch, Ordering::Relaxed);
        unconfirmed += frame.payload().len() + BATCH_BYTES;
        if unconfirmed >= session.window_bytes / 4 {
            unconfirmed = 0;
            progress.confirm.notify_one();
        }
    };
    renewing.abort();
    printer.results.flush()?;
    if printer.missed > 0 {
        context.output.notice(&format!("{} messages missed", printer.missed));
    }
    // if this times out, the exit of the process closes the connection, which ends the session
    _ = tokio::time::timeout(CLOSE_TIMEOUT, stop(&client, session.session)).await;
    result
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
