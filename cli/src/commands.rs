//! Runs commands, one module for each group.

mod broker;
mod client;
mod completions;
mod connection_reporter;
mod control;
mod feed;
mod listen;
mod man;
mod monitor;
mod plugin;
mod rpc;
mod rpc_listen;
mod send;
mod topics;

use crate::{
    arguments::{Command, rpc::RpcCommand},
    benchmark,
    context::Context,
    error::CliError,
    top,
};

/// Runs the command until it exits.
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), CliError> {
    match command {
        Command::Broker(command) => broker::run(context, command).await,
        Command::Client(command) => client::run(context, command).await,
        Command::Plugin(command) => plugin::run(context, command).await,
        Command::Listen(arguments) => listen::run(context, arguments).await,
        Command::Monitor(arguments) => monitor::run(context, arguments).await,
        Command::Send(arguments) => send::send(context, arguments).await,
        Command::Publish(arguments) => send::publish(context, arguments).await,
        Command::Rpc(RpcCommand::Call { request, result }) => rpc::call(context, request, result).await,
        Command::Rpc(RpcCommand::Call0 { request, qos }) => rpc::call0(context, request, qos).await,
        Command::Rpc(RpcCommand::Notify { target, payload, qos }) => {
            rpc::notify(context, &target, &payload, qos).await
        }
        Command::Rpc(RpcCommand::Listen(arguments)) => rpc_listen::run(context, arguments).await,
        Command::Top(arguments) => top::run(context, arguments).await,
        Command::Benchmark(arguments) => benchmark::run(context, arguments).await,
        Command::Completions { shell } => completions::run(context, shell),
        Command::Man { folder } => man::run(context, folder.as_deref()),
    }
}
