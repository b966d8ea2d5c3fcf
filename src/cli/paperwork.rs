//! `systole completions` and `systole man`: what shells and readers of man pages want to know, from the one definition.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::exit::{Failure, code};
use super::print;

#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// An existing folder, such as /usr/local/share/man/man1
    folder: PathBuf,
}

/// Prints the script: `systole completions bash > /etc/bash_completion.d/systole`.
pub(super) fn completions(arguments: &CompletionsArguments, mut root: Command) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut root, "systole", &mut script);
    print::text(&String::from_utf8_lossy(&script));
    Ok(code::OK)
}

/// Writes one page for each command.
pub(super) fn man(arguments: &ManArguments, root: Command) -> Result<u8, Failure> {
    clap_mangen::generate_to(root, &arguments.folder).map_err(|error| {
        Failure::new(
            code::USAGE,
            format!("the man pages cannot be written into {}: {error}", arguments.folder.display()),
        )
    })?;
    Ok(code::OK)
}
