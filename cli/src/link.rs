//! What the options common to all commands say: where the broker is, under which name to register, how long to
//! wait, how to show things. Makes connections; never decides what to do with them.

use elbus_client::{Address, Client, ClientBuilder, Error, Frames, TlsConfig};
use elbus_protocol::address::default_sockets;
use std::{
    hash::{BuildHasher, RandomState},
    io::{IsTerminal, Write},
    os::unix::fs::FileTypeExt,
    path::Path,
    time::Duration,
};

use crate::{arguments::GlobalArguments, failure::Failure, output::escape};

/// The environment variable that says where the broker is.
const ADDRESS_VARIABLE: &str = "ELBUS_ADDR";

/// The options common to all commands.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// Where the broker is.
    pub(crate) address: Address,
    /// Where it is reached under TLS, how.
    pub(crate) tls: Option<TlsConfig>,
    /// The name to register under.
    pub(crate) name: String,
    /// What connecting, an acknowledgement and a call may take.
    pub(crate) timeout: Duration,
    /// How results and notices are shown.
    pub(crate) output: Output,
}

/// How results and notices are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// Results as one JSON object a line, never coloured.
    pub(crate) json: bool,
    /// No notices on stderr, no confirmations; errors only.
    pub(crate) quiet: bool,
    /// More notices on stderr.
    pub(crate) verbose: bool,
    /// Colours in the results: stdout is a terminal that has them, no --json, no NO_COLOR.
    pub(crate) colour: bool,
}

impl Link {
    /// From the command line and the environment.
    ///
    /// # Errors
    /// `ELBUS_ADDR` is no address; a certificate without a key, or the reverse.
    pub(crate) fn new(arguments: &GlobalArguments) -> Result<Self, Failure> {
        let json = arguments.json;
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        let output = Output {
            json,
            quiet: arguments.quiet,
            verbose: arguments.verbose,
            colour: !json && !no_colour && !is_dumb && std::io::stdout().is_terminal(),
        };
        let address = match &arguments.addr {
            Some(address) => address.clone(),
            None => address_of_environment()?,
        };
        let name = arguments.name.clone().unwrap_or_else(default_name);
        Ok(Link { address, tls: tls(arguments)?, name, timeout: arguments.timeout, output })
    }

    /// Where the broker is.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The name to register under.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What connecting, an acknowledgement and a call may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether results are to be one JSON object a line.
    pub(crate) fn json(&self) -> bool {
        self.output.json
    }

    /// Whether nothing but results and errors is to be shown.
    pub(crate) fn quiet(&self) -> bool {
        self.output.quiet
    }

    /// Whether more is to be said on stderr.
    pub(crate) fn verbose(&self) -> bool {
        self.output.verbose
    }

    /// Whether results are to be coloured.
    pub(crate) fn colour(&self) -> bool {
        self.output.colour
    }

    /// Says something that is no result on stderr, unless --quiet.
    pub(crate) fn notice(&self, text: &str) {
        if !self.quiet() {
            // stderr may be closed, which is no reason to fail
            _ = writeln!(std::io::stderr(), "{}", escape(text));
        }
    }

    /// The same, with --verbose only.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbose() {
            self.notice(text);
        }
    }

    /// A builder with these options, for connections that want more than the defaults.
    pub(crate) fn builder(&self, name: &str) -> ClientBuilder {
        let builder = Client::builder(name).timeout(self.timeout);
        match &self.tls {
            Some(tls) => builder.tls(tls.clone()),
            None => builder,
        }
    }

    /// A connection under the name of the command line.
    pub(crate) async fn connect(&self) -> Result<(Client, Frames), Failure> {
        self.connect_with(self.builder(&self.name)).await
    }

    /// A connection of a builder with more than these options.
    pub(crate) async fn connect_with(&self, builder: ClientBuilder) -> Result<(Client, Frames), Failure> {
        let connected = builder.connect(self.address.clone()).await;
        let (client, frames) = connected.map_err(|error| self.not_connected(error))?;
        self.detail(&format!("connected to {} as {}", self.address, client.name()));
        Ok((client, frames))
    }
}

impl Link {
    /// Why there is no connection; if nobody said where the broker is, with all the places where one was looked for.
    fn not_connected(&self, error: Error) -> Failure {
        let (Address::Default(tried), Error::NoBroker { source, .. }) = (&self.address, &error) else {
            return error.into();
        };
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| Path::new(folder).is_dir());
        let mut places = default_sockets(runtime_dir.as_deref());
        if !places.contains(tried) {
            places.push(tried.clone());
        }
        let looked = places.iter().map(|place| {
            let why = if place == tried { source.to_string() } else { why_not_used(place) };
            format!("{} ({why})", place.display())
        });
        Failure::bus(format!(
            "no broker at {}: start elbusd, or say where it is with --addr or ELBUS_ADDR",
            looked.collect::<Vec<_>>().join(", ")
        ))
    }
}

/// Why the client did not connect to a place where it looked for a broker.
fn why_not_used(place: &Path) -> String {
    match place.metadata() {
        Err(error) => error.to_string(),
        Ok(file) if !file.file_type().is_socket() => "not a socket".to_owned(),
        Ok(_) => "not tried: an earlier one is there".to_owned(),
    }
}

fn tls(arguments: &GlobalArguments) -> Result<Option<TlsConfig>, Failure> {
    let GlobalArguments { tls_ca, tls_cert, tls_key, tls_name, .. } = arguments;
    let mut tls = TlsConfig::new();
    if let Some(file) = tls_ca {
        tls = tls.roots(file);
    }
    match (tls_cert, tls_key) {
        (Some(certificate), Some(key)) => tls = tls.identity(certificate, key),
        (None, None) => {}
        _ => return Err(Failure::usage("--tls-cert and --tls-key need each other".to_owned())),
    }
    if let Some(name) = tls_name {
        tls = tls.server_name(name);
    }
    Ok((tls != TlsConfig::new()).then_some(tls))
}

fn address_of_environment() -> Result<Address, Failure> {
    match std::env::var(ADDRESS_VARIABLE) {
        Ok(text) if !text.trim().is_empty() => {
            text.parse().map_err(|error| Failure::usage(format!("{ADDRESS_VARIABLE}={text}: {error}")))
        }
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(Address::default()),
        Err(error) => Err(Failure::usage(format!("{ADDRESS_VARIABLE}: {error}"))),
    }
}

/// `cli.HOST.PID-RANDOM`, the host without its domain: each segment stays one of a mask. Containers may have the same host
/// name and process ids, hence the random number.
fn default_name() -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let host = host.split('.').next().filter(|host| !host.is_empty()).unwrap_or("localhost");
    let random = RandomState::new().hash_one(()) & 0xFFFF;
    format!("cli.{host}.{}-{random:04x}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_name_has_three_segments() {
        let name = default_name();
        assert_eq!(name.split('.').count(), 3, "{name}");
        assert!(name.starts_with("cli.") && name.contains(&format!(".{}-", std::process::id())), "{name}");
        assert!((0..100).any(|_| default_name() != name), "containers may have the same host and process id");
    }
}
