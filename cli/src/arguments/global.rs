//! The options of every command, and how they combine with the environment.

use clap::Args;
use elbus_client::{Address, TlsConfig};
use elbus_protocol::name::check_name;
use std::{
    hash::{BuildHasher, RandomState},
    io::IsTerminal,
    path::PathBuf,
    time::Duration,
};

use crate::{connect::ConnectOptions, context::Context, error::CliError, output::OutputOptions};

const TLS: &str = "TLS";

/// The environment variable that holds the broker's address.
const ADDRESS_VARIABLE: &str = "ELBUS_ADDR";

/// The options of every command, before or after its name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct GlobalArguments {
    /// The broker's address: a UNIX socket (unix:PATH, or a path that starts with / or ends in .sock, .socket
    /// or .ipc), host:port, or tls://host:port [default: $ELBUS_ADDR, else the first socket that exists of
    /// $XDG_RUNTIME_DIR/elbus.sock, /run/elbus/bus.sock, /run/elbus.sock and /tmp/elbus.sock]
    #[arg(long, global = true, value_name = "ADDR", value_parser = address)]
    pub(crate) addr: Option<Address>,

    /// Connect with TLS and trust the certificates in this PEM file [default: the system's certificates]
    #[arg(long, global = true, value_name = "FILE", help_heading = TLS)]
    pub(crate) tls_ca: Option<PathBuf>,

    /// Present the certificate in this PEM file to the broker; requires --tls-key
    #[arg(long, global = true, value_name = "FILE", help_heading = TLS)]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The private key of the certificate, a PEM file
    #[arg(long, global = true, value_name = "FILE", help_heading = TLS)]
    pub(crate) tls_key: Option<PathBuf>,

    /// The name that the broker's certificate must be valid for [default: the host of the address]
    #[arg(long, global = true, value_name = "HOST", help_heading = TLS)]
    pub(crate) tls_name: Option<String>,

    /// Register under this name [default: cli.HOST.PID-RANDOM]
    #[arg(short, long, global = true, value_name = "NAME", value_parser = client_name)]
    pub(crate) name: Option<String>,

    /// Timeout for connecting, for an acknowledgement and for the result of a call
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    pub(crate) timeout: Duration,

    /// Print one JSON object per line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print only results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Print details on stderr
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

impl GlobalArguments {
    /// Returns the settings of a command for connecting and printing.
    ///
    /// # Errors
    /// `ELBUS_ADDR` is not an address, or a certificate is given without its key or a key without its
    /// certificate.
    pub(crate) fn context(&self) -> Result<Context, CliError> {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        let output = OutputOptions {
            json: self.json,
            quiet: self.quiet,
            verbose: self.verbose,
            colour: !self.json && !no_colour && !is_dumb && std::io::stdout().is_terminal(),
        };
        let address = match &self.addr {
            Some(address) => address.clone(),
            None => address_of_environment()?,
        };
        let name = self.name.clone().unwrap_or_else(default_name);
        let connection = ConnectOptions { address, tls: self.tls()?, name, timeout: self.timeout };
        Ok(Context { connection, output })
    }

    fn tls(&self) -> Result<Option<TlsConfig>, CliError> {
        let mut tls = TlsConfig::new();
        if let Some(file) = &self.tls_ca {
            tls = tls.roots(file);
        }
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => tls = tls.identity(certificate, key),
            (None, None) => {}
            (Some(_), None) => return Err(CliError::usage("--tls-cert requires --tls-key")),
            (None, Some(_)) => return Err(CliError::usage("--tls-key requires --tls-cert")),
        }
        if let Some(name) = &self.tls_name {
            tls = tls.server_name(name);
        }
        Ok((tls != TlsConfig::new()).then_some(tls))
    }
}

fn address_of_environment() -> Result<Address, CliError> {
    match std::env::var(ADDRESS_VARIABLE) {
        Ok(text) if !text.trim().is_empty() => {
            text.parse().map_err(|error| CliError::usage(format!("{ADDRESS_VARIABLE}={text}: {error}")))
        }
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(Address::default()),
        Err(error) => Err(CliError::usage(format!("{ADDRESS_VARIABLE}: {error}"))),
    }
}

/// Returns `cli.HOST.PID-RANDOM`. The host is cut at its first dot, so that it stays one segment of a mask.
/// The random number keeps containers apart, which can share host name and process id.
fn default_name() -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let host = host.split('.').next().filter(|host| !host.is_empty()).unwrap_or("localhost");
    let random = RandomState::new().hash_one(()) & 0xFFFF;
    format!("cli.{host}.{}-{random:04x}", std::process::id())
}

fn address(text: &str) -> Result<Address, String> {
    text.parse::<Address>().map_err(|error| error.to_string())
}

fn client_name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    if !(0.001..=86_400.0).contains(&seconds) {
        return Err("must be between 0.001 and 86400 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_name_has_three_segments_and_a_random_number() {
        let name = default_name();
        assert_eq!(name.split('.').count(), 3, "{name}");
        assert!(name.starts_with("cli.") && name.contains(&format!(".{}-", std::process::id())), "{name}");
        assert!((0..100).any(|_| default_name() != name), "containers can share host name and process id");
    }
}
