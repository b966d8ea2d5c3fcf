//! The whole history, read a page at a time: a fleet's may have tens of millions of events, and nobody's heartbeats are to
//! suffer from a snapshot that is held for as long as reading them takes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row};

use super::audit::{self, Evidence};
use super::store;
use crate::db::Session;

/// So many rows at a time; each page has to be read within `attempt_timeout`, also from a slow disk.
const RUNS_MAX: i32 = 500;
const EVENTS_MAX: i64 = 1000;

const BEGIN: &str = "-- audit.begin
    SELECT clock_timestamp() - make_interval(secs => $1) AS at";
// By skipping from name to name in both indexes, so that neither what has no events nor what has no row is overlooked.
const RUNS: &str = "-- audit.runs
    WITH RECURSIVE page AS (
        SELECT 0 AS n, $1::text COLLATE \"C\" AS run_id
        UNION ALL
        SELECT p.n + 1, least((SELECT min(e.run_id) FROM systole.run_events e WHERE e.run_id > p.run_id),
                              (SELECT min(r.run_id) FROM systole.runs r WHERE r.run_id > p.run_id))
          FROM page p WHERE p.n < $2 AND p.run_id IS NOT NULL
    )
    SELECT p.run_id, last.at AS last_event_at,
           greatest((SELECT r.attempt FROM systole.runs r WHERE r.run_id = p.run_id),
                    (SELECT max(i.attempt) FROM systole.executor_instances i WHERE i.run_id = p.run_id)) AS attempt
      FROM page p
      LEFT JOIN LATERAL (SELECT e.at FROM systole.run_events e WHERE e.run_id = p.run_id
                          ORDER BY e.id DESC LIMIT 1) last ON true
     WHERE p.n > 0 AND p.run_id IS NOT NULL
     ORDER BY p.n";
// Each event with what the tables say of it in the same snapshot.
const EVENTS: &str = "-- audit.events
    SELECT e.id, e.at, e.run_id, e.kind, e.instance_id, e.executor_id, e.fence, e.detail, run.run_attempt,
           i.attempt AS row_attempt, i.fence AS row_fence, i.status AS row_status, i.bars_successor AS row_bars_successor,
           CASE WHEN e.kind = 'unbarred'
                THEN extract(epoch FROM e.at - i.last_heartbeat - i.stale_after)::float8 END AS row_margin_seconds
      FROM (SELECT * FROM systole.run_events
             WHERE (run_id, id) > ($1, $2) AND run_id <= $3 ORDER BY run_id, id LIMIT $4) e
      LEFT JOIN LATERAL (SELECT greatest(r.attempt, (SELECT max(o.attempt) FROM systole.executor_instances o
                                                      WHERE o.run_id = r.run_id)) AS run_attempt
                           FROM systole.runs r WHERE r.run_id = e.run_id OFFSET 0) run ON true
      LEFT JOIN LATERAL (SELECT * FROM systole.executor_instances o
                          WHERE o.instance_id = e.instance_id AND o.run_id = e.run_id OFFSET 0) i ON true
     ORDER BY e.run_id, e.id";

/// A run of which there is anything.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) run_id: String,
    /// `None` if it has no events at all.
    pub(crate) last_event_at: Option<DateTime<Utc>>,
    /// How many attempts the tables know.
    pub(crate) attempt: i32,
}

/// Some events, in order of run and id.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) evidence: Vec<Evidence>,
    /// Whether there was no room for more, so that more is to be asked for.
    pub(crate) is_full: bool,
}

/// The moment this long ago, by the database's clock.
pub(crate) async fn moment(session: &Session, ago: Duration) -> Result<DateTime<Utc>, Error> {
    let rows = session.query(BEGIN, &[(&ago.as_secs_f64(), Type::FLOAT8)]).await?;
    Ok(rows.first().expect("without FROM there is one row").get("at"))
}

/// Some of the runs behind this one, in their order; none if there are no more.
pub(crate) async fn runs(session: &Session, after: &str) -> Result<Vec<Named>, Error> {
    let rows = session.query(RUNS, &[(&after, Type::TEXT), (&RUNS_MAX, Type::INT4)]).await?;
    let named = rows.iter().map(|row| Named {
        run_id: row.get("run_id"),
        last_event_at: row.get("last_event_at"),
        attempt: row.get::<_, Option<i32>>("attempt").unwrap_or(0),
    });
    Ok(named.collect())
}

/// What comes behind this event of this run, up to the end of the last run.
pub(crate) async fn events(session: &Session, behind: (&str, i64), last: &str) -> Result<Page, Error> {
    let parameters: &[(&(dyn ToSql + Sync), Type)] =
        &[(&behind.0, Type::TEXT), (&behind.1, Type::INT8), (&last, Type::TEXT), (&EVENTS_MAX, Type::INT8)];
    let rows = session.query(EVENTS, parameters).await?;
    Ok(Page { is_full: rows.len() as i64 == EVENTS_MAX, evidence: rows.iter().map(evidence).collect() })
}

fn evidence(row: &Row) -> Evidence {
    Evidence {
        event: store::event(row),
        run_attempt: row.get("run_attempt"),
        row: row.get::<_, Option<i32>>("row_attempt").map(|attempt| audit::Row {
            attempt,
            fence: row.get("row_fence"),
            status: row.get("row_status"),
            bars_successor: row.get("row_bars_successor"),
            margin_seconds: row.get("row_margin_seconds"),
        }),
    }
}
