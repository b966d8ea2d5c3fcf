//! How the runs of a batch are, wherever they run: looked up again and again, until all have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::screen::Screen;
use crate::daemon::Leave;
use crate::db::{DbError, Link};
use crate::ids::RunId;
use crate::log::{self, About, What};
use crate::run::batch::{self, Joined, Look};
use crate::run::queue;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// A look at thousands of runs takes its time: at most so much of ours, and of the database's, goes into it.
const REST: u32 = 10;

/// What a run that is about to begin waits for.
const A_SLOT: &str = "for a free slot";

/// Looks with nothing at work before anybody is told why.
const IDLE_LOOKS_MAX: u32 = 2;

pub(super) struct Watch {
    link: Link,
    screen: Screen,
    joined: Joined,
    run_ids: Vec<RunId>,
    /// What was seen of them last, in their order.
    seen: Vec<Look>,
    /// So many looks have found nothing at work.
    idle: u32,
    /// What was said last of what they wait for.
    why: Option<String>,
}

impl Watch {
    pub(super) fn new(link: Link, joined: Joined, run_ids: Vec<RunId>, screen: Screen) -> Watch {
        Watch { link, screen, joined, run_ids, seen: Vec::new(), idle: 0, why: None }
    }

    /// Looks at all of them, also at those that had ended: somebody may have had them run again. True if all have ended.
    pub(super) async fn look(&mut self) -> Result<bool, DbError> {
        let run_ids: Vec<&str> = self.run_ids.iter().map(RunId::as_str).collect();
        let joined = &self.joined;
        let looks = self.link.call(async |session| batch::look(session, joined, &run_ids).await).await?;
        let mut found: BTreeMap<String, Look> = looks.into_iter().map(|look| (look.run_id.clone(), look)).collect();
        self.seen = run_ids.iter().map(|run| found.remove(*run).unwrap_or_else(|| Look::forgotten(run))).collect();
        self.screen.show(&self.seen);
        Ok(self.seen.iter().all(Look::has_ended))
    }

    /// Looks until all have ended, and says so. Cancel-safe.
    pub(super) async fn until_over(&mut self, leave: &mpsc::Sender<Leave>) -> Infallible {
        loop {
            let begun = Instant::now();
            // Whoever works on them says what is wrong with the database.
            match self.look().await {
                Ok(true) => {
                    let _ = leave.send(Leave::Over).await;
                    return std::future::pending().await;
                }
                Ok(false) => self.say_why_nothing_runs().await,
                Err(_) => {}
            }
            tokio::time::sleep(INTERVAL.max(begun.elapsed() * REST)).await;
        }
    }

    /// Of a batch of which nothing is at work anywhere, people want to know why.
    async fn say_why_nothing_runs(&mut self) {
        let waiting = match self.seen.iter().any(Look::is_running) {
            true => None,
            false => self.seen.iter().zip(&self.run_ids).find(|(look, _)| !look.has_ended()),
        };
        let Some((_, run_id)) = waiting else { return self.idle = 0 };
        self.idle += 1;
        if self.idle < IDLE_LOOKS_MAX {
            return;
        }
        let Ok(Some(why)) = self.link.call(async |session| queue::why_waiting(session, run_id).await).await else {
            return;
        };
        if why != A_SLOT && self.why.as_ref() != Some(&why) {
            let about = About { run: Some(run_id.as_str()), ..About::default() };
            log::say_of(What::BatchWaiting, about, format_args!("run \"{run_id}\" waits: {why}"));
            self.why = Some(why);
        }
    }

    /// All attempts that were made at them for their batch.
    pub(super) async fn tenures(&mut self) -> Result<BTreeSet<Uuid>, DbError> {
        let run_ids: Vec<&str> = self.run_ids.iter().map(RunId::as_str).collect();
        self.link.call(async |session| batch::tenures(session, &run_ids).await).await
    }

    /// The batch, and what was seen last of its runs.
    pub(super) fn end(mut self) -> (Joined, Vec<Look>) {
        self.screen.end();
        (self.joined, self.seen)
    }
}
