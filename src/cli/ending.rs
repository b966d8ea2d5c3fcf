//! Waiting until a tenure is over, and knowing it: what `stop --wait` and `restart --wait` promise before they return.
//!
//! Over is what the database says has ended, whom force has taken the run from included, and what no guard of this host still
//! guards. A death on this host is filed on the way, as whatever starts here would.

use std::time::{Duration, Instant};

use super::exit::{Failure, code};
use super::print::ago;
use crate::attempt::{Outbox, file_deaths};
use crate::config::Config;
use crate::db::Link;
use crate::guard::remains::{self, Trace};
use crate::ids::{InstanceId, RunId};
use crate::instance::{Coordinator, Holder};
use crate::outcome::InstanceStatus;
use crate::output;
use crate::run::store::{self, HolderView};
use crate::state_dir::StateDir;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Twice its staleness threshold, for the brake, and this, for the sweep of a node: who has been silent for longer is waited for
/// no more.
const SWEEP_SLACK_SECONDS: f64 = 5.0;

/// `--wait[=DURATION]`: for how long, if it was given.
pub(super) fn patience(wait: Option<&str>) -> Result<Option<Duration>, Failure> {
    match wait {
        None | Some("") => Ok(None),
        Some(text) => super::run::duration("--wait", text).map(Some),
    }
}

/// A tenure of this run that a guard of this host still guards, whatever the database says.
pub(super) async fn guarded_here(
    link: &mut Link,
    config: &Config,
    run_id: &RunId,
) -> Result<Option<InstanceId>, Failure> {
    let fleet_id = link.hello().await?.fleet_id;
    let known = remains::known(&StateDir::at(&config.state_dir()).instances(), fleet_id, run_id);
    Ok(known.into_iter().find(|known| known.trace == Trace::Guarded).map(|known| known.instance_id))
}

/// Waits until this tenure is over, and says how it ended. Fails with 75 if that cannot be known within `patience`, or at all.
pub(super) async fn wait_for(
    link: &mut Link,
    config: &Config,
    run_id: &RunId,
    instance_id: InstanceId,
    patience: Option<Duration>,
) -> Result<String, Failure> {
    let begun = Instant::now();
    let fleet_id = link.hello().await?.fleet_id;
    let instances = StateDir::at(&config.state_dir()).instances();
    let mut undertaker = None;
    let mut told = false;
    loop {
        let tenure = link.call(async |session| store::tenure(session, instance_id).await).await?;
        let Some(tenure) = tenure else {
            return Err(Failure::new(
                code::HELD,
                format!(
                    "the database no longer knows the attempt at run \"{run_id}\" that was to end: see systole check {run_id}"
                ),
            ));
        };
        let holder = &tenure.view.holder;
        let known = remains::known(&instances, fleet_id, run_id);
        let here = known.into_iter().find(|known| known.instance_id == instance_id).map(|known| known.trace);
        let is_over = holder.status != InstanceStatus::Running && !tenure.bars_successor;
        match here {
            Some(Trace::Guarded) => {}
            _ if is_over => return Ok(words(holder, tenure.exit_code)),
            Some(Trace::Certified(_) | Trace::Sweepable) => bury(link, config, &mut undertaker).await?,
            _ => {}
        }
        if patience.is_some_and(|patience| begun.elapsed() >= patience) {
            return Err(Failure::new(
                code::HELD,
                format!("{}. It was waited for no longer", not_over(run_id, &tenure.view)),
            ));
        }
        if tenure.view.stale && !is_over {
            if holder.heartbeat_age_seconds > 2.0 * holder.stale_after_seconds + SWEEP_SLACK_SECONDS {
                return Err(Failure::new(code::HELD, silent(run_id, &tenure.view)));
            }
            if !std::mem::replace(&mut told, true) {
                eprintln!(
                    "systole: {}: waiting for proof of its end, or for a node to take over",
                    not_over(run_id, &tenure.view)
                );
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Files the deaths of this host. Who may not, or cannot now, goes on waiting for somebody who can.
async fn bury(link: &mut Link, config: &Config, undertaker: &mut Option<Coordinator>) -> Result<(), Failure> {
    let coordinator = match undertaker {
        Some(coordinator) => coordinator,
        None => undertaker.insert(Coordinator::start(link.target().clone(), config.timing()?)?),
    };
    let Ok(hello) = coordinator.hello().await else { return Ok(()) };
    let state = StateDir::open(&config.state_dir())?;
    if let Some(history) = hello.history {
        Outbox::of(&state).saw(history);
    }
    let filed = file_deaths(coordinator, &state, hello.fleet_id, hello.history).await;
    if !filed.logs.is_empty() {
        // They are still on this host's disk.
        let _ = output::store::put_last_words(link, &filed.logs).await;
    }
    Ok(())
}

fn words(holder: &Holder, exit_code: Option<i32>) -> String {
    let cause = holder.cause.map(|cause| format!(", {}", cause.as_str())).unwrap_or_default();
    let code = exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
    format!(
        "attempt {} of executor {} has ended: {}{cause}{code}",
        holder.attempt,
        holder.executor_id,
        holder.status.as_str()
    )
}

fn not_over(run_id: &RunId, HolderView { holder, stale }: &HolderView) -> String {
    let is_running = holder.status == InstanceStatus::Running;
    format!(
        "run \"{run_id}\" {} executor {}, attempt {}, {}last heartbeat {}",
        if is_running { "is still held by" } else { "may still be worked on by" },
        holder.executor_id,
        holder.attempt,
        if *stale { "which is silent: " } else { "" },
        ago(holder.heartbeat_age_seconds)
    )
}

fn silent(run_id: &RunId, view: &HolderView) -> String {
    format!(
        "{} (stale after {:.0} s). It may never hear of the stop, its end cannot be proven from here, and no node has taken over. \
         Whoever runs it next does: systole run {run_id} -- COMMAND",
        not_over(run_id, view),
        view.holder.stale_after_seconds
    )
}
