//! Behind a failover of the database: what it has forgotten is told again by whoever holds it, and until all can have done
//! so nothing is granted anew.

use chrono::{DateTime, Utc};
use tokio_postgres::Error;
use tokio_postgres::types::Type;

use super::store::only_row;
use crate::db::{DbError, Link, Session};
use crate::tenure::{Executor, History, Tenure};

const QUARANTINED_UNTIL: &str = "-- failover.quarantined_until
    SELECT systole.quarantined_until()";
const READOPT: &str = "-- failover.readopt
    SELECT verdict FROM systole.readopt($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";

/// Takes up again what a failover has forgotten; false if it has not, and the tenure is over.
///
/// `history`: in which it was known last.
pub(super) async fn is_readopted(link: &mut Link, tenure: &Tenure, history: Option<History>) -> Result<bool, DbError> {
    link.call(async |session| readopt(session, tenure, history).await).await
}

/// Until when nothing is granted anew behind a failover.
pub(super) async fn quarantined_until(session: &Session) -> Result<Option<DateTime<Utc>>, Error> {
    let rows = session.query(QUARANTINED_UNTIL, &[]).await?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

/// Takes a tenure up again that a failover has forgotten; false if it is over, or another one came later.
async fn readopt(session: &Session, tenure: &Tenure, history: Option<History>) -> Result<bool, Error> {
    let Executor { identity, stale_after, containment, death_secret_hash } = &tenure.executor;
    let hash = death_secret_hash.as_ref().map(<[u8; 32]>::as_slice);
    let row = only_row(
        session,
        READOPT,
        &[
            (&tenure.run_id.as_str(), Type::TEXT),
            (&tenure.instance_id.0, Type::UUID),
            (&tenure.fence.0, Type::INT8),
            (&tenure.attempt, Type::INT4),
            (&identity.executor_id, Type::TEXT),
            (&identity.host, Type::TEXT),
            (&identity.pid, Type::INT4),
            (&identity.boot_id, Type::TEXT),
            (&identity.pid_namespace, Type::TEXT),
            (&identity.process_started, Type::INT8),
            (containment, Type::TEXT),
            (&(stale_after.as_millis() as i64), Type::INT8),
            (&hash, Type::BYTEA),
            (&tenure.purpose, Type::TEXT),
            (&history.map(|history| history.to_string()), Type::TEXT),
        ],
    )
    .await?;
    Ok(row.get::<_, &str>("verdict") == "ok")
}
