//! Reports on stderr when the connection of a command is lost and restored. Never connects.

use elbus_client::{Client, ConnectionEvent, ConnectionEvents};

use crate::context::Context;

/// Reports when the connection is lost and restored.
pub(super) struct ConnectionReporter<'a> {
    context: &'a Context,
    events: ConnectionEvents,
    /// Without reconnecting, a lost connection is the error of the command instead.
    silent: bool,
    /// The reason reported last, while there is no connection.
    lost: Option<String>,
}

/// What an event means for the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionChange {
    None,
    Lost,
    Restored,
}

impl<'a> ConnectionReporter<'a> {
    /// Observes the events of a client that has just connected.
    pub(super) fn new(context: &'a Context, client: &Client, reconnects: bool) -> Self {
        ConnectionReporter { context, events: client.events(), silent: !reconnects, lost: None }
    }

    /// Returns after each event, and never again once there are no more.
    pub(super) async fn next(&mut self) -> ConnectionChange {
        let Some(event) = self.events.next().await else { return std::future::pending().await };
        if self.silent {
            return ConnectionChange::None;
        }
        let output = &self.context.output;
        match event {
            ConnectionEvent::Disconnected { reason, .. } => {
                output.notice(&format!("connection lost: {reason}; reconnecting"));
                self.lost = Some(reason);
                ConnectionChange::Lost
            }
            ConnectionEvent::Retrying { attempt, after, reason, .. } => {
                output.detail(&format!("reconnect attempt {attempt} in {:.1} s", after.as_secs_f64()));
                if self.lost.as_ref() != Some(&reason) {
                    output.notice(&format!("cannot reconnect yet: {reason}; retrying"));
                    self.lost = Some(reason);
                }
                ConnectionChange::None
            }
            ConnectionEvent::Connected if self.lost.take().is_some() => {
                output.notice("reconnected");
                ConnectionChange::Restored
            }
            _ => ConnectionChange::None,
        }
    }

    /// Returns after the next event with this meaning.
    pub(super) async fn wait_for(&mut self, change: ConnectionChange) {
        while self.next().await != change {}
    }
}
