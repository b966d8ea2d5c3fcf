//! `systole doctor`: what stands between this host and a safe run, each with its remedy.

use std::time::{Duration, Instant as StdInstant};

use clap::Args;
use serde::Serialize;
use tokio_postgres::Client;

use super::context;
use super::exit::{Failure, code};
use super::print;
use super::settings::Settings;
use crate::config::Config;
use crate::db::Link;
use crate::guard::containment::Shortcoming;
use crate::guard::{Guard, Preparation};
use crate::ids::InstanceId;
use crate::state_dir::StateDir;

const SERVER: &str = "-- doctor.server
    SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS version_number,
           current_user::text AS role, pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS read_only,
           systole.rw_since() AS rw_since, clock_timestamp() AS at,
           has_function_privilege('systole.beat(uuid[],bigint[],integer[])', 'EXECUTE') AS may_work,
           pg_has_role(o.oid, 'pg_signal_backend', 'USAGE') AS owner_may_signal, o.rolname::text AS owner,
           current_setting('synchronous_standby_names') <> '' AS synchronous,
           current_setting('fsync')::bool AND current_setting('full_page_writes')::bool AS durable
      FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner WHERE n.nspname = 'systole'";

/// Beyond this, people reading two logs side by side are misled. No decision of ours depends on it.
const CLOCK_OFFSET_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One thing looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    #[serde(flatten)]
    containment: Option<Contained>,
}

/// What holds a tree together here.
#[derive(Debug, Serialize)]
struct Contained {
    level: String,
    freezer: bool,
    /// Why nothing stronger could be had.
    shortcomings: Vec<Shortcoming>,
    not_covered: &'static str,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, ok: true, found: found.into(), remedy: None, containment: None }
    }

    fn bad(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { name, ok: false, found: found.into(), remedy: Some(remedy.into()), containment: None }
    }
}

#[derive(Debug, Serialize)]
struct Value {
    key: &'static str,
    value: String,
    source: String,
}

/// Looks at everything, prints it, and exits 1 if anything wants mending.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let config = context::config(settings)?;
    let mut checks = vec![timing(&config), state(&config)];
    context::block_on(async {
        checks.extend(database(&config).await);
        checks.push(containment(&config).await);
        Ok(())
    })?;
    let values: Vec<Value> =
        config.explain().into_iter().map(|(key, value, source)| Value { key, value, source }).collect();
    let healthy = checks.iter().all(|check| check.ok);
    if arguments.json {
        print::json(&serde_json::json!({ "ok": healthy, "checks": checks, "configuration": values }));
    } else {
        for check in &checks {
            print::text(&format!("{}  {:<12} {}", if check.ok { "ok  " } else { "MEND" }, check.name, check.found));
            if let Some(contained) = &check.containment {
                print::text(&format!("                   not covered: {}", contained.not_covered));
            }
            if let Some(remedy) = &check.remedy {
                print::text(&format!("                   -> {remedy}"));
            }
        }
        print::text("");
        let rows = values.into_iter().map(|value| vec![value.key.to_owned(), value.value, value.source]).collect();
        print::table(&["KEY", "VALUE", "FROM"], rows, "");
    }
    Ok(if healthy { code::OK } else { code::FINDINGS })
}

fn timing(config: &Config) -> Check {
    match config.timing() {
        Ok(timing) => {
            let left = (timing.fence_after + timing.kill_grace).as_secs_f64() * 1.1 + 0.5;
            let right = timing.stale_after.as_secs_f64() * 0.9;
            Check::good(
                "timing",
                format!(
                    "(fence_after {} + kill_grace {}) x 1.1 + 0.5s = {left:.1}s <= stale_after {} x 0.9 = {right:.1}s",
                    humantime::format_duration(timing.fence_after),
                    humantime::format_duration(timing.kill_grace),
                    humantime::format_duration(timing.stale_after),
                ),
            )
        }
        Err(error) => Check::bad(
            "timing",
            error.to_string(),
            "change one of the values named; the table below shows where each comes from",
        ),
    }
}

fn state(config: &Config) -> Check {
    let path = config.state_dir();
    match StateDir::open(&path) {
        Ok(state) => Check::good("state", format!("{} is private and writable", state.root().display())),
        Err(error) => Check::bad("state", error.to_string(), "see there"),
    }
}

