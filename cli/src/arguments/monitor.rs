//! The options of `elbus monitor`.

use clap::Args;

/// What to monitor, and for how long. Without filters, everything.
#[derive(Debug, Args)]
pub(crate) struct MonitorArguments {
    /// Only publications to topics that match: + matches one segment, # all remaining ones; can be repeated
    #[arg(short, long = "topic", value_name = "FILTER")]
    pub(crate) topics: Vec<String>,

    /// Only what is sent by, or to, clients whose names match; can be repeated
    #[arg(long = "client", value_name = "MASK")]
    pub(crate) clients: Vec<String>,

    /// Only calls, replies and notifications
    #[arg(long, conflicts_with = "topics")]
    pub(crate) rpc: bool,

    /// Exit after N records [default: until Ctrl-C]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Exit with an error when the connection is lost, instead of reconnecting
    #[arg(long)]
    pub(crate) no_reconnect: bool,

    /// Print whole payloads instead of 4096 bytes, up to max_payload_bytes of the plugin monitor
    #[arg(long)]
    pub(crate) full: bool,
}
