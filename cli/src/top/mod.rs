//! `elbus top`: a live screen of a broker's clients. Owns the terminal while it runs and the loop of keys, signals and
//! polls; what is shown is made in `model` and `state`, drawn in `screen`.

mod column;
mod keys;
mod model;
mod poll;
mod screen;
mod state;
mod terminal;
mod text;

use clap::Args;
use crossterm::event::{self, Event};
use elbus_client::Reconnect;
use std::{
    io::{self, IsTerminal},
    thread,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};

use crate::{failure::Failure, link::Link};
use column::Column;
use model::Model;
use poll::{Poller, Update};
use screen::Look;
use state::{Connection, Effect, State};
use terminal::Terminal;

/// Keys and updates that wait while the screen is drawn; whoever brings more waits himself.
const WAITING: usize = 16;

/// What drawing gets to end after a signal. The terminal may be one that takes nothing.
const GRACE: Duration = Duration::from_secs(1);

/// Options of `elbus top`.
#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    /// Ask the broker every so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub(crate) interval: Duration,

    /// Sort by this column
    #[arg(long, value_enum, value_name = "COLUMN", default_value_t = Column::Bytes)]
    pub(crate) sort: Column,

    /// Show only clients with this text in name, kind, source or port, whatever its case
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) filter: String,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if !(0.1..=3600.0).contains(&seconds) {
        return Err("must be between 0.1 and 3600 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Shows the screen until it is quit.
///
/// # Errors
/// When stdout is no terminal, when there is no broker at the start, when the terminal fails.
pub(crate) async fn run(link: &Link, arguments: TopArguments) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::usage(
            "top draws on a terminal, and stdout is none: try `elbus --json broker clients` instead",
        ));
    }
    // whatever can fail before the terminal is taken does so there
    let builder = link.builder(link.name()).reconnect(Reconnect::backoff());
    let (client, frames) = link.connect_with(builder).await?;
    // replies to calls do not come this way, and nothing else is wanted
    drop(frames);
    let signal = watch_signals()?;
    let mut terminal = Terminal::take().map_err(broken)?;

    let (updates, polled) = mpsc::channel(WAITING);
    let address = link.address().to_string();
    let state = State::new(address, arguments.sort, arguments.filter);
    let show = Show { state, model: Model::default(), look: Look { colour: link.colour() } };
    let keys = read_keys()?;
    tokio::select! {
        biased;
        _ = signal => Ok(()),
        shown = show.run(&mut terminal, keys, polled) => shown,
        // it ends when the other one does; until then there is what it has told to be shown
        () = async { Poller::new(client).run(arguments.interval, updates).await; std::future::pending().await } => Ok(()),
    }
}

fn broken(error: io::Error) -> Failure {
    Failure::bus(format!("the terminal fails: {error}"))
}

/// Waits for the signals that end a program, so that the terminal is given back before they do.
fn watch_signals() -> Result<oneshot::Receiver<()>, Failure> {
    let on = |kind| signal(kind).map_err(|error| Failure::bus(format!("cannot wait for signals: {error}")));
    let (mut interrupt, mut terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    let mut hangup = on(SignalKind::hangup())?;
    let (end, ended) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        // nobody takes it when the program ends anyway
        let _ = end.send(());
        tokio::time::sleep(GRACE).await;
        terminal::abandon();
        std::process::exit(0);
    });
    Ok(ended)
}

/// What the terminal sends, read by a thread of its own: nothing else can be waited for together with it. The thread
/// ends with the process.
fn read_keys() -> Result<mpsc::Receiver<io::Result<Event>>, Failure> {
    let (bring, keys) = mpsc::channel(WAITING);
    let read = move || {
        loop {
            let event = event::read();
            let last = event.is_err();
            if bring.blocking_send(event).is_err() || last {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("elbus keys".to_owned())
        .spawn(read)
        .map_err(|error| Failure::bus(format!("no thread for the keyboard: {error}")))?;
    Ok(keys)
}

/// The loop.
struct Show {
    state: State,
    model: Model,
    look: Look,
}

impl Show {
    async fn run(
        mut self,
        terminal: &mut Terminal,
        mut keys: mpsc::Receiver<io::Result<Event>>,
        mut polled: mpsc::Receiver<Update>,
    ) -> Result<(), Failure> {
        loop {
            terminal
                .draw(|frame| {
                    self.state.size = (frame.area().width, frame.area().height);
                    screen::draw(frame, &self.state, self.look);
                })
                .map_err(broken)?;
            tokio::select! {
                biased;
                key = keys.recv() => match key {
                    Some(Ok(event)) => match self.act(&event) {
                        Effect::None => {}
                        Effect::Quit => return Ok(()),
                        Effect::Suspend => terminal.lend(suspend).map_err(broken)?,
                        Effect::Redraw => terminal.forget().map_err(broken)?,
                    },
                    Some(Err(error)) => return Err(broken(error)),
                    None => return Err(Failure::bus("the terminal fails: its keys are no longer read")),
                },
                update = polled.recv() => match update {
                    Some(Update::Sample(sample)) => {
                        let snapshot = self.model.accept(sample);
                        self.state.show(snapshot);
                    }
                    Some(Update::Connection(connection)) => {
                        if matches!(connection, Connection::Lost { .. }) {
                            self.model.forget();
                        }
                        self.state.connection = connection;
                    }
                    Some(Update::Ended) | None => {
                        return Err(Failure::bus("the connection has ended and is not tried again"));
                    }
                },
            }
        }
    }

    /// A change of the size needs no more than the drawing that follows.
    fn act(&mut self, event: &Event) -> Effect {
        let action = event.as_key_event().and_then(|key| keys::action(&key, self.state.mode));
        action.map_or(Effect::None, |action| self.state.apply(action))
    }
}

/// Stops the program, as the shell expects of Ctrl-Z, until it is continued.
fn suspend() {
    // where that is not possible it just goes on
    let _ = rustix::process::kill_current_process_group(rustix::process::Signal::TSTP);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_neither_a_flood_nor_a_lifetime() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "0.01", "-1", "3601", "nan", "inf", "", "1s"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
