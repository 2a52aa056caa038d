//! When a command that goes on and on has to end: a signal, or nobody reads its output any more. Never decides what
//! is still to be done then.

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use std::time::Duration;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::failure::Failure;

/// What the command gets to end by itself after a signal. It may be stuck in writing to somebody who does not read.
const GRACE: Duration = Duration::from_secs(1);

/// Tells when to end.
pub(crate) struct Ending {
    ended: watch::Receiver<bool>,
}

impl Ending {
    /// From now on Ctrl-C and SIGTERM end the command in order.
    pub(crate) fn watch() -> Result<Self, Failure> {
        let (end, ended) = watch::channel(false);
        let failed = |error| Failure::bus(format!("cannot wait for signals: {error}"));
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::spawn(wait_for_signal(interrupt, terminate, end.clone()));
        // without the thread the end is noticed at the next line that is written
        _ = std::thread::Builder::new().name("elbus output".to_owned()).spawn(move || {
            if wait_for_closed_output() {
                end.send_replace(true);
            }
        });
        Ok(Ending { ended })
    }

    /// Ends when the command has to. May be asked again.
    pub(crate) async fn wait(&mut self) {
        if self.ended.wait_for(|ended| *ended).await.is_err() {
            // nobody is left to tell
            std::future::pending::<()>().await;
        }
    }
}

async fn wait_for_signal(mut interrupt: Signal, mut terminate: Signal, end: watch::Sender<bool>) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    end.send_replace(true);
    tokio::select! {
        () = tokio::time::sleep(GRACE) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    std::process::exit(0);
}

/// Blocks until whoever reads the output has closed it, perhaps forever. `false` where that cannot be known.
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
