//! `systole cancel`, `retry`, `restart`, `pause`, `resume`, `queues`, `prune`: what people tell the queue, from any machine.

use clap::Args;

use super::exit::{Failure, code};
use super::settings::{Settings, Why};
use super::{context, ending, print};
use crate::db::Link;
use crate::ids::RunId;
use crate::node;
use crate::run::queue::{self, CancelVerdict, RetryVerdict};
use crate::run::{batch, store};

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The run
    run_id: String,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
pub(super) struct CancelArguments {
    /// The run
    #[arg(required_unless_present = "batch", conflicts_with = "batch")]
    run_id: Option<String>,
    /// All that is left of a batch of systole supervise
    #[arg(long, value_name = "NAME")]
    batch: Option<String>,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
pub(super) struct RestartArguments {
    /// The run
    run_id: String,
    /// Wait until the old attempt has ended, for at most DURATION if given (as in --wait=5m)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    wait: Option<String>,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
pub(super) struct QueueArguments {
    /// The queue
    #[arg(default_value = "default")]
    queue: String,
    #[command(flatten)]
    why: Why,
}

/// How many runs go in one transaction.
const PRUNE_MAX: i32 = 500;

#[derive(Debug, Args)]
pub(super) struct PruneArguments {
    /// How long ago they must have ended
    #[arg(long, value_name = "DURATION", default_value = "30d")]
    older_than: String,
}

#[derive(Debug, Args)]
pub(super) struct QueuesArguments {
    /// Bound how many runs of this queue may run at once in the whole fleet: NAME=N, or NAME= for no bound
    #[arg(long, value_name = "NAME=N")]
    limit: Option<String>,
    #[command(flatten)]
    why: Why,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Takes a run, or all of a batch, out of the queue, or asks its executor to stop it.
pub(super) fn cancel(arguments: &CancelArguments, settings: &Settings) -> Result<u8, Failure> {
    if let Some(batch) = &arguments.batch {
        return cancel_batch(batch, &arguments.why, settings);
    }
    let run_id: RunId = arguments.run_id.as_deref().unwrap_or_default().parse()?;
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let by = arguments.why.by();
        match link.call(async |session| queue::cancel(session, &run_id, &by).await).await? {
            CancelVerdict::Cancelled => print::text(&format!("cancelled run \"{run_id}\", which was queued")),
            CancelVerdict::Running => {
                let _ = link.call(async |session| store::request_stop(session, &run_id, &by).await).await?;
                print::text(&format!("run \"{run_id}\" is running: asked its executor to stop it"));
            }
            CancelVerdict::Ended => return unknown(&run_id, "has ended already"),
            CancelVerdict::Unknown => return unknown(&run_id, "was never heard of here"),
        }
        Ok(code::OK)
    })
}

fn cancel_batch(batch: &str, why: &Why, settings: &Settings) -> Result<u8, Failure> {
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let by = why.by();
        let Some((cancelled, stopping)) = link.call(async |session| batch::cancel(session, batch, &by).await).await?
        else {
            let message = format!("there is no batch {batch:?}: systole supervise says what its batch is called");
            return Err(Failure::new(code::USAGE, message));
        };
        print::text(&format!(
            "of batch {batch} {cancelled} were queued, and are cancelled; {stopping} run, and are asked to stop"
        ));
        Ok(code::OK)
    })
}

/// Stops a run, and has it started again.
pub(super) fn restart(arguments: &RestartArguments, settings: &Settings) -> Result<u8, Failure> {
    let run_id: RunId = arguments.run_id.parse()?;
    let patience = ending::patience(arguments.wait.as_deref())?;
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let by = arguments.why.by();
        let before = link.call(async |session| store::find(session, &run_id).await).await?.and_then(|run| run.holder);
        let verdict = link.call(async |session| queue::restart(session, &run_id, &by).await).await?;
        match verdict {
            RetryVerdict::Queued => match before {
                None => print::text(&format!("queued run \"{run_id}\" again")),
                Some(view) => {
                    print::text(&format!("run \"{run_id}\" starts again as soon as it has stopped"));
                    if arguments.wait.is_some() {
                        let instance_id = view.holder.instance_id;
                        let ended = ending::wait_for(&mut link, &config, &run_id, instance_id, patience).await?;
                        print::text(&ended);
                        return started_again(&mut link, &run_id).await;
                    }
                }
            },
            RetryVerdict::Running => return unknown(&run_id, "is running"),
            RetryVerdict::AlreadyQueued => return unknown(&run_id, "is queued already"),
            RetryVerdict::ByHand => {
                return unknown(
                    &run_id,
                    &format!(
                        "was started by hand, so nobody knows its command: \
                         systole stop {run_id} --wait && systole run {run_id} -- COMMAND"
                    ),
                );
            }
            RetryVerdict::Unknown => return unknown(&run_id, "was never heard of here"),
        }
        Ok(code::OK)
    })
}

