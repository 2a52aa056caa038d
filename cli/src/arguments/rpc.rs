//! The options of `elbus rpc`.

use clap::{ArgAction, Args, Subcommand};

use super::messages::{FeedArguments, PayloadArguments, QosArgument};

const PARAMS_HELP: &str = "Parameters, sent as a msgpack map. A VALUE that is JSON keeps its type: numbers, true, false, \
                           null, lists and maps (k=[1,2]) and quoted strings (k='\"12\"'); any other VALUE is text. A \
                           single JSON value without a key (150) is sent as it is";

#[derive(Debug, Subcommand)]
pub(crate) enum RpcCommand {
    /// Call a method and print its result
    Call {
        #[command(flatten)]
        request: RequestArguments,

        #[command(flatten)]
        result: ResultArguments,
    },
    /// Call a method without requesting a result
    Call0 {
        #[command(flatten)]
        request: RequestArguments,

        #[command(flatten)]
        qos: QosArgument,
    },
    /// Send a notification
    Notify {
        /// The recipient's name
        target: String,

        #[command(flatten)]
        payload: PayloadArguments,

        #[command(flatten)]
        qos: QosArgument,
    },
    /// Print incoming calls and notifications; answer calls with an empty result
    Listen(FeedArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RequestArguments {
    /// The client to call; .broker is the broker itself
    pub(crate) target: String,

    /// The method
    pub(crate) method: String,

    // no doc comment: rustdoc would interpret the lists as links
    #[arg(value_name = "KEY=VALUE", help = PARAMS_HELP)]
    pub(crate) params: Vec<String>,

    /// Parameters as JSON, sent as msgpack; - for stdin, @FILE for a file
    #[arg(long, value_name = "JSON|-|@FILE", conflicts_with_all = ["params", "raw_params"], allow_hyphen_values = true)]
    pub(crate) json_params: Option<String>,

    /// Parameters as raw bytes; - for stdin, @FILE for a file
    #[arg(long, value_name = "TEXT|-|@FILE", conflicts_with = "params", allow_hyphen_values = true)]
    pub(crate) raw_params: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ResultArguments {
    /// Write the result bytes only, unchanged
    #[arg(long, conflicts_with_all = ["json", "max_bytes"])]
    pub(crate) raw: bool,

    /// Print at most BYTES of the result, 0 for all [default: all, 4096 of binary data]
    #[arg(long, value_name = "BYTES", action = ArgAction::Set)]
    pub(crate) max_bytes: Option<u64>,
}
