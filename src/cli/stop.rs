//! `systole stop`: ask the executor of a run, wherever it is, to stop it.

use std::time::Duration;

use clap::Args;

use super::context;
use super::exit::{Failure, code};
use super::print;
use super::settings::{Settings, Why};
use crate::ids::RunId;
use crate::run::StopVerdict;
use crate::run::store;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The run
    run_id: String,
    /// Wait until it has ended
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    why: Why,
}

/// Requests the stop; the executor hears of it with its next heartbeat.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let run_id: RunId = arguments.run_id.parse()?;
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let by = arguments.why.by();
        let verdict = link.call(async |session| store::request_stop(session, &run_id, &by).await).await?;
        let StopVerdict::Asked(holder) = verdict else {
            return Err(Failure::new(
                code::USAGE,
                format!("run \"{run_id}\" is not running: there is nothing to stop"),
            ));
        };
        print::text(&format!(
            "asked executor {} to stop run \"{run_id}\" (attempt {})",
            holder.executor_id, holder.attempt
        ));
        if !arguments.wait {
            return Ok(code::OK);
        }
        loop {
            let run = link.call(async |session| store::find(session, &run_id).await).await?;
            let held = run.and_then(|run| run.holder);
            if held.is_none_or(|now| now.holder.instance_id != holder.instance_id) {
                print::text("it has ended");
                return Ok(code::OK);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
}
