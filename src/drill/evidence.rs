//! Collects what a verdict needs: the logs of the probes, the tables, the ledger, what the nodes said, and an audit.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use super::clock::Chronicle;
use super::ledger;
use super::plan::Kind;
use super::server::Server;
use super::verdict::{Attempt, Evidence, Fault, Sighting};
use super::{DrillError, SCHEMA};
use crate::db::Link;

const ATTEMPTS: &str = "-- drill.attempts
    SELECT i.run_id, i.attempt, i.host, i.instance_id::text AS instance_id, i.status, i.cause, i.exit_code,
           i.containment LIKE '%cgroup%' AS has_freezer,
           c.id AS claim_id, extract(epoch FROM c.at)::float8 AS claimed_at,
           e.id AS end_id, extract(epoch FROM e.at)::float8 AS ended_at
      FROM systole.executor_instances i
      LEFT JOIN LATERAL (
          SELECT id, at FROM systole.run_events c
           WHERE c.run_id = i.run_id AND c.instance_id = i.instance_id AND c.kind IN ('claimed', 'readopted')
           ORDER BY id LIMIT 1) c ON true
      LEFT JOIN LATERAL (
          SELECT id, at FROM systole.run_events e
           WHERE e.run_id = i.run_id AND e.instance_id = i.instance_id
             AND e.kind IN ('completed', 'failed', 'timed_out', 'cancelled', 'released', 'crashed')
           ORDER BY id LIMIT 1) e ON true
     ORDER BY i.run_id, i.attempt";
const RUNS: &str = "-- drill.runs
    SELECT run_id, status FROM systole.runs";

/// By how much a standby that follows may be behind, on a busy machine.
const LAG: f64 = 1.0;

/// What was done in hours may take its time to be read.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a probe's processes have written.
#[derive(Debug, Default)]
struct Logs {
    sightings: Vec<Sighting>,
    /// Transfers whose commit was answered, and when.
    moved: Vec<(u64, Uuid)>,
}

/// How transfers fared.
#[derive(Debug)]
pub(super) struct Transfers {
    pub(super) count: usize,
    pub(super) lost_in_failovers: usize,
}

/// All but orphans and nodes that hang. With what the clock of the servers did, and what that of the faults' moments says at the boot
/// of this machine.
pub(super) async fn collect(
    server: &Server,
    probes: &Path,
    nodes: &[&Path],
    faults: Vec<Fault>,
    (chronicle, offset): (&Chronicle, f64),
) -> Result<(Evidence, Transfers), DrillError> {
    let mut link = Link::new(server.target.clone(), PATIENCE);
    let attempts = link.call(async |session| session.query(ATTEMPTS, &[]).await).await?;
    let runs = link.call(async |session| session.query(RUNS, &[]).await).await?;
    let closing = link.call(async |session| ledger::close(session).await).await?;
    let Logs { sightings, moved } =
        read_probes(probes).map_err(DrillError::at(format!("read {}", probes.display())))?;
    let missing = moved.iter().filter(|(_, transfer)| !closing.transfers.contains(transfer));
    let (excused, lost): (Vec<_>, Vec<_>) = missing.partition(|(nanos, _)| {
        let at = *nanos as f64 / 1e9 + offset;
        let failovers = faults.iter().filter(|fault| fault.kind == Kind::FailedOver);
        failovers.clone().any(|fault| fault.at - LAG <= at && at <= fault.until)
    });
    let transfers = Transfers { count: closing.transfers.len(), lost_in_failovers: excused.len() };
    let lost = lost.iter().map(|(_, transfer)| format!("transfer {transfer} was committed, and is not in the ledger"));
    let moment = |row: &Row, event_id: &str, at: &str| {
        let event_id: Option<i64> = row.get(event_id);
        Some(chronicle.real(event_id?, row.get(at)))
    };
    let evidence = Evidence {
        sightings,
        attempts: attempts
            .iter()
            .map(|row| Attempt {
                run_id: row.get("run_id"),
                attempt: row.get("attempt"),
                host: row.get("host"),
                instance_id: row.get("instance_id"),
                has_freezer: row.get("has_freezer"),
                status: row.get("status"),
                cause: row.get("cause"),
                exit_code: row.get("exit_code"),
                // Of who has no event of its claim nobody knows since when.
                claimed_at: moment(row, "claim_id", "claimed_at").unwrap_or(0.0),
                ended_at: moment(row, "end_id", "ended_at"),
            })
            .collect(),
        runs: runs.iter().map(|row| (row.get("run_id"), row.get("status"))).collect(),
        acknowledged: nodes.iter().flat_map(|log| acknowledged(&fs::read_to_string(log).unwrap_or_default())).collect(),
        ledger_errors: lost.chain(closing.errors).collect(),
        audit_violations: audit(server)?,
        faults,
        ..Evidence::default()
    };
    Ok((evidence, transfers))
}

