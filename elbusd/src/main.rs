//! The ELBUS broker: reads the command line and broker.toml, starts the broker they describe, stops it on a
//! signal.

mod arguments;
mod builder;
mod builtin_plugins;
mod check;
mod log;
mod memory_trim;
mod notify;
mod pid_file;
mod process;
mod reload;
mod signals;

use clap::Parser;
use elbus_broker::{Broker, BrokerBuilder, ConfigFile};
use elbus_protocol::address::Address;
use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use arguments::Arguments;
use log::{Log, exiting_thread::ExitingThreadLayer, recent::RecentLines, throttle::Throttle};
use notify::ServiceNotifier;
use pid_file::PidFile;
use process::{ProcessSettings, ServiceEnvironment, cpu_latency::CpuLatency};
use reload::Reloader;
use signals::{SignalRequest, Signals};

/// Time for clients to disconnect after the shutdown was announced, at most half of `shutdown_seconds`. The
/// rest of that is for queues to drain.
const DISCONNECT_TIME: Duration = Duration::from_secs(1);
/// Pause between checks whether clients are left.
const DISCONNECT_POLL: Duration = Duration::from_millis(10);
/// The default log level.
const DEFAULT_LEVEL: &str = "info";
/// Characters of an invalid filter that an error repeats.
const SHOWN_FILTER_CHARS: usize = 100;

