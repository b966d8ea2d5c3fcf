//! `systole takeover --force`: take a run away from an executor that still holds it.

use clap::Args;

use super::context;
use super::exit::{Failure, code};
use super::print;
use super::settings::{Settings, Why};
use crate::ids::RunId;
use crate::run::RevocationVerdict;
use crate::run::store;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The run
    run_id: String,
    /// Yes: also from one that is alive
    #[arg(long)]
    force: bool,
    /// Let its successor start at once, although the old command may still be at work
    #[arg(long, requires = "force")]
    unsafe_now: bool,
    #[command(flatten)]
    why: Why,
}

/// Revokes the run. Who wants it next claims it as ever.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let run_id: RunId = arguments.run_id.parse()?;
    if !arguments.force {
        return Err(Failure::new(
            code::USAGE,
            format!(
                "whoever runs \"{run_id}\" next takes over from a dead executor by itself: systole run {run_id} -- … \
                 To take the run away from one that is alive, add --force"
            ),
        ));
    }
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let by = arguments.why.by();
        let verdict =
            link.call(async |session| store::take_away(session, &run_id, &by, arguments.unsafe_now).await).await?;
        match verdict {
            RevocationVerdict::Revoked(holder) => {
                print::text(&format!(
                    "run \"{run_id}\" was taken away from executor {} (attempt {}): fenced at once, killed when it hears of it",
                    holder.executor_id, holder.attempt
                ));
                print::text(&if arguments.unsafe_now {
                    format!("UNSAFE: its command may still be at work on {}, beside any successor", holder.host)
                } else {
                    format!(
                        "a successor starts when that is proven, or {:.0} s after its last heartbeat: systole run {run_id} -- …",
                        holder.stale_after_seconds
                    )
                });
                Ok(code::OK)
            }
            RevocationVerdict::NotRunning => Err(Failure::new(
                code::USAGE,
                format!("run \"{run_id}\" is not running: there is nobody to take it away from"),
            )),
            RevocationVerdict::Locked { blocked_by } => Err(Failure::new(
                code::HELD,
                format!("run \"{run_id}\" is locked by PostgreSQL backends {blocked_by:?}: try again in a moment"),
            )),
        }
    })
}
