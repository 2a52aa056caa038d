//! `elbus completions` and `elbus man`: made from the definition of the command line.

use clap::CommandFactory;
use clap_complete::Shell;
use std::path::Path;

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
    let failed = |error| Failure::usage(format!("cannot write man pages to {folder:?}: {error}"));
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Arguments::command(), folder).map_err(failed)?;
    link.notice(&format!("man pages are in {}", folder.display()));
    Ok(())
}