fn main() -> ExitCode {
    if let Some(ended) = elbus_broker::run_library_probe() {
        return ended;
    }
    elbus_broker::report_fatal_signals();
    // before any thread is started
    process::allocator::keep_freed_memory();
    let service = ServiceEnvironment::take();
    process::ignore_signals();
    process::close_inherited_on_exec();
    let arguments = Arguments::parse();
    if let Some(document) = arguments.generate {
        let printed = document.text().and_then(|text| std::io::stdout().write_all(&text));
        return if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Some(name) = &arguments.make_token {
        return make_token(name);
    }
    let log = match Log::start(std::io::stderr()) {
        Ok(log) => log,
        Err(error) => {
            _ = writeln!(std::io::stderr(), "elbusd: cannot start the log thread: {error}");
            return ExitCode::FAILURE;
        }
    };
    let recent = RecentLines::default();
    let run = start_log(&arguments, &log, &recent).and_then(|()| {
        if arguments.check {
            // a signal ends the process immediately
            return check(&arguments);
        }
        // before anything that can hang
        let signals = Signals::start(&log).map_err(|error| format!("cannot handle signals: {error}"))?;
        run(arguments, service, &signals, &recent)
    });
    if let Err(message) = &run {
        log.line(format!("elbusd: {message}\n").as_bytes());
    }
    log.finish();
    if run.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start_log(arguments: &Arguments, log: &Log, recent: &RecentLines) -> Result<(), String> {
    // an invalid variable may be meant for another program, so it does not prevent the start
    let mut ignored = None;
    let filter = match (&arguments.log, std::env::var_os("RUST_LOG")) {
        (Some(filter), _) => log_filter(filter, "--log")?,
        (None, Some(filter)) if !filter.is_empty() => {
            let filter = log_filter(&filter.to_string_lossy(), "RUST_LOG");
            filter.unwrap_or_else(|error| {
                ignored = Some(error);
                EnvFilter::new(DEFAULT_LEVEL)
            })
        }
        (None, _) => EnvFilter::new(DEFAULT_LEVEL),
    };
    let lines = tracing_subscriber::fmt::layer()
        .fmt_fields(log::instance::Fields(log::fields::fields()))
        .event_format(log::instance::Lines::default())
        .with_writer(log.clone())
        .with_ansi(std::io::stderr().is_terminal());
    let throttle = Throttle::new(log.clone());
    tracing_subscriber::registry()
        .with(filter)
        .with(throttle)
        .with(lines)
        .with(recent.clone())
        .with(ExitingThreadLayer(log.clone()))
        .init();
    // the hook of std writes to stderr in the thread that panics, which can block
    std::panic::set_hook(Box::new(|info| tracing::error!("{info}")));
    if let Some(error) = ignored {
        tracing::warn!(default = DEFAULT_LEVEL, %error, "RUST_LOG is ignored");
    }
    Ok(())
}

fn log_filter(filter: &str, source: &str) -> Result<EnvFilter, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let shown: String = filter.chars().take(SHOWN_FILTER_CHARS).collect();
    // tracing takes a single word for the name of a crate, and silences everything else
    if !filter.contains(['=', ',', ':', '[']) && !LEVELS.contains(&filter.to_lowercase().as_str()) {
        return Err(format!(
            "invalid log level {shown:?} in {source}: expected off, error, warn, info, debug or trace, or a filter \
             such as info,elbus_unix=debug"
        ));
    }
    EnvFilter::try_new(filter).map_err(|error| format!("invalid log filter {shown:?} in {source}: {error}"))
}

/// Runs `f` with the builder that the command line describes. Errors name their line of the file.
fn with_builder<R>(
    arguments: &Arguments,
    f: impl FnOnce(BrokerBuilder, ProcessSettings) -> Result<R, elbus_broker::BrokerError>,
) -> Result<R, String> {
    let read = |path| ConfigFile::read_with(path, &builtin_plugins::linked_plugins());
    let read = arguments.config.as_deref().map(read).transpose().map_err(|error| error.to_string())?;
    let (file, settings) = read.unzip();
    let builder = builder::broker_builder(arguments, file.as_ref());
    if let Some(missing) = builder::missing_web_library(arguments, &builder) {
        return Err(missing);
    }
    f(builder, settings.unwrap_or_default()).map_err(|error| match &file {
        Some(file) => file.locate(&error).to_string(),
        None => error.to_string(),
    })
}

fn check(arguments: &Arguments) -> Result<(), String> {
    check::check(arguments).map_err(|errors| errors.join("\nelbusd: "))?;
    match &arguments.config {
        Some(path) => println!("{}: ok", path.display()),
        None => println!("ok"),
    }
    Ok(())
}

fn run(
    arguments: Arguments,
    service: ServiceEnvironment,
    signals: &Signals,
    recent: &RecentLines,
) -> Result<(), String> {
    process::raise_fd_limit();
    let pid_error = |error| {
        format!("pid file {}: {error}", arguments.pid_file.as_deref().unwrap_or("".as_ref()).display())
    };
    // removed only after the broker has stopped
    let mut pid_file = arguments.pid_file.as_deref().map(PidFile::lock).transpose().map_err(pid_error)?;
    let notify = ServiceNotifier::new(service.notify_socket);
    let cpu_latency = Arc::new(CpuLatency::default());
    let started = with_builder(&arguments, |builder, settings| {
        signals.set_limit(builder.effective_settings().shutdown());
        let builder = builder.interrupted_by(signals.stopping());
        let builder = service.listeners.into_iter().fold(builder, BrokerBuilder::listener);
        start(&arguments, builder).inspect(|_| cpu_latency.set(settings.cpu_latency_us))
    });
    let (broker, runtime) = match started {
        Err(error) if signals.is_stopping() => {
            tracing::warn!(%error, "stopped before the start was complete");
            return Ok(());
        }
        started => started?,
    };
    pid_file.as_mut().map_or(Ok(()), PidFile::write).map_err(pid_error)?;
    if broker.plugins().is_empty() {
        tracing::warn!("no plugins are declared: clients cannot connect");
    }
    let (broker, quiet) = (Arc::new(broker), arguments.quiet);
    let page = match &arguments.web {
        None if arguments.config.is_none() => Page::Suggested,
        None => Page::Unknown,
        Some(web) if broker.host().has_access_rules() || web.contains("tokens_file") => Page::Served,
        Some(_) => Page::ServedWithToken,
    };
    memory_trim::start(&broker);
    let runtime_handle = runtime.as_ref().map(|runtime| runtime.handle().clone());
    let reloader = Reloader::new(arguments, &broker, runtime_handle, notify.clone(), cpu_latency.clone());
    reloader.add_method(&broker);
    recent.add_method(&broker);
    let reload = reloader.on_signal().map_err(|error| format!("cannot start the reload thread: {error}"))?;
    if !quiet {
        print_banner(&broker, page);
    }
    notify.ready(&reload::status(&broker));
    if let Some(limit) = service.watchdog {
        notify.keep_alive(&broker, limit);
    }
    while signals.next() == SignalRequest::Reload {
        reload();
        signals.set_limit(broker.settings().shutdown());
    }
    notify.stopping();
    let (started, limit) = (Instant::now(), broker.settings().shutdown());
    signals.set_limit(limit);
    broker.announce_shutdown();
    while broker.client_count() > 0 && started.elapsed() < DISCONNECT_TIME.min(limit / 2) {
        std::thread::sleep(DISCONNECT_POLL);
    }
    broker.stop(limit.saturating_sub(started.elapsed())).wait();
    cpu_latency.set(None);
    for call in elbus_broker::hanging_calls() {
        tracing::error!(call, "callback abandoned: it has not returned");
    }
    drop(broker);
    if let Some(runtime) = runtime {
        runtime.shutdown_background();
    }
    tracing::info!("stopped");
    Ok(())
}

/// Starts the broker, with a tokio runtime if plugins are linked in. Loaded libraries have their own.
fn start(
    arguments: &Arguments,
    builder: BrokerBuilder,
) -> Result<(Broker, Option<Runtime>), elbus_broker::BrokerError> {
    if !builder.has_linked_plugins() {
        return Ok((builder.start()?, None));
    }
    let workers = arguments.workers.map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("elbusd")
        .enable_all()
        .build()
        .inspect_err(
            |error| tracing::warn!(%error, "cannot start the program's runtime; plugins create their own"),
        )
        .ok();
    let _entered = runtime.as_ref().map(Runtime::enter);
    let broker = builder.start()?;
    drop(_entered);
    Ok((broker, runtime))
}

/// Makes a token: the line for the file of tokens goes to stdout, which can be appended to it.
fn make_token(name: &str) -> ExitCode {
    let mut stderr = std::io::stderr();
    let made = match elbus_websocket::make_token(name) {
        Ok(made) => made,
        Err(error) => {
            _ = writeln!(stderr, "elbusd: --make-token: {error}");
            return ExitCode::from(2);
        }
    };
    let printed = writeln!(stderr, "token {name:?}, shown only now: {}", made.token)
        .and_then(|()| writeln!(std::io::stdout(), "{}", made.line));
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns the shortest form of an address that the command line accepts.
fn hint_address(address: &str) -> Option<&str> {
    if let Some(path) = address.strip_prefix("unix:") {
        let is_plain = matches!(Address::parse(path), Address::Unix(plain) if plain == path);
        return Some(if is_plain { path } else { address });
    }
    address.strip_prefix("tcp:")
}

/// What is known of the page of the plugin `web` at the start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    /// Nothing: a file declares plugins.
    Unknown,
    /// It is not there, and worth a hint.
    Suggested,
    /// `--web` serves it.
    Served,
    /// `--web` serves it, to those with the token of this start.
    ServedWithToken,
}

/// Prints the addresses, the plugins, how to try the broker, and how to see the page.
fn print_banner(broker: &Broker, page: Page) {
    let reports = broker.plugins();
    let mut text = format!("elbusd {} is ready\n", env!("CARGO_PKG_VERSION"));
    let addresses: Vec<_> = reports.iter().flat_map(|report| report.status.addresses.clone()).collect();
    for address in &addresses {
        text.push_str(&format!("  listening on {address}\n"));
    }
    for report in &reports {
        text.push_str(&format!("  plugin {}: {} ({})\n", report.name, report.plugin, report.origin));
    }
    if let Some(address) = addresses.iter().find_map(|address| hint_address(address)) {
        let address = address.replace('\'', "'\\''");
        text.push_str(&format!(
            "try it with the command line, or any ELBUS or BUS/RT client:\n  \
             elbus --addr '{address}' listen -t '#'\n  elbus --addr '{address}' publish hello/world 42\n"
        ));
    }
    let web = addresses
        .iter()
        .find(|address| address.starts_with("http") && address.ends_with('/'))
        .map_or("", String::as_str);
    text.push_str(&match page {
        Page::Unknown => String::new(),
        Page::Suggested => {
            format!("see it at work in a browser:\n  elbusd --web {}\n", arguments::DEFAULT_WEB)
        }
        Page::Served => format!("see it at work in a browser:\n  {web}\n"),
        // not here: output is not as protected as a log
        Page::ServedWithToken => {
            format!("see it at work in a browser, with the token that the log shows:\n  {web}#token=...\n")
        }
    });
    // stdout may be closed
    _ = std::io::stdout().write_all(text.as_bytes());
}
