//! What of the database a run depends on, from the way to it to the transactions that hold vacuum back.

use std::time::{Duration, Instant as StdInstant};

use chrono::{DateTime, Utc};
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};

use super::{Check, rights};
use crate::cli::exit::Failure;
use crate::cli::{context, print};
use crate::config::Config;
use crate::db::{DbError, Link, MigrateOptions, Session, Target, migrate};

const SERVER: &str = "-- doctor.server
    SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_number,
           current_user::text AS role, pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS read_only,
           systole.rw_since() AS rw_since, s.lossless_failover,
           CASE WHEN s.quarantined_until > clock_timestamp() THEN s.quarantined_until END AS quarantined_until, clock_timestamp() AS at,
           has_table_privilege('systole.runs', 'INSERT, UPDATE, DELETE') AS may_write, o.rolsuper AS owner_is_super,
           pg_has_role(o.oid, 'pg_signal_backend', 'USAGE') AS owner_may_signal, o.rolname::text AS owner,
           current_setting('synchronous_standby_names') <> '' AS synchronous,
           current_setting('fsync')::bool AND current_setting('full_page_writes')::bool AS durable,
           current_setting('statement_timeout') AS statement_timeout,
           current_setting('idle_in_transaction_session_timeout') AS idle_timeout
      FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner CROSS JOIN systole.settings s WHERE n.nspname = $1";

/// Whoever may not see the sessions of others sees only how many there are.
const LOAD: &str = "-- doctor.load
    SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
           current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint AS most,
           u.n_tup_upd AS updates, u.n_tup_hot_upd AS hot, o.pid, o.who, o.seconds
      FROM pg_stat_user_tables u
      LEFT JOIN LATERAL (
          SELECT a.pid, format('%s, %s', a.usename, nullif(a.application_name, '')) AS who,
                 extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
            FROM pg_stat_activity a
           WHERE a.datname = current_database() AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
             AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
           ORDER BY a.xact_start LIMIT 1) o ON true
     WHERE u.schemaname = $1 AND u.relname = 'executor_instances'";

/// Beyond this, people reading two logs side by side are misled. No decision of ours depends on it.
const CLOCK_OFFSET_MAX: Duration = Duration::from_secs(1);

/// A transaction open for longer keeps so many dead heartbeats that they no longer fit on their pages.
const TRANSACTION_SECONDS_MAX: f64 = 600.0;

/// Fewer updates say nothing about their share of HOT ones.
const UPDATES_MIN: i64 = 1000;

pub(super) async fn examine(config: &Config) -> Vec<Check> {
    let target = match context::named_target(config) {
        Ok(target) => target,
        Err(Failure { message, .. }) => return vec![Check::bad("database", message, "see there")],
    };
    let mut checks = Vec::new();
    for warning in target.warnings() {
        let remedy = "leave sslmode out, or make it verify-full; sslrootcert names a CA of your own";
        checks.push(Check::bad("transport", warning, remedy));
    }
    let attempt_timeout = config.timing().map_or(Duration::from_secs(4), |timing| timing.attempt_timeout);
    let mut link = Link::new(target.clone(), attempt_timeout);
    let started = StdInstant::now();
    if let Err(error) = link.hello().await {
        let remedy = match &error {
            DbError::Denied { .. } => {
                let (schema, login) = (target.schema(), target.user());
                format!("systole migrate --roles, then: GRANT {schema}_worker TO {login};")
            }
            _ => "systole cannot work before this is mended".to_owned(),
        };
        checks.push(Check::bad("database", error.to_string(), remedy));
        return checks;
    }
    let answers = format!("{} answers, {} ms to connect", target.describe(), started.elapsed().as_millis());
    checks.push(Check::good("database", answers));
    checks.extend(link.call(async |session| server(session, &target).await).await.unwrap_or_else(|error| {
        vec![Check::bad("database", error.to_string(), "systole migrate --roles gives each role its rights")]
    }));
    checks.push(schema(&target).await);
    checks
}

