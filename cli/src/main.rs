//! `elbus`: the command line of the ELBUS message broker. Reads the command line, runs the command, and turns its
//! end into an exit code and at most one line on stderr.

mod arguments;
mod benchmark;
mod commands;
#[cfg(test)]
mod documented_commands;
mod ending;
mod failure;
mod input;
mod link;
mod output;
mod parameters;
mod top;

use clap::{Parser, error::ErrorKind};
use std::process::ExitCode;

use arguments::Arguments;
use failure::Failure;
use link::Link;

/// Threads beside the one that runs the command, which an output that nobody reads may block. With more than one, what
/// waits for a round trip moves between them.
const WORKERS: usize = 1;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let json = arguments.global.json;
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::OutputClosed) {
                output::complain(&failure, json);
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let link = Link::new(&arguments.global)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("elbus")
        .enable_all()
        .build()
        .map_err(|error| Failure::bus(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(commands::run(&link, arguments.command));
    // nothing that still waits for the bus may hold up the end
    runtime.shutdown_background();
    result
}

/// Help and version are asked for; anything else is said in one line.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // whoever asked may have closed the output
            _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            _ = error.print();
            ExitCode::from(2)
        }
        _ => {
            let failure = Failure::usage(one_line(&error.render().to_string()));
            // the command line could not be read, but what it asks for can be seen
            output::complain(&failure, std::env::args_os().any(|argument| argument == "--json"));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// What clap says in paragraphs, without its usage.
fn one_line(rendered: &str) -> String {
    let text = rendered.strip_prefix("error: ").unwrap_or(rendered);
    let mut parts: Vec<String> = Vec::new();
    for paragraph in text.split("\n\n") {
        if paragraph.starts_with("Usage:") || paragraph.starts_with("For more information") {
            continue;
        }
        let words: Vec<_> = paragraph.split_whitespace().collect();
        if !words.is_empty() {
            parts.push(words.join(" "));
        }
    }
    parts.push("see --help".to_owned());
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        one_line(&Arguments::try_parse_from(line.split(' ')).unwrap_err().render().to_string())
    }

    #[test]
    fn a_refusal_is_one_line() {
        assert_eq!(refusal("elbus listen --nothing"), "unexpected argument '--nothing' found; see --help");
        let text = refusal("elbus rpc call");
        assert!(
            text.starts_with("the following required arguments were not provided: <TARGET> <METHOD>"),
            "{text}"
        );
        let text = refusal("elbus lisen");
        assert!(
            text.starts_with("unrecognized subcommand 'lisen'; tip: ") && text.contains("'listen'"),
            "{text}"
        );
        assert!(refusal("elbus send a b --qos best").contains("[possible values: no, processed,"));
    }
}