fn read_probes(folder: &Path) -> std::io::Result<Logs> {
    let mut logs = Logs::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path())?;
        logs.moved.extend(text.lines().filter_map(|line| {
            let (nanos, transfer) = line.strip_prefix("M ")?.split_once(' ')?;
            Some((nanos.parse().ok()?, transfer.parse().ok()?))
        }));
        logs.sightings.extend(sighting(&name, &text));
    }
    Ok(logs)
}

/// From the file of one process: `RUN.FENCE.ROLE.START`. A last line that a kill cut short says nothing.
fn sighting(name: &str, text: &str) -> Option<Sighting> {
    let mut parts = name.split('.');
    let (run_id, fence, role) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?, parts.next()?.to_owned());
    let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let moments =
        whole.filter_map(|line| line.strip_prefix("T ").or_else(|| line.strip_prefix("E "))?.parse::<u64>().ok());
    let (first, last) = moments.fold((u64::MAX, 0), |(first, last), moment| (first.min(moment), last.max(moment)));
    (last > 0).then_some(Sighting { run_id, fence, role, first, last })
}

/// `systole: run "ID" attempt N: COMPLETED (exit code 0)` is said once the database has confirmed it.
fn acknowledged(log: &str) -> BTreeSet<(String, i32)> {
    let told = log.lines().filter_map(|line| {
        let (run_id, rest) = line.strip_prefix("systole: run \"")?.split_once("\" attempt ")?;
        let (attempt, rest) = rest.split_once(": ")?;
        rest.starts_with("COMPLETED").then_some((run_id.to_owned(), attempt.parse().ok()?))
    });
    told.collect()
}

/// What `systole audit` finds in the history, as anybody would ask it.
fn audit(server: &Server) -> Result<Vec<String>, DrillError> {
    let program = std::env::current_exe().map_err(DrillError::at("find this program"))?;
    let output = Command::new(program)
        .args(["audit", "--json", "--schema", SCHEMA, "--attempt-timeout", "5s"])
        .env("SYSTOLE_DATABASE_URL", &server.local_url)
        .stdin(Stdio::null())
        .output()
        .map_err(DrillError::at("run systole audit"))?;
    if output.status.code() == Some(0) {
        return Ok(Vec::new());
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let violations = report["violations"].as_array().cloned().unwrap_or_default();
    let mut told: Vec<String> =
        violations.iter().map(|one| format!("audit: {} {}", one["run_id"], one["message"])).collect();
    if told.is_empty() {
        told.push(format!("audit: {} {}", output.status, String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_a_kill_cut_short_is_read_as_far_as_it_goes() {
        let seen = sighting("d000001.2.straggle.77", "T 100\nM x\nT 250\nT 9999").unwrap();
        assert_eq!((seen.run_id.as_str(), seen.fence, seen.role.as_str()), ("d000001", 2, "straggle"));
        assert_eq!((seen.first, seen.last), (100, 250));
        assert!(sighting("d000001.2.work.77", "").is_none());
    }

    #[test]
    fn only_what_was_recorded_was_acknowledged() {
        let log = "ready: node\nsystole: run \"d1\" attempt 2: COMPLETED (exit code 0)\nsystole: run \"d2\" attempt 1: ended, \
                   which is not recorded yet\nsystole: run \"d3\" attempt 1: CRASHED (exit code 137)\n";
        assert_eq!(acknowledged(log), BTreeSet::from([("d1".to_owned(), 2)]));
    }
}