async fn server(session: &Session, target: &Target) -> Result<Vec<Check>, Error> {
    let schema = target.schema().as_str();
    // The first answer warms the connection up; only the second one's round trip bounds the clock's offset well.
    session.query(SERVER, &[(&schema, Type::TEXT)]).await?;
    let before = Utc::now();
    let rows = session.query(SERVER, &[(&schema, Type::TEXT)]).await?;
    let after = Utc::now();
    let Some(row) = rows.first() else {
        return Ok(vec![Check::bad("schema", format!("there is no schema {schema}"), "run systole migrate")]);
    };
    let version: String = row.get("version");
    let mut checks = vec![if row.get::<_, i32>("version_number") >= 130_000 {
        Check::good("version", format!("PostgreSQL {version}"))
    } else {
        Check::bad("version", format!("PostgreSQL {version}"), "use PostgreSQL 13 or newer")
    }];
    checks.push(if row.get("read_only") {
        Check::bad("writable", "this server only reads: a standby?", "point the URL at the primary")
    } else {
        Check::good("writable", "this server accepts writes")
    });
    checks.push(way(session, target, row));
    checks.push(rights::examine(session, row, schema).await?);
    checks.push(rw_since(row));
    checks.push(durability(row));
    checks.push(history(session, row));
    checks.push(clock(before, row.get("at"), after));
    let load = session.query(LOAD, &[(&schema, Type::TEXT)]).await?;
    checks.extend(load.first().into_iter().flat_map(|row| [connections(row), vacuum(row)]));
    Ok(checks)
}

/// Whether the session is our own, and if not, whether somebody else bounds what happens in it.
fn way(session: &Session, target: &Target, row: &Row) -> Check {
    if !session.is_pooled() {
        return Check::good("way", "no pooler in between: stops and ends are heard at once");
    }
    let heard = if target.has_direct() { "by the direct URL" } else { "with the next heartbeat (no --direct-url)" };
    let unbounded = ["statement_timeout", "idle_timeout"].iter().any(|name| row.get::<_, &str>(name) == "0");
    if unbounded {
        let role: &str = row.get("role");
        return Check::bad(
            "way",
            "a pooler in between, and an abandoned statement or transaction in its sessions is ended by nobody",
            format!(
                "ALTER ROLE {role} SET statement_timeout = '15s'; \
                 ALTER ROLE {role} SET idle_in_transaction_session_timeout = '15s';"
            ),
        );
    }
    Check::good("way", format!("a pooler in between: stops and ends are heard {heard}"))
}

fn rw_since(row: &Row) -> Check {
    let owner: &str = row.get("owner");
    match row.get::<_, Option<DateTime<Utc>>>("rw_since") {
        Some(since) if since > row.get::<_, DateTime<Utc>>("at") => Check::bad(
            "rw_since",
            format!(
                "the database's clock was ahead when it began to accept writes, at {}: nobody is taken over by age before then",
                print::moment(since)
            ),
            "restart PostgreSQL, now that its clock has been set back",
        ),
        Some(since) => {
            Check::good("rw_since", format!("the server has accepted writes since {}", print::moment(since)))
        }
        None => Check::bad(
            "rw_since",
            "it cannot be told since when the server accepts writes, so nobody is ever taken over by age",
            format!("as a superuser: GRANT pg_read_all_stats TO {owner};"),
        ),
    }
}

fn durability(row: &Row) -> Check {
    if row.get("durable") {
        let standbys = if row.get("synchronous") { ", with synchronous standbys" } else { "" };
        Check::good("durability", format!("fsync and full_page_writes are on{standbys}"))
    } else {
        Check::bad(
            "durability",
            "fsync or full_page_writes is off: a crash of the host may forget who held what",
            "turn both on",
        )
    }
}

