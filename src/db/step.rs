//! A step of a migration: one transaction, under the lock of all migrations, that gives way to those who work.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::session::Session;

/// Any number will do, as long as every version of systole uses the same.
const MIGRATION_LOCK: i64 = 0x7379_7374_6f6c_6501;

/// How long to wait for another process that migrates, and for transactions that use what is to be changed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one step may wait for each of its locks: heartbeats queue behind it, and must not miss their deadline.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a step has been tried.
pub(super) struct Patience(Instant);

impl Patience {
    pub(super) fn begin() -> Patience {
        Patience(Instant::now())
    }

    /// Whether to try again after this: others were in the way, and there is time. By the code of the error: its words are
    /// in the server's language.
    pub(super) fn has_room_for(&self, error: &Error) -> bool {
        let crowded = [&SqlState::T_R_DEADLOCK_DETECTED, &SqlState::LOCK_NOT_AVAILABLE];
        error.code().is_some_and(|code| crowded.contains(&code)) && self.0.elapsed() < PATIENCE
    }

    /// Those who work go first.
    pub(super) async fn rest(&self) {
        tokio::time::sleep(LOCK_TIMEOUT).await;
    }
}

/// Takes the lock of all migrations, which goes with the session. False if somebody else has kept it for a minute.
pub(super) async fn lock(session: &mut Session) -> Result<bool, Error> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let row = session.client().query_one("SELECT pg_try_advisory_lock($1)", &[&MIGRATION_LOCK]).await?;
        if row.get(0) {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(false)
}

/// Runs a script as one transaction; from its beginning again, if it does not get its locks.
pub(super) async fn step(session: &mut Session, script: &str) -> Result<(), Error> {
    let patience = Patience::begin();
    loop {
        let outcome = async {
            let transaction = session.client().transaction().await?;
            transaction.batch_execute(script).await?;
            transaction.commit().await
        };
        match outcome.await {
            Err(error) if patience.has_room_for(&error) => patience.rest().await,
            done => return done,
        }
    }
}
