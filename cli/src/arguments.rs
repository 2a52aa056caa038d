//! The command line of `elbus`: every command and option, as help, completions and man pages show them.

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use elbus_client::{Address, Qos};
use elbus_protocol::name::check_name;
use std::{path::PathBuf, time::Duration};

use crate::{benchmark::BenchmarkArguments, top::TopArguments};

const AFTER_HELP: &str = "Exit codes: 0 done, 1 an error from the bus or of an RPC, 2 wrong usage.";

const TLS: &str = "TLS";

const PARAMS_HELP: &str = "Parameters, sent as a msgpack map: numbers, true, false, null, JSON lists and maps (k=[1,2]) and JSON \
                           strings (k='\"12\"') are what they look like, anything else is text. A single JSON value \
                           without a key (150) is sent as it is";

/// Talk to an ELBUS message broker: look into it, listen, send, publish, call, measure
#[derive(Debug, Parser)]
#[command(name = "elbus", version, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArguments,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes, in front of it or behind it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct GlobalArguments {
    /// Where the broker is: a UNIX socket (a path that begins with / or ends in .sock, .socket or .ipc, or unix:PATH)
    /// or host:port, under TLS tls://host:port [default: $ELBUS_ADDR, else the
    /// first that is there of $XDG_RUNTIME_DIR/elbus.sock, /run/elbus/bus.sock, /run/elbus.sock and /tmp/elbus.sock]
    #[arg(long, global = true, value_name = "ADDR", value_parser = address)]
    pub(crate) addr: Option<Address>,

    /// Connect under TLS, and trust the certificates in this PEM file [default: those of the system]
    #[arg(long, global = true, value_name = "FILE", help_heading = TLS)]
    pub(crate) tls_ca: Option<PathBuf>,

    /// Show the broker the certificate in this PEM file; --tls-key is its key
    #[arg(long, global = true, value_name = "FILE", help_heading = TLS)]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The key of the certificate, a PEM file
    #[arg(long, global = true, value_name = "FILE", help_heading = TLS)]
    pub(crate) tls_key: Option<PathBuf>,

    /// The name that the broker's certificate must be for [default: the host of the address]
    #[arg(long, global = true, value_name = "HOST", help_heading = TLS)]
    pub(crate) tls_name: Option<String>,

    /// Register under this name [default: cli.HOST.PID-RANDOM]
    #[arg(short, long, global = true, value_name = "NAME", value_parser = client_name)]
    pub(crate) name: Option<String>,

    /// Seconds that connecting, an acknowledgement and the result of a call may take
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    pub(crate) timeout: Duration,

    /// Print one JSON object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print results and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say more on stderr
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look into the broker
    #[command(subcommand)]
    Broker(BrokerCommand),

    /// Look at one client, or disconnect it
    #[command(subcommand)]
    Client(ClientCommand),

    /// List, start, stop or reload the plugins of the broker
    #[command(subcommand)]
    Plugin(PluginCommand),

    /// Show what arrives: messages, broadcasts, and publications of the topics asked for
    Listen(ListenArguments),

    /// Send a message to one client, or a broadcast to all that a mask matches
    Send(SendArguments),

    /// Publish to a topic
    Publish(PublishArguments),

    /// Call methods of other clients, notify them, or answer their calls
    #[command(subcommand)]
    Rpc(RpcCommand),

    /// A live screen of the clients and the totals of the broker
    Top(TopArguments),

    /// Measure a broker
    Benchmark(BenchmarkArguments),

    /// Print a completion script, to be sourced by the shell
    Completions {
        /// For this shell
        shell: Shell,
    },

    /// Print the man page of elbus, or write those of all commands into a folder
    Man {
        /// The folder; created if it does not exist
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// Author and version
    Info,
    /// Uptime, frames and bytes since the start
    Stats,
    /// Whether the broker answers
    Test,
    /// Reload the configuration file: plugins that were added start, removed ones stop, changed ones restart
    Reload,
    /// The registered clients, by name; secondaries count as instances of their primary
    #[command(alias = "client.list")]
    Clients {
        /// Only names that this regular expression matches, anywhere in the name
        #[arg(long, value_name = "RE")]
        filter: Option<String>,
    },
    /// Who would get what a client sends, or which access rule denies it and where it stands
    Explain {
        /// What the client would do
        #[arg(value_parser = ["send", "broadcast", "publish", "subscribe", "call"])]
        action: String,
        /// The name of the client, registered or not
        #[arg(value_name = "NAME")]
        client: String,
        /// A name, a mask, a topic, a filter or a control method
        target: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// What waits for a client, and the process behind it
    Info {
        /// The name it has registered
        #[arg(value_name = "NAME")]
        client: String,
    },
    /// Disconnect a client and its secondaries
    Kick {
        /// The name it has registered
        #[arg(value_name = "NAME")]
        client: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// All plugins and their states
    List,
    /// Start a plugin that is stopped or has failed
    Start(PluginName),
    /// Stop a plugin; its clients are disconnected
    Stop(PluginName),
    /// Load the library of a plugin again and replace the running instance
    Reload(PluginName),
}

#[derive(Debug, Args)]
pub(crate) struct PluginName {
    /// The name of the instance, as in `elbus plugin list`
    #[arg(value_name = "NAME")]
    pub(crate) plugin: String,
}

#[derive(Debug, Args)]
pub(crate) struct ListenArguments {
    #[command(flatten)]
    pub(crate) feed: FeedArguments,

    /// Write the payloads as they are, and nothing else
    #[arg(long, conflicts_with_all = ["json", "max_bytes"])]
    pub(crate) raw: bool,
}

/// What is listened to, and for how long.
#[derive(Debug, Args)]
pub(crate) struct FeedArguments {
    /// Subscribe to topics, + for one segment, # for all that are left; may be repeated
    #[arg(short, long = "topic", value_name = "FILTER")]
    pub(crate) topics: Vec<String>,

    /// Leave out topics that this filter matches, whatever is subscribed to; may be repeated
    #[arg(long, value_name = "FILTER")]
    pub(crate) exclude: Vec<String>,

    /// End after so many [default: listen until Ctrl-C]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Bytes shown of a payload, 0 for all [default: 4096, with --json 1048576]
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_bytes: Option<u64>,

    /// End when the connection is lost instead of connecting again
    #[arg(long)]
    pub(crate) no_reconnect: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SendArguments {
    /// The name of a client; or a mask, whose segments may be ? (any one segment) and * (all that are left), which makes
    /// it a broadcast
    pub(crate) target: String,

    #[command(flatten)]
    pub(crate) payload: PayloadArguments,

    #[command(flatten)]
    pub(crate) qos: QosArgument,
}

#[derive(Debug, Args)]
pub(crate) struct PublishArguments {
    /// The topic, segments divided by /
    pub(crate) topic: String,

    #[command(flatten)]
    pub(crate) payload: PayloadArguments,

    /// Only to this client and its secondaries, if they subscribe
    #[arg(long = "for", value_name = "RECEIVER")]
    pub(crate) receiver: Option<String>,

    #[command(flatten)]
    pub(crate) qos: QosArgument,
}

/// Where a payload comes from.
#[derive(Debug, Args)]
pub(crate) struct PayloadArguments {
    /// The payload: text as it is, - for stdin, @FILE for the bytes of a file [default: stdin]
    #[arg(value_name = "TEXT|-|@FILE", allow_negative_numbers = true)]
    pub(crate) payload: Option<String>,

    /// The payload, where the text is - or begins with @
    #[arg(long, value_name = "TEXT", conflicts_with = "payload", allow_hyphen_values = true)]
    pub(crate) text: Option<String>,

    /// Send the payload, which is JSON, as msgpack
    #[arg(long)]
    pub(crate) msgpack: bool,
}

#[derive(Debug, Args)]
pub(crate) struct QosArgument {
    /// Quality of service
    #[arg(long, value_enum, default_value_t = QosName::Processed)]
    pub(crate) qos: QosName,
}

/// Quality of service, as it is named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum QosName {
    /// Not acknowledged: whether anybody got it is not known
    No,
    /// Acknowledged by the broker
    Processed,
    /// Sent at once, past what waits, not acknowledged
    Realtime,
    /// Sent at once, acknowledged
    RealtimeProcessed,
}

impl From<QosName> for Qos {
    fn from(name: QosName) -> Self {
        match name {
            QosName::No => Qos::NO,
            QosName::Processed => Qos::PROCESSED,
            QosName::Realtime => Qos::REALTIME,
            QosName::RealtimeProcessed => Qos::REALTIME_PROCESSED,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum RpcCommand {
    /// Call a method and print its result
    Call {
        #[command(flatten)]
        request: RequestArguments,

        #[command(flatten)]
        result: ResultArguments,
    },
    /// Call a method without asking for a result
    Call0 {
        #[command(flatten)]
        request: RequestArguments,

        #[command(flatten)]
        qos: QosArgument,
    },
    /// Send a notification
    Notify {
        /// The name of a client
        target: String,

        #[command(flatten)]
        payload: PayloadArguments,

        #[command(flatten)]
        qos: QosArgument,
    },
    /// Show the calls and notifications that arrive; calls are answered with an empty result
    Listen(FeedArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RequestArguments {
    /// The name of a client, .broker for the broker itself
    pub(crate) target: String,

    /// The method
    pub(crate) method: String,

    // no doc comment, which would take the lists for links
    #[arg(value_name = "KEY=VALUE", help = PARAMS_HELP)]
    pub(crate) params: Vec<String>,

    /// Parameters as JSON, sent as msgpack; - for stdin, @FILE for a file
    #[arg(long, value_name = "JSON|-|@FILE", conflicts_with_all = ["params", "raw_params"], allow_hyphen_values = true)]
    pub(crate) json_params: Option<String>,

    /// Parameters sent as they are; - for stdin, @FILE for a file
    #[arg(long, value_name = "TEXT|-|@FILE", conflicts_with = "params", allow_hyphen_values = true)]
    pub(crate) raw_params: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ResultArguments {
    /// Write the result as it is, and nothing else
    #[arg(long, conflicts_with_all = ["json", "max_bytes"])]
    pub(crate) raw: bool,

    /// Bytes shown of the result, 0 for all [default: all, of binary data 4096]
    #[arg(long, value_name = "BYTES", action = ArgAction::Set)]
    pub(crate) max_bytes: Option<u64>,
}

fn address(text: &str) -> Result<Address, String> {
    text.parse::<Address>().map_err(|error| error.to_string())
}

fn client_name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if !(0.001..=86_400.0).contains(&seconds) {
        return Err("must be between 0.001 and 86400 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn common_options_stand_anywhere() {
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
    fn nonsense_is_refused() {
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
    fn names_of_users_of_other_brokers_work() {
        let Command::Broker(BrokerCommand::Clients { filter }) =
            parse("elbus broker client.list").unwrap().command
        else {
            panic!("another command");
        };
        assert_eq!(filter, None);
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
