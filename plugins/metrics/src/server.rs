//! The HTTP server: accepts connections, and ends each after one request or the time limit. Owns the socket,
//! its thread and its runtime; [`answer`](crate::answer) decides what is answered.

use elbus_plugin_api::{Host, PluginError, PluginThread, Status};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::{convert::Infallible, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    runtime::{Builder, Handle, Runtime},
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    address::{Bound, Listener, SocketFile},
    answer::Answers,
    connections::{Outcome, Phase, Places, TakenPlace},
    scrape::Scraper,
    settings::Settings,
};

/// Bytes of the head of a request.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// Pause after a connection could not be accepted: there are no file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound server.
pub(crate) struct Server {
    url: String,
    service: Arc<Service>,
    /// Set once the plugin serves, then once it stops.
    phase: watch::Sender<ServerPhase>,
    thread: Mutex<Option<(PluginThread, Option<SocketFile>)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerPhase {
    Bound,
    Serving,
    Stopping,
}

struct Service {
    answers: Answers,
    places: Arc<Places>,
    timeout: Duration,
}

impl Server {
    /// Binds the address, and starts the thread that will serve it.
    ///
    /// # Errors
    /// The address cannot be bound, or the thread or its runtime cannot be created.
    pub(crate) fn bind(host: &Host, settings: &Settings, scraper: Arc<Scraper>) -> Result<Self, PluginError> {
        let Bound { listener, url, is_loopback, file } = settings.address.bind(host)?;
        let allowed_hosts = is_loopback.then(|| settings.allowed_hosts.clone());
        let service = Arc::new(Service {
            answers: Answers { scraper, allowed_hosts },
            places: Places::new(settings.max_connections),
            timeout: settings.timeout,
        });
        let runtime = OwnRuntime::new()
            .map_err(|error| PluginError::new(format!("cannot create a runtime: {error}")))?;
        let handle = runtime.handle.clone();
        host.watch_worker("HTTP", move |answer| drop(handle.spawn(async move { answer.notify() })));
        let (phase, phases) = watch::channel(ServerPhase::Bound);
        let (serving, attributed) = (service.clone(), host.clone());
        let thread = host.spawn(move || run(&runtime, &attributed, listener, serving, phases))?;
        Ok(Server { url, service, phase, thread: Mutex::new(Some((thread, file))) })
    }

    /// Starts to accept connections.
    pub(crate) fn serve(&self) {
        _ = self.phase.send(ServerPhase::Serving);
        tracing::info!(address = self.url, "serving metrics");
    }

    /// Closes the socket and all connections, and waits until `deadline` for the thread.
    pub(crate) fn stop(&self, deadline: Duration) {
        _ = self.phase.send(ServerPhase::Stopping);
        let Some((thread, file)) = self.thread.lock().take() else { return };
        drop(file); // first, so that nobody can connect any more
        if !thread.ended_within(deadline) {
            tracing::warn!(?deadline, "HTTP thread has not ended within the deadline");
        }
    }

    /// Returns the address, and what the server does.
    pub(crate) fn status(&self) -> Status {
        let open = self.service.places.count();
        Status::new(vec![self.url.clone()], format!("{open} HTTP connections"))
    }
}

/// A runtime whose end never blocks, whatever thread drops it.
struct OwnRuntime {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl OwnRuntime {
    fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(OwnRuntime { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Serves until the phase is [`Stopping`](ServerPhase::Stopping), or the server is dropped.
fn run(
    own: &OwnRuntime,
    host: &Host,
    listener: Listener,
    service: Arc<Service>,
    mut phases: watch::Receiver<ServerPhase>,
) {
    let serving = async {
        let stopping = |phase: &ServerPhase| *phase == ServerPhase::Stopping;
        let mut ending = phases.clone();
        if phases.wait_for(|phase| *phase != ServerPhase::Bound).await.is_err() {
            return Ok(());
        }
        tokio::select! {
            _ = ending.wait_for(stopping) => Ok(()),
            ended = accept(listener, host, service) => ended,
        }
    };
    let Some(runtime) = &own.runtime else { return };
    if let Err(error) = runtime.block_on(host.attribute(serving)) {
        tracing::error!(%error, "metrics are not served any more");
    }
    // connections end with the runtime
}

async fn accept(listener: Listener, host: &Host, service: Arc<Service>) -> io::Result<()> {
    match listener {
        Listener::Tcp(socket) => {
            let socket = TcpListener::from_std(socket)?;
            loop {
                let accepted = socket.accept().await.map(|(stream, _)| stream);
                admit(accepted, host, &service).await;
            }
        }
        Listener::Unix(socket) => {
            let socket = UnixListener::from_std(socket)?;
            loop {
                let accepted = socket.accept().await.map(|(stream, _)| stream);
                admit(accepted, host, &service).await;
            }
        }
    }
}

async fn admit<S>(accepted: io::Result<S>, host: &Host, service: &Arc<Service>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match accepted {
        Ok(stream) => match service.places.take() {
            Some(taken) => {
                let serving = service.clone().serve(stream, taken);
                drop(tokio::spawn(host.attribute(serving)));
            }
            None => service.answers.scraper.http.ended(Outcome::Refused),
        },
        Err(error) => {
            tracing::debug!(%error, "HTTP connection not accepted");
            sleep(ACCEPT_PAUSE).await;
        }
    }
}

impl Service {
    /// Answers one request, and ends the connection.
    async fn serve<S>(self: Arc<Self>, stream: S, taken: TakenPlace)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (service, place) = (self.clone(), taken.place.clone());
        let answering = service_fn(move |request: Request<Incoming>| {
            let (service, place) = (service.clone(), place.clone());
            async move { Ok::<_, Infallible>(service.answers.answer(&request, &place).await) }
        });
        let mut http = http1::Builder::new();
        http.keep_alive(false).max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS);
        let connection = http.serve_connection(TokioIo::new(stream), answering);
        let outcome = tokio::select! {
            biased;
            () = taken.place.evicted() => Outcome::Evicted,
            ended = timeout(self.timeout, connection) => match ended {
                Err(_) => Outcome::Late,
                Ok(Ok(())) if taken.place.phase() != Phase::Request => Outcome::Served,
                // without a request, or with one that is refused
                Ok(_) => Outcome::Failed,
            },
        };
        self.answers.scraper.http.ended(outcome);
    }
}
