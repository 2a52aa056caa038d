//! `elbus top`: a live screen of a broker's clients. Owns the options and the loop of keys, signals and
//! polls; `model` computes rates, `state` holds what is shown, `screen` draws it.

mod column;
mod keys;
mod layout;
mod model;
mod poll;
mod screen;
mod state;
mod terminal;
mod text;

use clap::Args;
use crossterm::event::{self, Event};
use elbus_client::Reconnect;
use elbus_protocol::WARNINGS_TOPIC;
use std::{
    convert::Infallible,
    io::{self, IsTerminal},
    thread,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};

use crate::{context::Context, error::CliError};
use column::Column;
use model::Model;
use poll::{Poller, Update};
use screen::Theme;
use state::{Connection, Effect, State};
use terminal::Terminal;

/// Keys and updates queued while the screen is drawn.
const CHANNEL_CAPACITY: usize = 16;

/// Time for the loop to end after a signal, before the process exits. The terminal may block writes.
const FORCED_EXIT_DELAY: Duration = Duration::from_secs(1);

/// The options of `elbus top`.
#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    /// Seconds between updates, 0.1 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub(crate) interval: Duration,

    /// Sort by this column
    #[arg(long, value_enum, value_name = "COLUMN", default_value_t = Column::Bytes)]
    pub(crate) sort: Column,

    /// Show only clients with this text in their name, kind, source or port; case is ignored
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) filter: String,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    if !(0.1..=3600.0).contains(&seconds) {
        return Err("must be between 0.1 and 3600 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Shows the screen until the user quits.
///
/// # Errors
/// Stdout is not a terminal, the first connection fails, or the terminal fails.
pub(crate) async fn run(context: &Context, arguments: TopArguments) -> Result<(), CliError> {
    if !io::stdout().is_terminal() {
        return Err(CliError::usage(
            "top requires a terminal, but stdout is not one: use `elbus --json broker clients` instead",
        ));
    }
    // connect before the terminal is changed, so that an error is printed on a normal screen
    let builder = context.connection.builder(&context.connection.name).reconnect(Reconnect::backoff());
    let (client, frames) = context.connect_with(builder).await?;
    // only replies to calls are wanted: a stopped terminal must hold nobody
    drop(frames);
    client.remove_filters(WARNINGS_TOPIC).await?;
    let signal = watch_signals()?;
    let mut terminal = Terminal::enter().map_err(terminal_error)?;

    let (updates, polled) = mpsc::channel(CHANNEL_CAPACITY);
    let address = context.connection.address.to_string();
    let state = State::new(address, arguments.sort, arguments.filter);
    let app = App { state, model: Model::default(), theme: Theme { colour: context.output.colour } };
    let keys = read_keys()?;
    tokio::select! {
        biased;
        _ = signal => Ok(()),
        result = app.run(&mut terminal, keys, polled) => result,
        never = poll_until_cancelled(Poller::new(client), arguments.interval, updates) => match never {},
    }
}

/// Polls, and never returns: the loop ends the command once it has shown the last update.
async fn poll_until_cancelled(
    poller: Poller,
    interval: Duration,
    updates: mpsc::Sender<Update>,
) -> Infallible {
    poller.run(interval, updates).await;
    std::future::pending().await
}

fn terminal_error(error: io::Error) -> CliError {
    CliError::runtime(format!("terminal error: {error}"))
}

/// Handles the signals that end a program, so that the terminal is restored first.
fn watch_signals() -> Result<oneshot::Receiver<()>, CliError> {
    let on =
        |kind| signal(kind).map_err(|error| CliError::runtime(format!("cannot handle signals: {error}")));
    let (mut interrupt, mut terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    let mut hangup = on(SignalKind::hangup())?;
    let (request, requested) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        // fails if the program is exiting already
        let _ = request.send(());
        tokio::time::sleep(FORCED_EXIT_DELAY).await;
        terminal::disable_raw_mode_only();
        std::process::exit(0);
    });
    Ok(requested)
}

/// Reads the terminal's events in a separate thread, as the read blocks. The thread ends with the process.
fn read_keys() -> Result<mpsc::Receiver<io::Result<Event>>, CliError> {
    let (sender, keys) = mpsc::channel(CHANNEL_CAPACITY);
    let read = move || {
        loop {
            let event = event::read();
            let last = event.is_err();
            if sender.blocking_send(event).is_err() || last {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("elbus keys".to_owned())
        .spawn(read)
        .map_err(|error| CliError::runtime(format!("cannot start the keyboard thread: {error}")))?;
    Ok(keys)
}

/// The state of the loop.
struct App {
    state: State,
    model: Model,
    theme: Theme,
}

impl App {
    async fn run(
        mut self,
        terminal: &mut Terminal,
        mut keys: mpsc::Receiver<io::Result<Event>>,
        mut polled: mpsc::Receiver<Update>,
    ) -> Result<(), CliError> {
        loop {
            terminal
                .draw(|frame| {
                    self.state.size = (frame.area().width, frame.area().height);
                    screen::draw(frame, &self.state, self.theme);
                })
                .map_err(terminal_error)?;
            tokio::select! {
                biased;
                key = keys.recv() => match key {
                    Some(Ok(event)) => match self.handle(&event) {
                        Effect::None => {}
                        Effect::Quit => return Ok(()),
                        Effect::Suspend => terminal.restore_while(suspend).map_err(terminal_error)?,
                        Effect::Redraw => terminal.redraw_all().map_err(terminal_error)?,
                    },
                    Some(Err(error)) => return Err(terminal_error(error)),
                    None => return Err(CliError::runtime("terminal error: the keyboard thread has ended")),
                },
                update = polled.recv() => match update {
                    Some(Update::Sample(sample)) => {
                        let snapshot = self.model.accept(sample);
                        self.state.show(snapshot);
                    }
                    Some(Update::Connection(connection)) => {
                        if matches!(connection, Connection::Lost { .. }) {
                            self.model.reset();
                        }
                        self.state.connection = connection;
                    }
                    Some(Update::Ended) | None => {
                        return Err(CliError::runtime("connection closed"));
                    }
                },
            }
        }
    }

    /// Applies a key. A change of the terminal's size only needs the redraw that follows.
    fn handle(&mut self, event: &Event) -> Effect {
        let action = event.as_key_event().and_then(|key| keys::action(&key, self.state.mode));
        action.map_or(Effect::None, |action| self.state.apply(action))
    }
}

/// Stops the process group until it is continued, as Ctrl-Z does.
fn suspend() {
    // if that fails, the program continues
    let _ = rustix::process::kill_current_process_group(rustix::process::Signal::TSTP);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_out_of_range_are_refused() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "0.01", "-1", "3601", "nan", "inf", "", "1s"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
