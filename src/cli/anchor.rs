//! `systole anchor check`: would this anchor allow it?

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::{Failure, code};
use super::{context, print};
use crate::anchor::{Anchor, NotAllowed, Repo, Work, decide};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say whether an anchor allows parallel work: exit 0, or 77 and why not
    Check(CheckArguments),
}

#[derive(Debug, Args)]
struct CheckArguments {
    /// The anchor
    file: PathBuf,
    /// The repository to work on [default: AUTOPACK_REPO_PATH, or the current folder]
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// How many are to work on it at once [default: as many as it allows, or 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    workers: Option<u32>,
    /// Whether this file may be touched, from the root of the repository; may be given more than once
    #[arg(long, value_name = "PATH")]
    touched: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Needs no database.
pub(super) fn execute(arguments: &Arguments) -> Result<u8, Failure> {
    let Action::Check(arguments) = &arguments.action;
    let read = Anchor::read(&arguments.file);
    let verdict = read.as_ref().map_err(Clone::clone).and_then(|anchor| judge(anchor, arguments));
    if arguments.json {
        let anchor = read.as_ref().ok();
        print::json(&json!({
            "allowed": verdict.is_ok(),
            "reason": verdict.as_ref().err().map(ToString::to_string),
            "digest": anchor.map(|anchor| format!("sha256:{}", anchor.digest())),
            "max_workers": anchor.and_then(Anchor::max_workers),
            "expires_at": anchor.and_then(Anchor::expires_at),
        }));
        return Ok(if verdict.is_ok() { code::OK } else { code::NOT_ALLOWED });
    }
    verdict?;
    let anchor = read.expect("the verdict was one on it");
    print::text(&format!(
        "{}: {anchor}\n  sha256:{}",
        print::plain(&arguments.file.display().to_string()),
        anchor.digest()
    ));
    Ok(code::OK)
}

fn judge(anchor: &Anchor, arguments: &CheckArguments) -> Result<(), NotAllowed> {
    let repo = Repo::at(&context::repository(arguments.repo.clone()));
    let workers = arguments.workers.or(anchor.max_workers()).unwrap_or(2);
    decide(Some(anchor), &Work { workers, repo: Some(&repo), now: chrono::Utc::now() })?;
    arguments.touched.iter().try_for_each(|path| anchor.may_touch(path))
}
