//! The settings of a command for connecting and printing.

use elbus_client::{Client, ClientBuilder, Frames};

use crate::{connect::ConnectOptions, error::CliError, output::OutputOptions};

/// The settings of a command for connecting and printing.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) connection: ConnectOptions,
    pub(crate) output: OutputOptions,
}

impl Context {
    /// Connects under the name of the command line.
    pub(crate) async fn connect(&self) -> Result<(Client, Frames), CliError> {
        self.connect_with(self.connection.builder(&self.connection.name)).await
    }

    /// Connects with a builder made by [`ConnectOptions::builder`].
    pub(crate) async fn connect_with(&self, builder: ClientBuilder) -> Result<(Client, Frames), CliError> {
        let connected = builder.connect(self.connection.address.clone()).await;
        let (client, frames) = connected.map_err(|error| self.connection.explain(error))?;
        self.output.detail(&format!("connected to {} as {}", self.connection.address, client.name()));
        Ok((client, frames))
    }
}