/// Queues a run anew.
pub(super) fn retry(arguments: &RunArguments, settings: &Settings) -> Result<u8, Failure> {
    let run_id: RunId = arguments.run_id.parse()?;
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let by = arguments.why.by();
        match link.call(async |session| queue::retry(session, &run_id, &by).await).await? {
            RetryVerdict::Queued => print::text(&format!("queued run \"{run_id}\" again")),
            RetryVerdict::AlreadyQueued => return unknown(&run_id, "is queued already"),
            RetryVerdict::Running => return unknown(&run_id, "is running"),
            RetryVerdict::ByHand => {
                return unknown(
                    &run_id,
                    "did not come from the queue, so nobody knows its command: run it by hand again",
                );
            }
            RetryVerdict::Unknown => return unknown(&run_id, "was never heard of here"),
        }
        Ok(code::OK)
    })
}

/// Its end may have been its success: that is not done again.
async fn started_again(link: &mut Link, run_id: &RunId) -> Result<u8, Failure> {
    let run = link.call(async |session| store::find(session, run_id).await).await?;
    match run.as_ref().map(|run| (run.status.as_str(), &run.holder)) {
        Some(("QUEUED", _)) => print::text(&format!("run \"{run_id}\" is queued: the next free node starts it")),
        Some((_, Some(view))) => print::text(&format!(
            "run \"{run_id}\" runs again: executor {}, attempt {}",
            view.holder.executor_id, view.holder.attempt
        )),
        Some((status, None)) => print::text(&format!(
            "run \"{run_id}\" is {status}, and was not started again. If it should be: systole retry {run_id}"
        )),
        None => return unknown(run_id, "is not known here any more"),
    }
    Ok(code::OK)
}

fn unknown(run_id: &RunId, what: &str) -> Result<u8, Failure> {
    Err(Failure::new(code::USAGE, format!("run \"{run_id}\" {what}")))
}

/// Forgets what ended long ago.
pub(super) fn prune(arguments: &PruneArguments, settings: &Settings) -> Result<u8, Failure> {
    let older_than = super::run::duration("--older-than", &arguments.older_than)?;
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let mut pruned = 0;
        loop {
            match link.call(async |session| node::store::prune(session, Some(older_than), PRUNE_MAX).await).await? {
                0 => break,
                some => pruned += some,
            }
        }
        print::text(&format!("forgot {pruned} runs that ended more than {} ago", arguments.older_than));
        Ok(code::OK)
    })
}

/// Starts nothing more of a queue.
pub(super) fn pause(arguments: &QueueArguments, settings: &Settings) -> Result<u8, Failure> {
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let (name, by) = (&arguments.queue, arguments.why.by());
        let changed = link.call(async |session| queue::pause(session, name, &by).await).await?;
        print::text(&if changed {
            format!("paused queue \"{name}\": what runs goes on, nothing more is started")
        } else {
            format!("queue \"{name}\" was paused already")
        });
        Ok(code::OK)
    })
}

/// Lets it go on.
pub(super) fn resume(arguments: &QueueArguments, settings: &Settings) -> Result<u8, Failure> {
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let (name, by) = (&arguments.queue, arguments.why.by());
        let changed = link.call(async |session| queue::resume(session, name, &by).await).await?;
        print::text(&format!("queue \"{name}\" {}", if changed { "goes on" } else { "was not paused" }));
        Ok(code::OK)
    })
}

/// Shows the queues, or limits one.
pub(super) fn queues(arguments: &QueuesArguments, settings: &Settings) -> Result<u8, Failure> {
    let limit = arguments.limit.as_deref().map(bound).transpose()?;
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        if let Some((name, most)) = limit {
            let by = arguments.why.by();
            link.call(async |session| queue::limit(session, name, most, &by).await).await?;
        }
        let queues = link.call(async |session| queue::list(session).await).await?;
        if arguments.json {
            print::json(&queues);
            return Ok(code::OK);
        }
        let row = |queue: queue::Queue| {
            vec![
                queue.queue,
                queue.queued.to_string(),
                queue.running.to_string(),
                print::or_dash(queue.running_max),
                if queue.paused { "paused" } else { "open" }.to_owned(),
            ]
        };
        let rows = queues.into_iter().map(row).collect();
        print::table(&["QUEUE", "QUEUED", "RUNNING", "LIMIT", "STATE"], rows, "nothing was ever queued here");
        Ok(code::OK)
    })
}

fn bound(text: &str) -> Result<(&str, Option<i32>), Failure> {
    let wrong =
        || Failure::new(code::USAGE, format!("--limit is {text:?}, but should be NAME=N, or NAME= for no bound"));
    let (name, most) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
    let most =
        if most.is_empty() { None } else { Some(most.parse().ok().filter(|most: &i32| *most > 0).ok_or_else(wrong)?) };
    Ok((name, most))
}
