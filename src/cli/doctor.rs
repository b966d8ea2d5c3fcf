//! `systole doctor`: what stands between this host and a safe run, each with its remedy.

use clap::Args;
use serde::Serialize;

mod host;
mod rights;
mod server;

use super::context;
use super::exit::{Failure, code};
use super::print;
use super::settings::Settings;
use crate::config::Config;
use crate::guard::containment::Shortcoming;
use crate::guard::{Guard, Outlet, Preparation};
use crate::ids::InstanceId;

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
    let mut checks = vec![timing(&config)];
    checks.extend(host::examine(&config));
    context::block_on(async {
        checks.extend(server::examine(&config).await);
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

/// Makes a containment as a run would, and lets go of it again.
async fn containment(config: &Config) -> Check {
    let wish = match config.containment() {
        Ok(wish) => wish,
        Err(error) => return Check::bad("containment", error.to_string(), "correct the value"),
    };
    let mut guard = match Guard::start(
        Preparation { instance_id: InstanceId::fresh(), wish, own_session: false },
        Outlet::ours(),
    ) {
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
