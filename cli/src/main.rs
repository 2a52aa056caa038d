//! `elbus`, the command-line client of the ELBUS message broker. Parses the command line, runs the command,
//! and turns its result into an exit code and at most one line on stderr.

mod arguments;
mod benchmark;
mod commands;
mod connect;
mod context;
#[cfg(test)]
mod documented_commands;
mod error;
mod input;
mod output;
mod parameters;
mod shutdown;
mod top;

use clap::{Parser, error::ErrorKind};
use std::process::ExitCode;

use arguments::Arguments;
use error::CliError;

/// Threads besides the one that runs the command, which a full stdout can block. With more than one, tasks
/// that wait for a round trip would move between threads.
const WORKERS: usize = 1;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit_without_command(&error),
    };
    let json = arguments.global.json;
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, CliError::OutputClosed) {
                output::print_error(&error, json);
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(arguments: Arguments) -> Result<(), CliError> {
    let context = arguments.global.context()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("elbus")
        .enable_all()
        .build()
        .map_err(|error| CliError::runtime(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(commands::run(&context, arguments.command));
    // tasks that still wait for the broker must not delay the exit
    runtime.shutdown_background();
    result
}

/// Prints the help or the version, or the error in one line.
fn exit_without_command(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // stdout may be closed
            _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            _ = error.print();
            ExitCode::from(2)
        }
        _ => {
            let error = CliError::usage(one_line(&error.render().to_string()));
            // the command line is invalid, but it shows in which form errors are wanted
            output::print_error(&error, std::env::args_os().any(|argument| argument == "--json"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Joins the paragraphs of a clap error to one line, without the usage.
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

    fn error_of(line: &str) -> String {
        one_line(&Arguments::try_parse_from(line.split(' ')).unwrap_err().render().to_string())
    }

    #[test]
    fn usage_errors_are_one_line() {
        assert_eq!(error_of("elbus listen --nothing"), "unexpected argument '--nothing' found; see --help");
        let text = error_of("elbus rpc call");
        assert!(
            text.starts_with("the following required arguments were not provided: <TARGET> <METHOD>"),
            "{text}"
        );
        let text = error_of("elbus lisen");
        assert!(
            text.starts_with("unrecognized subcommand 'lisen'; tip: ") && text.contains("'listen'"),
            "{text}"
        );
        assert!(error_of("elbus send a b --qos best").contains("[possible values: no, processed,"));
    }
}
