//! `elbus man`: prints man pages made from the definition of the command line, or writes them to a folder.

use clap::CommandFactory;
use elbus_files::Folder;
use rustix::fs::Mode;
use std::{io, path::Path};

use crate::{arguments::Arguments, context::Context, error::CliError, output::Results};

pub(crate) fn run(context: &Context, folder: Option<&Path>) -> Result<(), CliError> {
    let Some(folder) = folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Arguments::command()).render(&mut page).map_err(CliError::output)?;
        let mut results = Results::new(&context.output);
        results.bytes(&page)?;
        return results.flush();
    };
    write_pages(folder)
        .map_err(|error| CliError::usage(format!("cannot write man pages to {folder:?}: {error}")))?;
    context.output.notice(&format!("man pages written to {}", folder.display()));
    Ok(())
}

/// Writes a page for each command. A file of that name is replaced, never written to: it could be a symbolic
/// link that another user created.
fn write_pages(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    let folder = Folder::open(path)?;
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
        let page = clap_mangen::Man::new(command);
        let mut text = Vec::new();
        page.render(&mut text)?;
        folder.replace(page.get_filename().as_ref(), &text, Mode::from_raw_mode(0o644))?;
    }
    Ok(())
}
