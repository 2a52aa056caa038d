//! Ends commands that run until they are stopped: on SIGINT, on SIGTERM, or when stdout is closed. Never
//! decides what the command still does then.

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use std::time::Duration;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::error::CliError;

/// Time for the command to exit after a signal, before the process does. The command may block in a write to
/// stdout.
const FORCED_EXIT_DELAY: Duration = Duration::from_secs(1);

/// Waits for the request to exit.
pub(crate) struct Shutdown {
    requested: watch::Receiver<bool>,
}

impl Shutdown {
    /// Handles SIGINT and SIGTERM from now on, and watches stdout.
    pub(crate) fn install() -> Result<Self, CliError> {
        let (request, requested) = watch::channel(false);
        let failed = |error| CliError::runtime(format!("cannot handle signals: {error}"));
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::spawn(wait_for_signal(interrupt, terminate, request.clone()));
        // without this thread, the next write notices that stdout is closed
        _ = std::thread::Builder::new().name("elbus output".to_owned()).spawn(move || {
            if wait_for_closed_output() {
                request.send_replace(true);
            }
        });
        Ok(Shutdown { requested })
    }

    /// Returns when the command must exit. Can be called again.
    pub(crate) async fn wait(&mut self) {
        if self.requested.wait_for(|requested| *requested).await.is_err() {
            // both senders are gone: no request will come
            std::future::pending::<()>().await;
        }
    }
}

async fn wait_for_signal(mut interrupt: Signal, mut terminate: Signal, request: watch::Sender<bool>) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    request.send_replace(true);
    tokio::select! {
        () = tokio::time::sleep(FORCED_EXIT_DELAY) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    std::process::exit(0);
}

/// Blocks until the reader of stdout has closed it, perhaps indefinitely. Returns `false` if that cannot be
/// observed.
fn wait_for_closed_output() -> bool {
    let stdout = std::io::stdout();
    loop {
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) => return fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
