//! What was seen last, and when it is time to look again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::page::page;
use super::snapshot::Snapshot;
use super::targets::targets;
use crate::db::{DbError, Link, Target};
use crate::elapsed::Instant;
use crate::identity::Identity;
use crate::log::{self, What};

/// A look is good for so long: ten who ask cost as much as one.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// Of a look, dialling included: less than anybody waits who scrapes every five seconds.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);

/// The fleet, seen through one connection of its own.
#[derive(Debug)]
pub(crate) struct View {
    /// Whoever has it is the one who asks; all others wait for what he sees.
    link: tokio::sync::Mutex<Link>,
    attempt_timeout: Duration,
    seen: Mutex<Seen>,
}

/// What is known, and how.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(super) last: Option<Arc<Taken>>,
    pub(super) errors: u64,
    /// Why the last look failed, if it did.
    pub(super) error: Option<DbError>,
    pub(super) asked_at: Option<Instant>,
}

/// A snapshot that was had.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) snapshot: Snapshot,
    /// By this host's clock, as those who ask judge its age by theirs.
    pub(super) at: SystemTime,
    pub(super) took: Duration,
}

impl Taken {
    pub(super) fn age(&self) -> Duration {
        self.at.elapsed().unwrap_or_default()
    }
}

impl View {
    /// A view that dials when it is first asked.
    pub(crate) fn new(target: Target, attempt_timeout: Duration) -> View {
        let attempt_timeout = attempt_timeout.min(ATTEMPT_MAX);
        let link = tokio::sync::Mutex::new(Link::new(target, attempt_timeout));
        View { link, attempt_timeout, seen: Mutex::default() }
    }

    /// The fleet in Prometheus' text format.
    pub(crate) async fn page(self: &Arc<Self>) -> String {
        page(&self.look().await)
    }

    /// Whom to scrape, as JSON; an error if nobody was ever seen. Then those who ask keep what they have.
    pub(crate) async fn targets(self: &Arc<Self>) -> Result<String, String> {
        let seen = self.look().await;
        match seen.last {
            Some(taken) => Ok(targets(&taken.snapshot, &Identity::of_this_process().host)),
            None => Err(seen.error.map_or_else(String::new, |error| error.to_string())),
        }
    }

    /// What there is to see, no older than a second if the database answers.
    pub(crate) async fn look(self: &Arc<Self>) -> Seen {
        let (view, arrived) = (self.clone(), Instant::now());
        // A task of its own: who asks may give up, and others wait for the same answer.
        let _ = tokio::spawn(async move { view.ask_unless_known(arrived).await }).await;
        self.seen().clone()
    }

    async fn ask_unless_known(&self, arrived: Instant) {
        let mut link = self.link.lock().await;
        // What was seen since we came is news enough, and a failure is as good for a second as a success.
        if self.seen().asked_at.is_some_and(|asked_at| arrived.since(asked_at) < GOOD_FOR) {
            return;
        }
        let (began, bound) = (Instant::now(), self.attempt_timeout);
        let answer = link.call(async |session| Snapshot::ask(session, bound).await).await;
        let now = Instant::now();
        let mut seen = self.seen();
        seen.asked_at = Some(now);
        match answer {
            Ok(mut snapshot) => {
                if let Some(before) = &seen.last {
                    snapshot.keep_counts(&before.snapshot);
                }
                seen.last = Some(Arc::new(Taken { snapshot, at: SystemTime::now(), took: now.since(began) }));
                seen.error = None;
            }
            Err(error) => {
                seen.errors += 1;
                // Once each time: what goes on is not news.
                if seen.error.replace(error.clone()).is_none() {
                    log::say(What::DatabaseTrouble, format_args!("the fleet cannot be seen: {error}"));
                }
            }
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Why nothing can be seen now, if so.
    pub(crate) fn error(&self) -> Option<&DbError> {
        self.error.as_ref()
    }
}
