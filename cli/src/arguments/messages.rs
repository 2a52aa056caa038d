//! The options of `elbus listen`, `send` and `publish`, and those that the RPC commands share with them.

use clap::{Args, ValueEnum};
use elbus_client::Qos;

#[derive(Debug, Args)]
pub(crate) struct ListenArguments {
    #[command(flatten)]
    pub(crate) feed: FeedArguments,

    /// Write the payload bytes only, unchanged and without separators
    #[arg(long, conflicts_with_all = ["json", "max_bytes"])]
    pub(crate) raw: bool,
}

/// The filters to subscribe to, and how long to listen.
#[derive(Debug, Args)]
pub(crate) struct FeedArguments {
    /// Subscribe to the topics that match: + matches one segment, # all remaining ones; can be repeated
    #[arg(short, long = "topic", value_name = "FILTER")]
    pub(crate) topics: Vec<String>,

    /// Print the newest publication of each topic only, if they arrive faster than they are printed
    #[arg(long, conflicts_with = "lossless")]
    pub(crate) latest: bool,

    /// Print every publication: while the terminal is stopped, publishers are held [default: they are not,
    /// and what the terminal misses is counted]
    #[arg(long)]
    pub(crate) lossless: bool,

    /// Exclude the topics that match from all subscriptions; can be repeated
    #[arg(long, value_name = "FILTER")]
    pub(crate) exclude: Vec<String>,

    /// Exit after N messages [default: until Ctrl-C]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Print at most BYTES of each payload, 0 for all [default: 4096, with --json 1048576]
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_bytes: Option<u64>,

    /// Exit with an error when the connection is lost, instead of reconnecting
    #[arg(long)]
    pub(crate) no_reconnect: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SendArguments {
    /// A client's name; or a mask, which sends a broadcast: a segment ? matches any one segment, a segment *
    /// all remaining ones
    pub(crate) target: String,

    #[command(flatten)]
    pub(crate) payload: PayloadArguments,

    #[command(flatten)]
    pub(crate) qos: QosArgument,
}

#[derive(Debug, Args)]
pub(crate) struct PublishArguments {
    /// The topic; / separates its segments
    pub(crate) topic: String,

    #[command(flatten)]
    pub(crate) payload: PayloadArguments,

    /// Deliver only to this client and its secondaries, if they are subscribed
    #[arg(long = "for", value_name = "RECEIVER")]
    pub(crate) receiver: Option<String>,

    #[command(flatten)]
    pub(crate) qos: QosArgument,
}

/// The source of a payload.
#[derive(Debug, Args)]
pub(crate) struct PayloadArguments {
    /// The payload: literal text, - for stdin, or @FILE for the contents of a file [default: stdin]
    #[arg(value_name = "TEXT|-|@FILE", allow_negative_numbers = true)]
    pub(crate) payload: Option<String>,

    /// The payload as literal text, also if it is - or starts with @
    #[arg(long, value_name = "TEXT", conflicts_with = "payload", allow_hyphen_values = true)]
    pub(crate) text: Option<String>,

    /// Parse the payload as JSON and send it as msgpack
    #[arg(long)]
    pub(crate) msgpack: bool,
}

#[derive(Debug, Args)]
pub(crate) struct QosArgument {
    /// Quality of service
    #[arg(long, value_enum, default_value_t = QosName::Processed)]
    pub(crate) qos: QosName,
}

/// Quality of service, as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum QosName {
    /// Not acknowledged: the sender does not learn whether it was delivered
    No,
    /// Acknowledged by the broker
    Processed,
    /// Sent immediately, ahead of queued frames; not acknowledged
    Realtime,
    /// Sent immediately, ahead of queued frames; acknowledged by the broker
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
