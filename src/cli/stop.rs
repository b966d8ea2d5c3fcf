//! `systole stop`: ask the executor of a run, wherever it is, to stop it.

use clap::Args;

use super::exit::{Failure, code};
use super::settings::{Settings, Why};
use super::{context, ending, print};
use crate::ids::RunId;
use crate::run::StopVerdict;
use crate::run::store;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The run
    run_id: String,
    /// Wait until it has ended, for at most DURATION if given (as in --wait=5m)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    wait: Option<String>,
    #[command(flatten)]
    why: Why,
}

/// Requests the stop; the executor hears of it with its next heartbeat.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let run_id: RunId = arguments.run_id.parse()?;
    let patience = ending::patience(arguments.wait.as_deref())?;
    let waits = arguments.wait.is_some();
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let by = arguments.why.by();
        let verdict = link.call(async |session| store::request_stop(session, &run_id, &by).await).await?;
        let instance_id = match verdict {
            StopVerdict::Asked(holder) => {
                print::text(&format!(
                    "asked executor {} to stop run \"{run_id}\" (attempt {})",
                    holder.executor_id, holder.attempt
                ));
                holder.instance_id
            }
            StopVerdict::NotRunning => {
                let found = link.call(async |session| store::find(session, &run_id).await).await?;
                let has_ended = found.as_ref().is_some_and(|run| run.status != "QUEUED");
                // Whom it was taken away from by force may be at work for as long as it has not heard of that.
                let revoked = found.and_then(|run| run.holder).map(|view| view.holder.instance_id);
                let last = match revoked {
                    None if waits => ending::guarded_here(&mut link, &config, &run_id).await?,
                    revoked => revoked,
                };
                match last {
                    Some(instance_id) if waits => instance_id,
                    // What was asked for is so.
                    None if waits && has_ended => {
                        print::text(&format!("run \"{run_id}\" is not running: there is nothing to wait for"));
                        return Ok(code::OK);
                    }
                    _ => {
                        return Err(Failure::new(
                            code::USAGE,
                            format!("run \"{run_id}\" is not running: there is nothing to stop"),
                        ));
                    }
                }
            }
        };
        if waits {
            print::text(&ending::wait_for(&mut link, &config, &run_id, instance_id, patience).await?);
        }
        Ok(code::OK)
    })
}
