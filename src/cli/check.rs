//! `systole check`: look before you launch. Out of the database, and of what lives on this host.

mod decision;

use clap::Args;
use serde::Serialize;

use super::context;
use super::exit::{Failure, code};
use super::print;
use super::settings::Settings;
use crate::attempt::holder_here;
use crate::config::Config;
use crate::db::{Link, Target};
use crate::guard::remains;
use crate::ids::RunId;
use crate::run::store;
use crate::state_dir::StateDir;
use decision::{Advice, Decision, Findings, Intent};

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

#[derive(Debug, Serialize)]
struct Answer {
    #[serde(flatten)]
    findings: Findings,
    #[serde(flatten)]
    advice: Advice,
}

/// Answers what to do with a run, in words and as an exit code.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let run_id: RunId = arguments.run_id.parse()?;
    let config = context::config(settings)?;
    let answer = context::block_on(look(&config, run_id, arguments.intent))?;
    if arguments.json {
        print::json(&answer);
    } else {
        let Advice { decision, reason, next } = &answer.advice;
        let decision = serde_json::to_value(decision).expect("a word");
        print::text(&format!("{}: {reason}\n  {next}", decision.as_str().unwrap_or_default()));
    }
    Ok(match answer.advice.decision {
        Decision::Launch => code::OK,
        Decision::Attach | Decision::StopFirst => code::HELD,
        Decision::TakeOver => code::TAKE_OVER_POSSIBLE,
    })
}

async fn look(config: &Config, run_id: RunId, intent: Intent) -> Result<Answer, Failure> {
    let target = context::target(config).await?;
    let state = StateDir::at(&config.state_dir());
    let mut link = Link::new(target.clone(), config.timing()?.attempt_timeout);
    match link.hello().await {
        Ok(_) => {}
        Err(error) if error.is_transient() => {
            return without_database(&state, &target, run_id, intent).ok_or_else(|| error.into());
        }
        Err(error) => return Err(error.into()),
    }
    let surroundings = link.call(async |session| store::surroundings(session, &run_id).await).await?;
    let found = link.call(async |session| store::find(session, &run_id).await).await?;
    // Behind the database: whoever ends in between is gone from here, and not somebody of whom the database knows nothing.
    let here = remains::known(&state.instances(), surroundings.fleet_id, &run_id);
    let (status, holder) = found.map_or((None, None), |run| (Some(run.status), run.holder));
    let findings = Findings {
        run_id,
        intent,
        status,
        queue: surroundings.queue,
        holder,
        quarantined_until: surroundings.quarantined_until,
        here,
    };
    let advice = findings.advice();
    Ok(Answer { findings, advice })
}

/// Whoever holds the lock of this host is at work on it, whatever the rest of the fleet does. Otherwise nothing can be said.
fn without_database(state: &StateDir, target: &Target, run_id: RunId, intent: Intent) -> Option<Answer> {
    let holder = holder_here(state, target, &run_id)?;
    let advice = Advice {
        decision: Decision::Attach,
        reason: format!(
            "executor {holder} is at work on run \"{run_id}\" on this host. What the rest of the fleet does cannot be told: \
             the database cannot be reached"
        ),
        next: format!("systole check {run_id}"),
    };
    let findings =
        Findings { run_id, intent, status: None, queue: None, holder: None, quarantined_until: None, here: Vec::new() };
    Some(Answer { findings, advice })
}
