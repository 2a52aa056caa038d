//! `elbus completions`: prints a completion script made from the definition of the command line.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{arguments::Arguments, context::Context, error::CliError, output::Results};

pub(crate) fn run(context: &Context, shell: Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "elbus", &mut script);
    let mut results = Results::new(&context.output);
    results.bytes(&script)?;
    results.flush()
}
