//! The worktrees of a node's host: what it makes for its runs, and what becomes of those that are over.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::elapsed::Instant;
use crate::log::{self, What};
use crate::workspace::{Defaults, Place, Policy, Tidied, tidy};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(60);

/// Where one could not be finished.
const AGAIN: Duration = Duration::from_secs(3);

/// What is configured of worktrees.
#[derive(Debug)]
pub(crate) struct Workspaces {
    /// Which ones runs work in, unless they say it.
    pub(crate) defaults: Defaults,
    pub(crate) place: Place,
    /// Which ones go.
    pub(crate) policy: Policy,
}

/// How far this node is with tidying up.
#[derive(Debug)]
pub(super) struct Tidying {
    due: Instant,
    /// At work, in a thread of its own: a disk may be slow.
    working: Option<JoinHandle<Tidied>>,
    told: Option<String>,
}

impl Tidying {
    pub(super) fn new() -> Tidying {
        Tidying { due: Instant::now(), working: None, told: None }
    }

    /// Begins when it is time, and says what became of the last one.
    pub(super) async fn look(&mut self, workspaces: &Workspaces) {
        if let Some(working) = self.working.take_if(|working| working.is_finished())
            && let Ok(tidied) = working.await
        {
            self.tell(tidied);
        }
        if self.working.is_none() && self.due <= Instant::now() {
            self.due = Instant::now() + INTERVAL;
            let (place, policy) = (workspaces.place.clone(), workspaces.policy);
            self.working = Some(tokio::task::spawn_blocking(move || tidy(&place, &policy)));
        }
    }

    fn tell(&mut self, tidied: Tidied) {
        if tidied.is_unfinished {
            self.due = self.due.min(Instant::now() + AGAIN);
        }
        if tidied.removed > 0 {
            let noun = if tidied.removed == 1 { "worktree" } else { "worktrees" };
            log::say(
                What::WorkspacesCleaned,
                format_args!("removed {} {noun} whose attempts are over; their work is kept", tidied.removed),
            );
        }
        // Once each time: what goes on is not news.
        if tidied.trouble != self.told {
            if let Some(trouble) = &tidied.trouble {
                log::say(What::WorkNotKept, trouble);
            }
            self.told = tidied.trouble;
        }
    }
}
