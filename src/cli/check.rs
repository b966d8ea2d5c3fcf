//! `systole check`: look before you launch.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::context;
use super::exit::{Failure, code};
use super::print::{self, ago};
use super::settings::Settings;
use crate::ids::RunId;
use crate::outcome::InstanceStatus;
use crate::run::store::{self, HolderView};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The run
    run_id: String,
    /// What you are about to do
    #[arg(long, value_enum, default_value_t = Intent::Launch)]
    intent: Intent,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Intent {
    Launch,
    Monitor,
    Restart,
    Validate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Decision {
    Launch,
    Attach,
    StopFirst,
    TakeOver,
}

#[derive(Debug, Serialize)]
struct Answer {
    run_id: RunId,
    intent: Intent,
    decision: Decision,
    reason: String,
    next: String,
    holder: Option<HolderView>,
}

/// Answers what to do with a run, in words and as an exit code.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let run_id: RunId = arguments.run_id.parse()?;
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let found = link.call(async |session| store::find(session, &run_id).await).await?;
        let (status, holder) = found.map_or((None, None), |run| (Some(run.status), run.holder));
        let answer = decide(run_id, arguments.intent, status.as_deref(), holder);
        let code = match answer.decision {
            Decision::Launch => code::OK,
            Decision::Attach | Decision::StopFirst => code::HELD,
            Decision::TakeOver => code::TAKE_OVER_POSSIBLE,
        };
        if arguments.json {
            print::json(&answer);
        } else {
            let decision = serde_json::to_value(answer.decision).expect("a word");
            print::text(&format!("{}: {}\n  {}", decision.as_str().unwrap_or_default(), answer.reason, answer.next));
        }
        Ok(code)
    })
}

fn decide(run_id: RunId, intent: Intent, status: Option<&str>, holder: Option<HolderView>) -> Answer {
    let run = run_id.as_str();
    let launch = format!("systole run {run} -- COMMAND");
    let (decision, reason, next) = match &holder {
        None => {
            let reason = match status {
                Some(status) => format!("nobody holds run \"{run}\"; it is {status}"),
                None => format!("nobody holds run \"{run}\"; it is new"),
            };
            (Decision::Launch, reason, launch)
        }
        Some(HolderView { holder, stale }) => {
            let was_revoked = holder.status != InstanceStatus::Running;
            let who = format!(
                "run \"{run}\" {} executor {}, attempt {}, last heartbeat {}",
                if was_revoked { "was taken away by force, but may still be worked on by" } else { "is held by" },
                holder.executor_id,
                holder.attempt,
                ago(holder.heartbeat_age_seconds)
            );
            if *stale {
                (
                    Decision::TakeOver,
                    format!("{who}: it is silent (stale after {:.0} s)", holder.stale_after_seconds),
                    launch,
                )
            } else if was_revoked {
                (Decision::StopFirst, who, format!("systole run --wait {run} -- COMMAND"))
            } else if intent == Intent::Restart {
                (Decision::StopFirst, who, format!("systole stop {run} --wait && {launch}"))
            } else {
                (Decision::Attach, who, format!("systole events {run} -f"))
            }
        }
    };
    Answer { run_id, intent, decision, reason, next, holder }
}
