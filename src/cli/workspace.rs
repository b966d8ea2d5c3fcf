//! `systole workspace list|clean|diff`: the worktrees of this host, and what runs have done in them. Asks no database.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chrono::Utc;
use clap::{Args, Subcommand};

use super::context;
use super::exit::{Failure, code};
use super::print;
use super::settings::Settings;
use crate::baseline;
use crate::config::Config;
use crate::ids::RunId;
use crate::state_dir::StateDir;
use crate::workspace::{self, Place, Policy, Record, Repository, View, WorkspaceError};

/// What puts its input into the clipboard, and for whom.
const CLIPBOARDS: [(&str, &[&str], &str); 3] =
    [("wl-copy", &[], "WAYLAND_DISPLAY"), ("xclip", &["-selection", "clipboard"], "DISPLAY"), ("pbcopy", &[], "")];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the worktrees of this host
    List(ListArguments),
    /// Remove worktrees whose attempts are over; their work stays, under refs/systole/RUN/ATTEMPT
    Clean(CleanArguments),
    /// Show what a run has changed
    Diff(DiffArguments),
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CleanArguments {
    /// Only those that ended longer ago
    #[arg(long, value_name = "DURATION")]
    older_than: Option<String>,
    /// All but the newest N
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Only say which
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct DiffArguments {
    /// The run; its newest attempt here
    run_id: String,
    /// Put it into the clipboard (wl-copy, xclip or pbcopy), and into a file
    #[arg(long)]
    copy: bool,
    /// The repository, for a run whose worktree is gone; this folder's by default [env: SYSTOLE_WORKSPACE_REPO]
    #[arg(long, value_name = "PATH")]
    workspace_repo: Option<PathBuf>,
}

/// Looks at worktrees, or removes them.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let config = context::config(settings)?;
    let place = config.place(StateDir::open(&config.state_dir())?)?;
    match &arguments.command {
        Verb::List(arguments) => list(&place, None, arguments.json),
        Verb::Clean(arguments) => clean(&place, arguments),
        Verb::Diff(arguments) => diff(&place, &config, arguments),
    }
}

/// Shows the worktrees of this host, or those of one repository.
pub(super) fn list(place: &Place, of: Option<&Repository>, json: bool) -> Result<u8, Failure> {
    let mut views = workspace::list(place);
    views.retain(|view| of.is_none_or(|repository| view.repository == repository.common()));
    if json {
        print::json(&views);
        return Ok(code::OK);
    }
    let row = |view: &View| {
        let dirty = view.dirty.map(|dirty| if dirty { "yes" } else { "no" });
        vec![
            view.path.display().to_string(),
            view.run_id.to_string(),
            view.attempt.to_string(),
            print::ago(view.age_seconds),
            print::bytes(view.size_bytes),
            print::or_dash(dirty),
            print::or_dash(view.holder.clone().or_else(|| view.stays.clone())),
            print::or_dash(view.snapshot.clone()),
        ]
    };
    let headers = ["PATH", "RUN", "ATTEMPT", "MADE", "SIZE", "DIRTY", "HOLDER", "WORK KEPT AS"];
    print::table(&headers, views.iter().map(row).collect(), "there is no worktree of ours on this host");
    Ok(code::OK)
}

fn clean(place: &Place, arguments: &CleanArguments) -> Result<u8, Failure> {
    let older_than =
        arguments.older_than.as_deref().map(|text| super::run::duration("--older-than", text)).transpose()?;
    let policy = Policy { older_than, keep: arguments.keep, free_bytes_min: None };
    if !arguments.dry_run {
        baseline::sweep(&place.state);
    }
    let over = workspace::over(place);
    let chosen = policy.chosen(&over, Utc::now());
    if arguments.dry_run {
        let lines: Vec<String> = chosen.iter().map(|record| record.path.display().to_string()).collect();
        print::text(&match lines.is_empty() {
            true => "nothing would be removed".to_owned(),
            false => lines.join("\n"),
        });
        return Ok(code::OK);
    }
    remove(place, &chosen)
}

