//! `systole drill`: break a throw-away fleet on purpose, and say whether the promises were kept.

use clap::Args;

use super::context;
use super::exit::{Failure, code};
use super::print;
use super::settings::Settings;
use crate::drill::{self, Delays, DrillError, LEDGER_SCHEMA, Order, Role, SCHEMA, Verdict};
use crate::elapsed::parse_duration;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How long faults are injected; starting and ending come on top
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    duration: String,
    /// Repeat the faults of an earlier drill of this version
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Leave systole.fence() out of the transfers: the drill must then fail, which proves that it sees
    #[arg(long)]
    without_fencing: bool,
    /// Agree that what --database-url names is thrown away: the schemas systole_drill and systole_drill_ledger in it
    #[arg(long)]
    throw_away: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ProbeArguments {
    role: Role,
}

/// Holds a drill and prints its verdict.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let usage = |message: String| Failure::new(code::USAGE, message);
    let duration = parse_duration(&arguments.duration).ok_or_else(|| {
        usage(format!("--duration is {:?}, but should be a duration such as 30s or 30m", arguments.duration))
    })?;
    // Only what was typed: a database in the environment is one that somebody works with.
    let database_url = settings.given().remove("database_url");
    if database_url.is_some() && !arguments.throw_away {
        return Err(usage(format!(
            "a drill in this database drops the schemas {SCHEMA} and {LEDGER_SCHEMA} there, with all that is in them. Say \
             --throw-away if that is meant, or leave --database-url out for a private PostgreSQL"
        )));
    }
    let seed = arguments.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let order = Order { duration, seed, is_fenced: !arguments.without_fencing, database_url };
    let verdict = context::block_on(async { Ok(drill::run(&order).await?) })?;
    if arguments.json {
        print::json(&verdict);
    } else {
        show(&verdict);
    }
    Ok(if verdict.clean { code::OK } else { code::FINDINGS })
}

/// Is the child of an executor.
pub(super) fn probe(arguments: &ProbeArguments) -> Result<u8, Failure> {
    context::block_on(async { Ok(drill::work_as_probe(arguments.role).await?) })?;
    Ok(code::OK)
}

/// Becomes a node that ends with its drill.
pub(super) fn node() -> Result<u8, Failure> {
    Err(Failure::new(code::BUG, format!("the node of a drill cannot be started: {}", drill::become_node())))
}

impl From<DrillError> for Failure {
    fn from(error: DrillError) -> Failure {
        match error {
            DrillError::Db(error) => error.into(),
            DrillError::Migrate(error) => error.into(),
            DrillError::Embedded(error) => error.into(),
            DrillError::Target(error) => error.into(),
            other @ (DrillError::Machine { .. } | DrillError::Fleet(_)) => Failure::new(code::BUG, other),
        }
    }
}

fn show(verdict: &Verdict) {
    let Verdict { violations, handover, .. } = verdict;
    for sentence in &verdict.told {
        print::text(&print::plain(&format!("VIOLATION {sentence}")));
    }
    let kinds = verdict.faults.iter().map(|(kind, times)| vec![kind.clone(), times.to_string(), String::new()]);
    let others = verdict
        .not_injected
        .iter()
        .map(|(kind, why)| vec![kind.clone(), "-".to_owned(), format!("not injected: {why}")]);
    print::table(&["FAULT", "TIMES", ""], kinds.chain(others).collect(), "");
    let counts = [
        ("overlaps", violations.overlaps),
        ("orphans", violations.orphans),
        ("ledger errors", violations.ledger_errors),
        ("false takeovers", violations.false_takeovers),
        ("lost completions", violations.lost_completions),
        ("unexplained repeats", violations.unexplained_repeats),
        ("unfinished runs", violations.unfinished_runs),
        ("audit violations", violations.audit_violations),
    ];
    print::text("");
    print::table(
        &["BROKEN PROMISES", ""],
        counts.iter().map(|(name, times)| vec![(*name).to_owned(), times.to_string()]).collect(),
        "",
    );
    print::text("");
    let delays = [
        ("by a certificate", &handover.certified),
        ("by silence", &handover.silent),
        ("while the database was away", &handover.without_database),
    ];
    let headers = ["HAND-OVER", "COUNT", "P50", "P99", "MAX", "LIMIT OF P99"];
    print::table(&headers, delays.iter().map(|(name, delays)| row(name, delays)).collect(), "");
    print::text("");
    print::text(&format!(
        "{} faults in {:.0} s ({} found nothing to strike), {} runs, {} attempts, {} transfers, {} late writes refused{}",
        verdict.faults_total,
        verdict.duration_seconds,
        verdict.missed,
        verdict.runs,
        verdict.attempts,
        verdict.transfers,
        verdict.late_writes_refused,
        if verdict.is_cut_short { "; cut short by a signal" } else { "" }
    ));
    if verdict.transfers_lost_in_failovers > 0 {
        print::text(&format!(
            "{} transfers were committed just before a failover, and got lost in it, as commits do without a synchronous standby",
            verdict.transfers_lost_in_failovers
        ));
    }
    if let Some(ratio) = verdict.hot_ratio {
        print::text(&format!("{:.1} % of heartbeats were HOT updates", ratio * 100.0));
    }
    if let Some(folder) = &verdict.folder {
        print::text(&format!("all logs are kept in {folder}"));
    }
    let fencing = if verdict.is_fenced { "" } else { " --without-fencing" };
    print::text(&format!("again: systole drill --seed {}{fencing}", verdict.seed));
    print::text(match (verdict.clean, verdict.is_fenced) {
        (true, true) => "every promise was kept",
        (true, false) => "nothing was seen, although transfers were not fenced: a longer drill would see it",
        (false, _) => "promises were broken",
    });
}

fn row(name: &str, delays: &Delays) -> Vec<String> {
    let seconds = |seconds: f64| if delays.count > 0 { format!("{seconds:.2} s") } else { "-".to_owned() };
    let limit = delays
        .limit
        .map_or_else(String::new, |limit| format!("{limit:.1} s{}", if delays.is_slow() { ", exceeded" } else { "" }));
    let count = delays.count.to_string();
    vec![name.to_owned(), count, seconds(delays.p50), seconds(delays.p99), seconds(delays.max), limit]
}