async fn database(config: &Config) -> Vec<Check> {
    let target = match context::target(config).await {
        Ok(target) => target,
        Err(Failure { message, .. }) => return vec![Check::bad("database", message, "see there")],
    };
    let mut link =
        Link::new(target.clone(), config.timing().map_or(Duration::from_secs(4), |timing| timing.attempt_timeout));
    let started = StdInstant::now();
    if let Err(error) = link.hello().await {
        return vec![Check::bad("database", error.to_string(), "systole cannot work before this is mended")];
    }
    let dialled = started.elapsed();
    match link.call(server).await {
        Ok(mut checks) => {
            checks.insert(
                0,
                Check::good(
                    "database",
                    format!("{} answers, {} ms to connect", target.describe(), dialled.as_millis()),
                ),
            );
            checks
        }
        Err(error) => vec![Check::bad("database", error.to_string(), "run systole migrate")],
    }
}

async fn server(client: &Client) -> Result<Vec<Check>, tokio_postgres::Error> {
    // The first answer warms the connection up; only the second one's round trip bounds the clock's offset well.
    client.query_typed(SERVER, &[]).await?;
    let before = chrono::Utc::now();
    let rows = client.query_typed(SERVER, &[]).await?;
    let after = chrono::Utc::now();
    let Some(row) = rows.first() else {
        return Ok(vec![Check::bad("schema", "there is no schema systole", "run systole migrate")]);
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
    let (role, owner): (String, String) = (row.get("role"), row.get("owner"));
    checks.push(match (row.get::<_, bool>("may_work"), row.get::<_, bool>("owner_may_signal")) {
        (false, _) => Check::bad(
            "roles",
            format!("role {role} may not call the functions of schema systole"),
            format!("as {owner}: GRANT USAGE ON SCHEMA systole TO {role}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA systole TO {role};"),
        ),
        (true, false) => Check::bad(
            "roles",
            format!("role {role} may work; owner {owner} may not end a transaction that keeps a dead executor's run locked"),
            format!("as a superuser: GRANT pg_signal_backend TO {owner};"),
        ),
        (true, true) => Check::good("roles", format!("role {role} may work, owner {owner} may end blocking transactions")),
    });
    checks.push(match row.get::<_, Option<chrono::DateTime<chrono::Utc>>>("rw_since") {
        Some(since) => {
            Check::good("rw_since", format!("the server has accepted writes since {}", print::moment(since)))
        }
        None => Check::bad(
            "rw_since",
            "it cannot be told since when the server accepts writes, so nobody is ever taken over by age",
            format!("as a superuser: GRANT pg_read_all_stats TO {owner};"),
        ),
    });
    checks.push(if row.get("durable") {
        let standbys = if row.get("synchronous") { ", with synchronous standbys" } else { "" };
        Check::good("durability", format!("fsync and full_page_writes are on{standbys}"))
    } else {
        Check::bad(
            "durability",
            "fsync or full_page_writes is off: a crash of the host may forget who held what",
            "turn both on",
        )
    });
    checks.push(clock(before, row.get("at"), after));
    Ok(checks)
}

fn clock(
    before: chrono::DateTime<chrono::Utc>,
    at: chrono::DateTime<chrono::Utc>,
    after: chrono::DateTime<chrono::Utc>,
) -> Check {
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

/// Makes a containment as a run would, and lets go of it again.
async fn containment(config: &Config) -> Check {
    let wish = match config.containment() {
        Ok(wish) => wish,
        Err(error) => return Check::bad("containment", error.to_string(), "correct the value"),
    };
    let mut guard = match Guard::start(Preparation { instance_id: InstanceId::fresh(), wish }) {
        Ok(guard) => guard,
        Err(error) => return Check::bad("containment", error.to_string(), "see there"),
    };
    let ready = guard.ready().await;
    guard.dismiss().await;
    let secured = match ready {
        Ok(secured) => secured,
        Err(error) => return Check::bad("containment", error.to_string(), "see there"),
    };
    let contained = Contained {
        level: secured.label(),
        freezer: secured.freezer,
        not_covered: secured.not_covered(),
        shortcomings: secured.shortcomings,
    };
    let check = judged(&contained);
    Check { containment: Some(contained), ..check }
}

fn judged(contained: &Contained) -> Check {
    let part = |part: fn(&Shortcoming) -> &str, separator: &str| {
        let mut parts: Vec<&str> = contained.shortcomings.iter().map(part).collect();
        parts.dedup();
        parts.join(separator)
    };
    let why = match part(|shortcoming| &shortcoming.reason, "; ") {
        why if why.is_empty() => why,
        why => format!(" ({why})"),
    };
    let level = &contained.level;
    if contained.freezer {
        return Check::good("containment", format!("{level} with a freezer{why}"));
    }
    Check::bad(
        "containment",
        format!(
            "{level} without a freezer{why}: when PostgreSQL is away for longer than about stale_after, commands are killed"
        ),
        part(|shortcoming| &shortcoming.remedy, "; or "),
    )
}
