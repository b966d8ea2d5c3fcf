//! What PostgreSQL keeps of logs: the newest of each, and where the whole is.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use tokio_postgres::Error;
use tokio_postgres::types::Type;

use super::reader::tail_of;
use crate::db::{DbError, Link, Session};
use crate::ids::{Fence, InstanceId, RunId};

const PUT: &str = "-- output.put
    SELECT systole.put_output($1, $2, $3, $4, $5, $6, $7) AS taken";
const FENCES: &str = "-- output.fences
    SELECT instance_id, fence FROM systole.executor_instances WHERE instance_id = ANY ($1)";
const FIND: &str = "-- output.find
    SELECT i.instance_id, i.attempt, i.host, i.executor_id, i.status = 'RUNNING' AS is_running,
           extract(epoch FROM clock_timestamp() - i.ended_at)::float8 AS ended_seconds,
           o.bytes_total, o.bytes_lost, o.path, o.is_last, o.updated_at,
           extract(epoch FROM clock_timestamp() - o.updated_at)::float8 AS age_seconds
      FROM systole.executor_instances i
      LEFT JOIN systole.run_output o USING (instance_id)
     WHERE i.run_id = $1 AND ($2::integer IS NULL OR i.attempt = $2)
     ORDER BY i.attempt DESC LIMIT 1";
const TAIL: &str = "-- output.tail
    SELECT tail FROM systole.run_output WHERE instance_id = $1";

/// How many tails one statement carries: 2 MiB.
pub(crate) const BATCH_MAX: usize = 32;

/// A tail to be put.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) instance_id: InstanceId,
    pub(crate) fence: Fence,
    pub(crate) tail: Vec<u8>,
    pub(crate) bytes_total: u64,
    pub(crate) bytes_lost: u64,
    pub(crate) path: PathBuf,
    pub(crate) is_last: bool,
}

/// An attempt, and what PostgreSQL knows of its output.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) instance_id: InstanceId,
    pub(crate) attempt: i32,
    pub(crate) host: String,
    pub(crate) executor_id: String,
    pub(crate) is_running: bool,
    pub(crate) ended_seconds: Option<f64>,
    /// `None` if nothing was put.
    pub(crate) kept: Option<Kept>,
}

/// What is kept of an attempt's output, but for the output itself.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) bytes_total: i64,
    pub(crate) bytes_lost: i64,
    /// On its host.
    pub(crate) path: String,
    pub(crate) is_last: bool,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) age_seconds: f64,
}

/// Puts the newest of many logs; for those that may not any more, nothing happens.
pub(crate) async fn put(session: &Session, outputs: &[Output]) -> Result<(), Error> {
    let column = |number: fn(&Output) -> i64| outputs.iter().map(number).collect::<Vec<_>>();
    let ids: Vec<_> = outputs.iter().map(|output| output.instance_id.0).collect();
    let fences = column(|output| output.fence.0);
    let tails: Vec<&[u8]> = outputs.iter().map(|output| &output.tail[..]).collect();
    let totals = column(|output| i64::try_from(output.bytes_total).unwrap_or(i64::MAX));
    let lost = column(|output| i64::try_from(output.bytes_lost).unwrap_or(i64::MAX));
    let paths: Vec<_> = outputs.iter().map(|output| output.path.to_string_lossy()).collect();
    let paths: Vec<&str> = paths.iter().map(|path| &**path).collect();
    let last: Vec<bool> = outputs.iter().map(|output| output.is_last).collect();
    session
        .query(
            PUT,
            &[
                (&ids, Type::UUID_ARRAY),
                (&fences, Type::INT8_ARRAY),
                (&tails, Type::BYTEA_ARRAY),
                (&totals, Type::INT8_ARRAY),
                (&lost, Type::INT8_ARRAY),
                (&paths, Type::TEXT_ARRAY),
                (&last, Type::BOOL_ARRAY),
            ],
        )
        .await?;
    Ok(())
}

/// Puts the end of logs whose writers are dead, as it is found on the disk.
pub(crate) async fn put_last_words(link: &mut Link, logs: &[(InstanceId, PathBuf)]) -> Result<(), DbError> {
    for batch in logs.chunks(BATCH_MAX) {
        let paths = batch.to_vec();
        // The disk may take its time, and others must not wait for it.
        let read = tokio::task::spawn_blocking(move || {
            let read =
                |(id, path): (InstanceId, PathBuf)| tail_of(&path).ok().map(|(tail, total)| (id, path, tail, total));
            paths.into_iter().filter_map(read).collect::<Vec<_>>()
        });
        let found = read.await.expect("reading files does not panic");
        let ids: Vec<_> = found.iter().map(|(id, ..)| id.0).collect();
        let rows = link.call(async |session| session.query(FENCES, &[(&ids, Type::UUID_ARRAY)]).await).await?;
        let fence_of = |id: &InstanceId| rows.iter().find(|row| row.get::<_, uuid::Uuid>("instance_id") == id.0);
        let outputs =
            found.into_iter().filter(|(.., total)| *total > 0).filter_map(|(instance_id, path, tail, bytes_total)| {
                let fence = Fence(fence_of(&instance_id)?.get("fence"));
                Some(Output { instance_id, fence, tail, bytes_total, bytes_lost: 0, path, is_last: true })
            });
        let outputs: Vec<Output> = outputs.collect();
        if !outputs.is_empty() {
            link.call(async |session| put(session, &outputs).await).await?;
        }
    }
    Ok(())
}

/// An attempt of a run, or its newest; `None` if there is none.
pub(crate) async fn find(session: &Session, run_id: &RunId, attempt: Option<i32>) -> Result<Option<Attempt>, Error> {
    let rows = session.query(FIND, &[(&run_id.as_str(), Type::TEXT), (&attempt, Type::INT4)]).await?;
    let kept = |row: &tokio_postgres::Row| {
        Some(Kept {
            bytes_total: row.get::<_, Option<i64>>("bytes_total")?,
            bytes_lost: row.get("bytes_lost"),
            path: row.get("path"),
            is_last: row.get("is_last"),
            updated_at: row.get("updated_at"),
            age_seconds: row.get("age_seconds"),
        })
    };
    Ok(rows.first().map(|row| Attempt {
        instance_id: InstanceId(row.get("instance_id")),
        attempt: row.get("attempt"),
        host: row.get("host"),
        executor_id: row.get("executor_id"),
        is_running: row.get("is_running"),
        ended_seconds: row.get("ended_seconds"),
        kept: kept(row),
    }))
}

/// The newest of an attempt's output. Not everybody may read it.
pub(crate) async fn tail(session: &Session, instance_id: InstanceId) -> Result<Vec<u8>, Error> {
    let rows = session.query(TAIL, &[(&instance_id.0, Type::UUID)]).await?;
    Ok(rows.first().map(|row| row.get("tail")).unwrap_or_default())
}
