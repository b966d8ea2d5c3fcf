//! `systole status` and `systole ps`: what is, and who is at it.

use clap::Args;

use super::context;
use super::exit::{Failure, code};
use super::print::{self, ago, moment, or_dash};
use super::settings::Settings;
use crate::ids::RunId;
use crate::run::{queue, store};

/// How many runs a list without a name shows.
const RUNS_SHOWN_MAX: i64 = 100;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The run; without it, the newest runs
    run_id: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct PsArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows one run with its attempts, or the newest runs.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let run_id = arguments.run_id.as_deref().map(str::parse::<RunId>).transpose()?;
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        match run_id {
            None => {
                let runs = link.call(async |session| store::list(session, RUNS_SHOWN_MAX).await).await?;
                if arguments.json {
                    print::json(&runs);
                } else {
                    show_list(runs);
                }
            }
            Some(run_id) => {
                let run = link.call(async |session| store::status(session, &run_id).await).await?;
                let mut run =
                    run.ok_or_else(|| Failure::new(code::USAGE, format!("no run \"{run_id}\" is known here")))?;
                if run.summary.status == "QUEUED" {
                    run.waits = link.call(async |session| queue::why_waiting(session, &run_id).await).await?;
                }
                if arguments.json {
                    print::json(&run);
                } else {
                    show_run(run);
                }
            }
        }
        Ok(code::OK)
    })
}

/// Shows the executors that hold a run.
pub(super) fn ps(arguments: &PsArguments, settings: &Settings) -> Result<u8, Failure> {
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let running = link.call(store::running).await?;
        if arguments.json {
            print::json(&running);
            return Ok(code::OK);
        }
        let rows = running.into_iter().map(|running| {
            let held = running.holder.holder;
            vec![
                running.run_id,
                held.executor_id,
                held.attempt.to_string(),
                ago(held.age_seconds),
                format!("{}{}", ago(held.heartbeat_age_seconds), if running.holder.stale { " (stale)" } else { "" }),
                or_dash(held.child_pid),
                held.containment,
                running.phases_executed.to_string(),
                or_dash(held.message),
                or_dash(held.purpose),
            ]
        });
        let headers =
            ["RUN", "EXECUTOR", "ATTEMPT", "STARTED", "HEARTBEAT", "CHILD", "CONTAINMENT", "PHASES", "SAYS", "PURPOSE"];
        print::table(&headers, rows.collect(), "no executor holds a run");
        Ok(code::OK)
    })
}

fn show_list(runs: Vec<store::Summary>) {
    let rows = runs.into_iter().map(|run| {
        let heartbeat = run.holder.as_ref().map(|view| {
            format!("{}{}", ago(view.holder.heartbeat_age_seconds), if view.stale { " (stale)" } else { "" })
        });
        vec![
            run.run_id,
            run.status,
            run.attempt.to_string(),
            or_dash(run.holder.map(|view| view.holder.executor_id)),
            or_dash(heartbeat),
            moment(run.updated_at),
            or_dash(run.purpose),
        ]
    });
    let headers = ["RUN", "STATUS", "ATTEMPT", "EXECUTOR", "HEARTBEAT", "CHANGED", "PURPOSE"];
    print::table(&headers, rows.collect(), "there are no runs yet. Start one with: systole run RUN_ID -- COMMAND");
}

fn show_run(run: store::RunStatus) {
    let summary = run.summary;
    let mut text = format!("{}  {}  fence {}", summary.run_id, summary.status, summary.fence);
    if let Some(purpose) = &summary.purpose {
        text.push_str(&format!("\n  for: {}", print::plain(purpose)));
    }
    if let Some(why) = &run.waits {
        text.push_str(&format!("\n  waits: {}", print::plain(why)));
    }
    if let Some(view) = &summary.holder {
        let held = &view.holder;
        text.push_str(&format!(
            "\n  executor {} since {}, last heartbeat {}{}, contained by {}",
            held.executor_id,
            ago(held.age_seconds),
            ago(held.heartbeat_age_seconds),
            if view.stale { " (stale)" } else { "" },
            held.containment
        ));
        if let Some(message) = &held.message {
            text.push_str(&format!("\n  says: {}", print::plain(message)));
        }
        if held.stop_requested_at.is_some() {
            text.push_str("\n  a stop was requested");
        }
    }
    if let (None, Some(message)) = (&summary.holder, run.attempts.last().and_then(|last| last.message.as_ref())) {
        text.push_str(&format!("\n  last said: {}", print::plain(message)));
    }
    for attempt in &run.attempts {
        if let Some(lost @ 1..) = attempt.output_bytes_lost {
            let (number, executor) = (attempt.attempt, &attempt.executor_id);
            text.push_str(&format!(
                "\n  output: {lost} bytes of attempt {number} are missing: the disk did not take them (executor {executor})"
            ));
        }
    }
    print::text(&text);
    let rows = run.attempts.into_iter().map(|attempt| {
        vec![
            attempt.attempt.to_string(),
            attempt.status,
            attempt.executor_id,
            moment(attempt.started_at),
            or_dash(attempt.ended_at.map(moment)),
            or_dash(attempt.exit_code),
            or_dash(attempt.cause),
            attempt.phases_executed.to_string(),
            attempt.fence.to_string(),
        ]
    });
    let headers = ["ATTEMPT", "STATUS", "EXECUTOR", "STARTED", "ENDED", "EXIT", "CAUSE", "PHASES", "FENCE"];
    print::table(&headers, rows.collect(), "it has not been attempted yet");
}
