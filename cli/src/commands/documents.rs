//! `elbus completions` and `elbus man`: made from the definition of the command line.

use clap::CommandFactory;
use clap_complete::Shell;
use elbus_files::Folder;
use rustix::fs::Mode;
use std::{io, path::Path};

use crate::{arguments::Arguments, failure::Failure, link::Link, output::Results};

pub(crate) fn completions(link: &Link, shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "elbus", &mut script);
    let mut results = Results::new(link);
    results.bytes(&script)?;
    results.flush()
}

pub(crate) fn man(link: &Link, folder: Option<&Path>) -> Result<(), Failure> {
    let Some(folder) = folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Arguments::command()).render(&mut page).map_err(Failure::output)?;
        let mut results = Results::new(link);
        results.bytes(&page)?;
        return results.flush();
    };
    write_pages(folder)
        .map_err(|error| Failure::usage(format!("cannot write man pages to {folder:?}: {error}")))?;
    link.notice(&format!("man pages are in {}", folder.display()));
    Ok(())
}

/// A page for each command. Whatever stands under the name of a page is replaced, and never written through: it may be a
/// symbolic link that somebody else has put there.
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
