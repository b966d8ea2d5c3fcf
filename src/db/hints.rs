//! NOTIFY as a hint that it is time to look: never the truth, never waited for, and never sent by a transition itself.
//!
//! A transaction that notifies holds a lock that all others which notify need, until its commit is done; behind
//! synchronous standbys that can take for ever. So a hint is a transaction of its own that waits for no flush, and hardly
//! for that lock.

use std::convert::Infallible;

use tokio_postgres::Error;
use tokio_postgres::types::Type;

use super::session::Session;
use crate::ids::RunId;

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// What.
    pub kind: HintKind,
    /// To which run, queue or node.
    pub name: String,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintKind {
    /// Its holder has been asked for something: a heartbeat tells what.
    Asked,
    /// Its holder has ended.
    Ended,
    /// Something of this queue can be started.
    Queued,
    /// This node is asked for something.
    Node,
}

impl Hint {
    /// That this happened to a run.
    pub(crate) fn of_run(kind: HintKind, run_id: &RunId) -> Hint {
        Hint { kind, name: run_id.to_string() }
    }

    /// Tells everybody who listens. One that gets lost is made up for by polling.
    pub(crate) async fn send(&self, session: &Session) -> Result<(), Error> {
        const HINT: &str = "-- hints.send
            SELECT set_config('synchronous_commit', 'off', true), set_config('lock_timeout', '50ms', true), pg_notify($1, $2)";
        let payload = format!("{} {}", self.kind.word(), self.name);
        session.query(HINT, &[(&session.schema().as_str(), Type::TEXT), (&payload, Type::TEXT)]).await?;
        Ok(())
    }

    /// Sends it right behind a transition on the same session, in one round trip. What matters is the transition: its answer is
    /// not kept back until the hint has been taken as well.
    pub(crate) async fn send_behind<T>(
        &self,
        session: &Session,
        transition: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        if session.is_pooled() {
            // pgbouncer 1.18 lends a server out again while the second of two answers is still to come, if the first client
            // has gone by then: a stranger would read it as the answer to what he has asked.
            let answer = transition.await;
            let _ = self.send(session).await;
            return answer;
        }
        let hint = async {
            let _ = self.send(session).await;
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            answer = transition => answer,
            never = hint => match never {},
        }
    }

    /// What somebody sent; `None` if it is not one of ours, or one of a later version's.
    pub(super) fn read(payload: &str) -> Option<Hint> {
        let (word, name) = payload.split_once(' ')?;
        let kinds = [HintKind::Asked, HintKind::Ended, HintKind::Queued, HintKind::Node];
        let kind = kinds.into_iter().find(|kind| kind.word() == word)?;
        Some(Hint { kind, name: name.to_owned() })
    }
}

impl HintKind {
    fn word(self) -> &'static str {
        match self {
            HintKind::Asked => "asked",
            HintKind::Ended => "ended",
            HintKind::Queued => "queued",
            HintKind::Node => "node",
        }
    }
}
