//! The command line of `elbus`: its commands and their help, which completions and man pages show as well.
//! Options are defined in the modules below and beside `benchmark` and `top`; never runs a command.

pub(crate) mod global;
pub(crate) mod messages;
pub(crate) mod monitor;
pub(crate) mod rpc;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use std::path::PathBuf;

use crate::{benchmark::BenchmarkArguments, top::TopArguments};
use global::GlobalArguments;
use messages::{ListenArguments, PublishArguments, SendArguments};
use monitor::MonitorArguments;
use rpc::RpcCommand;

const AFTER_HELP: &str =
    "Exit codes: 0 success, 1 an error of the broker, a client or the connection, 2 invalid usage.";

/// Command-line client for an ELBUS message broker: inspect it, listen, send, publish, call methods, measure
#[derive(Debug, Parser)]
#[command(name = "elbus", version, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArguments,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Inspect the broker or reload its configuration
    #[command(subcommand)]
    Broker(BrokerCommand),

    /// Show one client, or disconnect it
    #[command(subcommand)]
    Client(ClientCommand),

    /// List, start, stop or reload the broker's plugins
    #[command(subcommand)]
    Plugin(PluginCommand),

    /// Print messages, broadcasts, and publications to the topics given with --topic
    Listen(ListenArguments),

    /// Print everything that passes the bus: messages of all clients, their results, and calls with replies
    Monitor(MonitorArguments),

    /// Send a message to one client, or a broadcast to all clients whose names match a mask
    Send(SendArguments),

    /// Publish to a topic
    Publish(PublishArguments),

    /// Call methods of other clients, send notifications, or answer calls
    #[command(subcommand)]
    Rpc(RpcCommand),

    /// Show the broker's clients and totals on a live screen
    Top(TopArguments),

    /// Measure the throughput and latency of a broker
    Benchmark(BenchmarkArguments),

    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },

    /// Print the man page of elbus, or write the man pages of all commands to a folder
    Man {
        /// The folder; created if it does not exist
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// Print the broker's author and version
    Info,
    /// Print the uptime, and the frames and bytes since the start
    Stats,
    /// Check that the broker answers calls
    Test,
    /// Reload the configuration file: start added plugins, stop removed ones, restart changed ones
    Reload,
    /// List the registered clients by name; INSTANCES counts a client and its secondaries
    #[command(alias = "client.list")]
    Clients {
        /// Only clients whose name contains a match of this regular expression
        #[arg(long, value_name = "RE")]
        filter: Option<String>,
        /// Also the clients of other nodes of a bridged bus
        #[arg(long)]
        all: bool,
    },
    /// List the other nodes of all bridged buses, and the state of the bridge to each
    #[command(alias = "broker.nodes")]
    Nodes,
    /// Print who would receive what a client sends, or the access rule that denies it
    Explain {
        /// The action of the client
        #[arg(value_parser = ["send", "broadcast", "publish", "subscribe", "call"])]
        action: String,
        /// The client's name; it need not be registered
        #[arg(value_name = "NAME")]
        client: String,
        /// A name, mask, topic, filter or control method
        target: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Print a client's queue, process and certificate
    Info {
        /// The client's registered name
        #[arg(value_name = "NAME")]
        client: String,
    },
    /// Disconnect a client and its secondaries
    Kick {
        /// The client's registered name
        #[arg(value_name = "NAME")]
        client: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// List all plugins and their states
    List,
    /// Start a plugin that is stopped or has failed
    Start(PluginName),
    /// Stop a plugin and disconnect its clients
    Stop(PluginName),
    /// Load a plugin's library again and replace the running instance
    Reload(PluginName),
}

#[derive(Debug, Args)]
pub(crate) struct PluginName {
    /// The instance name, as `elbus plugin list` prints it
    #[arg(value_name = "NAME")]
    pub(crate) plugin: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use elbus_client::{Address, Qos};
    use std::time::Duration;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn common_options_are_accepted_anywhere() {
        for line in [
            "elbus --addr /x.sock -n a --timeout 2 --json broker info",
            "elbus broker info --addr /x.sock -n a --timeout 2 --json",
            "elbus broker --json --timeout 2 -n a info --addr /x.sock",
        ] {
            let global = parse(line).unwrap().global;
            assert_eq!(global.addr.unwrap().to_string(), "/x.sock".parse::<Address>().unwrap().to_string());
            assert_eq!((global.name.as_deref(), global.json), (Some("a"), true), "{line}");
            assert_eq!(global.timeout, Duration::from_secs(2));
        }
    }

    #[test]
    fn invalid_command_lines_are_refused() {
        for line in [
            "elbus",
            "elbus broker",
            "elbus nothing",
            "elbus -q -v broker info",
            "elbus -n .broker listen",
            "elbus --timeout 0 listen",
            "elbus --timeout nan listen",
            "elbus listen --count 0",
            "elbus listen --raw --json",
            "elbus monitor --count 0",
            "elbus monitor --rpc -t a",
            "elbus send",
            "elbus send a b --text c",
            "elbus send a b --qos best",
            "elbus client kick",
            "elbus rpc call a",
            "elbus rpc call a m k=1 --json-params {}",
            "elbus rpc call a m --raw-params x --json-params {}",
            "elbus completions tcsh",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn client_list_is_an_alias_of_clients() {
        let Command::Broker(BrokerCommand::Clients { filter, all }) =
            parse("elbus broker client.list").unwrap().command
        else {
            panic!("another command");
        };
        assert_eq!((filter, all), (None, false));
    }

    #[test]
    fn negative_numbers_are_payloads() {
        let Command::Send(send) = parse("elbus send a -5").unwrap().command else {
            panic!("another command")
        };
        assert_eq!(send.payload.payload.as_deref(), Some("-5"));
        assert_eq!(Qos::from(send.qos.qos), Qos::PROCESSED);
        let Command::Send(send) = parse("elbus send a -").unwrap().command else { panic!("another command") };
        assert_eq!(send.payload.payload.as_deref(), Some("-"));
    }
}
