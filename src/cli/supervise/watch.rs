//! How the runs of a batch are, wherever they run: looked up again and again, until all have ended.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::screen::Screen;
use crate::daemon::Leave;
use crate::db::{DbError, Link};
use crate::ids::RunId;
use crate::run::batch::{self, Look};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// A look at thousands of runs takes its time: at most so much of ours, and of the database's, goes into it.
const REST: u32 = 10;

pub(super) struct Watch {
    link: Link,
    screen: Screen,
    order: Vec<String>,
    /// What was seen of each last.
    seen: BTreeMap<String, Look>,
}

impl Watch {
    pub(super) fn new(link: Link, run_ids: &[RunId], screen: Screen) -> Watch {
        let order = run_ids.iter().map(RunId::to_string).collect();
        Watch { link, screen, order, seen: BTreeMap::new() }
    }

    /// Looks at those that have not ended, and shows them. True if there are none any more.
    pub(super) async fn look(&mut self) -> Result<bool, DbError> {
        let is_open = |run: &&str| self.seen.get(*run).is_none_or(|look| !look.has_ended());
        let open: Vec<&str> = self.order.iter().map(String::as_str).filter(is_open).collect();
        let looks = self.link.call(async |session| batch::look(session, &open).await).await?;
        let mut found: BTreeMap<String, Look> = looks.into_iter().map(|look| (look.run_id.clone(), look)).collect();
        let looks: Vec<Look> =
            open.iter().map(|run| found.remove(*run).unwrap_or_else(|| Look::forgotten(run))).collect();
        let mut is_over = true;
        for look in looks {
            is_over &= look.has_ended();
            self.screen.show(&look);
            self.seen.insert(look.run_id.clone(), look);
        }
        Ok(is_over)
    }

    /// Looks until all have ended, and says so. Cancel-safe.
    pub(super) async fn until_over(&mut self, leave: &mpsc::Sender<Leave>) -> Infallible {
        loop {
            let begun = Instant::now();
            // Whoever works on them says what is wrong with the database.
            if matches!(self.look().await, Ok(true)) {
                let _ = leave.send(Leave::Over).await;
                return std::future::pending().await;
            }
            tokio::time::sleep(INTERVAL.max(begun.elapsed() * REST)).await;
        }
    }

    /// What was seen last, in the order of the list.
    pub(super) fn end(mut self) -> Vec<Look> {
        self.screen.end();
        self.order.iter().filter_map(|run| self.seen.remove(run)).collect()
    }
}