/// Removes what is over of one repository.
pub(super) fn clean_repository(place: &Place, repository: &Repository) -> Result<u8, Failure> {
    baseline::sweep(&place.state);
    let over = workspace::over(place);
    remove(place, &over.iter().filter(|record| record.repository == repository.common()).collect::<Vec<_>>())
}

fn remove(place: &Place, chosen: &[&Record]) -> Result<u8, Failure> {
    let (mut removed, mut stayed) = (0, Vec::new());
    for (number, record) in chosen.iter().enumerate() {
        progress(number, chosen.len(), record);
        match workspace::remove(place, record) {
            Ok(()) => removed += 1,
            Err(error) => stayed.push((record, error)),
        }
    }
    if std::io::stderr().is_terminal() && !chosen.is_empty() {
        eprint!("\r\u{1b}[K");
    }
    for (record, why) in &stayed {
        eprintln!("systole: {} stays: {why}", record.path.display());
    }
    print::text(&format!("removed {removed} of {}", count(chosen.len())));
    let is_trouble =
        stayed.iter().any(|(_, why)| !matches!(why, WorkspaceError::Stays(_) | WorkspaceError::Held { .. }));
    Ok(if is_trouble { code::FINDINGS } else { code::OK })
}

/// On a terminal one line that changes, else a line now and then.
fn progress(number: usize, all: usize, record: &Record) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\u{1b}[K{}/{all} {}", number + 1, print::plain(&record.path.display().to_string()));
        let _ = std::io::stderr().flush();
    } else if number > 0 && number.is_multiple_of(50) {
        eprintln!("systole: {number} of {} looked at", count(all));
    }
}

fn count(worktrees: usize) -> String {
    if worktrees == 1 { "1 worktree".to_owned() } else { format!("{worktrees} worktrees") }
}

fn diff(place: &Place, config: &Config, arguments: &DiffArguments) -> Result<u8, Failure> {
    let run_id: RunId = arguments.run_id.parse()?;
    let configured = arguments.workspace_repo.clone().or(config.workspace()?.repository);
    let is_named = configured.is_some();
    let repository = configured.unwrap_or_else(|| PathBuf::from("."));
    let has_colour = !arguments.copy && std::io::stdout().is_terminal();
    let found = match workspace::diff(place, &run_id, Some(&repository), has_colour) {
        // This folder was only a guess.
        Err(WorkspaceError::NotRepository { .. }) if !is_named => None,
        found => found?,
    };
    let Some(text) = found else {
        return Err(Failure::new(
            code::USAGE,
            format!(
                "nothing of run \"{run_id}\" is kept on this host or in {}: systole workspace list shows what is here; \
                 name its repository with --workspace-repo",
                repository.display()
            ),
        ));
    };
    if arguments.copy {
        return copy(&config.runs_dir(), &run_id, &text);
    }
    let _ = std::io::stdout().lock().write_all(&text);
    Ok(code::OK)
}

/// Into the clipboard, if there is one, and into a file in any case.
fn copy(runs_dir: &Path, run_id: &RunId, text: &[u8]) -> Result<u8, Failure> {
    let written = workspace::artifacts::make_folder(runs_dir, run_id).and_then(|folder| {
        let file = folder.join("work.diff");
        std::fs::write(&file, text).map(|()| file)
    });
    let file = written.map_err(|error| {
        Failure::new(code::CONFIG, format!("nothing can be written in {}: {error}", runs_dir.display()))
    })?;
    let taken = CLIPBOARDS.iter().find(|(program, arguments, display)| {
        (display.is_empty() || std::env::var_os(display).is_some()) && takes(program, arguments, text)
    });
    print::text(&match taken {
        Some((program, ..)) => format!("in the clipboard (by {program}), and in {}", file.display()),
        None => format!("in {}; there is no clipboard here (wl-copy, xclip, pbcopy)", file.display()),
    });
    Ok(code::OK)
}

fn takes(program: &str, arguments: &[&str], text: &[u8]) -> bool {
    let child =
        Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else { return false };
    let written = child.stdin.take().is_some_and(|mut stdin| stdin.write_all(text).is_ok());
    child.wait().is_ok_and(|status| status.success()) && written
}
