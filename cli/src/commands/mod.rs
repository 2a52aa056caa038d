//! The commands, one file for each group. Connects what the command line says to the one that does it.

mod broker;
mod client;
mod control;
mod documents;
mod feed;
mod listen;
mod plugin;
mod rpc;
mod rpc_listen;
mod send;

use crate::{
    arguments::{Command, RpcCommand},
    benchmark,
    failure::Failure,
    link::Link,
    top,
};

/// Runs the command to its end.
pub(crate) async fn run(link: &Link, command: Command) -> Result<(), Failure> {
    match command {
        Command::Broker(command) => broker::run(link, command).await,
        Command::Client(command) => client::run(link, command).await,
        Command::Plugin(command) => plugin::run(link, command).await,
        Command::Listen(arguments) => listen::run(link, arguments).await,
        Command::Send(arguments) => send::send(link, arguments).await,
        Command::Publish(arguments) => send::publish(link, arguments).await,
        Command::Rpc(RpcCommand::Call { request, result }) => rpc::call(link, request, result).await,
        Command::Rpc(RpcCommand::Call0 { request, qos }) => rpc::call0(link, request, qos).await,
        Command::Rpc(RpcCommand::Notify { target, payload, qos }) => {
            rpc::notify(link, &target, &payload, qos).await
        }
        Command::Rpc(RpcCommand::Listen(arguments)) => rpc_listen::run(link, arguments).await,
        Command::Top(arguments) => top::run(link, arguments).await,
        Command::Benchmark(arguments) => benchmark::run(link, arguments).await,
        Command::Completions { shell } => documents::completions(link, shell),
        Command::Man { folder } => documents::man(link, folder.as_deref()),
    }
}
