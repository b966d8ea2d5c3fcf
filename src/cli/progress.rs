//! `systole progress`: from inside a run, how far the work is. Goes to its supervisor; no database needed.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Failure, code};
use crate::supervise::{Message, Report, tell_progress};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Phases done so far; shown as phases_executed, and never goes backwards
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    progress: i64,
    /// What it is at, in up to 200 characters; it stands until there is another
    #[arg(short, long, value_name = "TEXT")]
    message: Option<Message>,
}

/// Tells the supervisor.
pub(super) fn execute(arguments: &Arguments) -> Result<u8, Failure> {
    let socket = std::env::var_os("SYSTOLE_SOCKET").map(PathBuf::from).ok_or_else(|| {
        Failure::new(code::USAGE, "SYSTOLE_SOCKET is not set: systole progress is for commands started by systole run")
    })?;
    tell_progress(&socket, Report { progress: arguments.progress, message: arguments.message.clone() }).map_err(
        |error| {
            Failure::new(code::UNREACHABLE, format!("the supervisor at {} does not take it: {error}", socket.display()))
        },
    )?;
    Ok(code::OK)
}