fn history(session: &Session, row: &Row) -> Check {
    let Some(history) = session.history() else {
        if row.get("read_only") {
            return Check::good("history", "a standby continues none of its own");
        }
        let remedy = "fail over only to servers that have all commits, or stop all executors before";
        return Check::bad("history", "this server does not tell its timeline: no failover is recognised", remedy);
    };
    let until: Option<DateTime<Utc>> = row.get("quarantined_until");
    let lossless: bool = row.get("lossless_failover");
    if let Some(until) = until {
        let found = format!("{history} began with a failover: nothing is granted anew until {}", print::moment(until));
        return Check::bad("history", found, "wait; docs/postgres.md says when it may be ended by hand");
    }
    if lossless && !row.get::<_, bool>("synchronous") {
        let found = format!("{history}; failovers are declared lossless, and synchronous_standby_names is empty");
        let remedy = "name the standbys, or: UPDATE systole.settings SET lossless_failover = false;";
        return Check::bad("history", found, remedy);
    }
    let behind = if lossless { "nobody waits behind a failover" } else { "a failover will be waited out" };
    Check::good("history", format!("{history}; {behind}"))
}

fn clock(before: DateTime<Utc>, at: DateTime<Utc>, after: DateTime<Utc>) -> Check {
    let middle = before + (after - before) / 2;
    let offset = middle - at;
    let found = format!(
        "this host's clock is {:+.3} s from the database's (within {:.3} s)",
        offset.as_seconds_f64(),
        (after - before).as_seconds_f64() / 2.0
    );
    if offset.abs().to_std().is_ok_and(|offset| offset <= CLOCK_OFFSET_MAX) {
        Check::good("clock", found)
    } else {
        Check::bad("clock", found, "nothing here depends on it, but people who compare logs do: run chrony")
    }
}

fn connections(row: &Row) -> Check {
    let (used, most): (i64, i64) = (row.get("connections"), row.get("most"));
    let found = format!("{used} of {most} connections are in use");
    if used * 10 > most * 9 {
        let remedy = "raise max_connections, or put pgbouncer in between: an executor needs one for as long as it runs";
        Check::bad("connections", found, remedy)
    } else {
        Check::good("connections", found)
    }
}

/// Heartbeats are HOT updates as long as vacuum can clean up behind them.
fn vacuum(row: &Row) -> Check {
    let (updates, hot): (i64, i64) = (row.get("updates"), row.get("hot"));
    if let (Some(seconds), Some(pid)) = (row.get::<_, Option<f64>>("seconds"), row.get::<_, Option<i32>>("pid"))
        && seconds > TRANSACTION_SECONDS_MAX
    {
        let who = row.get::<_, Option<&str>>("who").unwrap_or_default();
        let found = format!(
            "a transaction of backend {pid} ({}) has been open for {:.0} min: dead heartbeats pile up behind it",
            print::plain(who),
            seconds / 60.0
        );
        return Check::bad("vacuum", found, format!("end it, or: SELECT pg_terminate_backend({pid});"));
    }
    let share = 100.0 * hot as f64 / updates.max(1) as f64;
    if updates < UPDATES_MIN {
        return Check::good("vacuum", "no transaction holds vacuum back");
    }
    let found = format!("{share:.1} % of the heartbeats were HOT updates");
    if share < 90.0 {
        let remedy = "look for old transactions and replication slots, and whether somebody has indexed last_heartbeat";
        return Check::bad("vacuum", found, remedy);
    }
    Check::good("vacuum", format!("{found}, and no transaction holds vacuum back"))
}

/// Whether an upgrade was forgotten. Without a session of its own, nobody can tell.
async fn schema(target: &Target) -> Check {
    let options = MigrateOptions { dry_run: true, ..MigrateOptions::default() };
    match migrate(target, &options).await {
        Ok(would) if would.applied.is_empty() && would.functions_differed => Check::bad(
            "schema",
            format!("the functions of schema {} have this version's number, but are another build's", target.schema()),
            "systole migrate, with the build that they are to be of",
        ),
        Ok(would) if would.applied.is_empty() && !would.functions_installed => {
            Check::good("schema", format!("schema {} is up to date", target.schema()))
        }
        Ok(would) => {
            let what = if would.applied.is_empty() { "its functions".to_owned() } else { would.applied.join(", ") };
            Check::bad(
                "schema",
                format!("schema {} lacks what this version brings: {what}", target.schema()),
                "systole migrate",
            )
        }
        Err(crate::db::MigrateError::Pooled(_)) => {
            Check::good("schema", format!("schema {} serves this version (no direct URL to see more)", target.schema()))
        }
        Err(error) => Check::bad("schema", error.to_string(), "see there"),
    }
}
