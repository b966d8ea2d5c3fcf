//! Whether the promises were kept: logs, rows and faults in, counts and sentences out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::TIMING;
use super::plan::Kind;

mod handover;
#[cfg(test)]
mod tests;

pub(crate) use handover::{Delays, Handover};

/// How long after a fault its consequences may come: silence is noticed after stale_after, by a sweep each second, and
/// what it holds up beyond that is told by the hand-over.
const AFTERMATH: f64 = 3.0;

/// For events that are a fault's own doing, and seen a moment before it was written down.
const SLACK: f64 = 0.2;

/// Each kind of violation is described so many times.
const TOLD_MAX: usize = 5;

/// When a process of an attempt was alive, by CLOCK_BOOTTIME in nanoseconds.
#[derive(Debug, Clone)]
pub(super) struct Sighting {
    pub(super) run_id: String,
    /// Of its attempt: behind a failover that loses commits, two may have the same number.
    pub(super) fence: i64,
    /// `work` or `straggle`.
    pub(super) role: String,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// An attempt, as the tables know it. Moments are seconds of the database's clock.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) run_id: String,
    pub(super) attempt: i32,
    pub(super) host: String,
    pub(super) instance_id: String,
    /// Whether its tree could be frozen for as long as its database was away.
    pub(super) has_freezer: bool,
    pub(super) status: String,
    pub(super) cause: Option<String>,
    pub(super) exit_code: Option<i32>,
    /// When it was claimed.
    pub(super) claimed_at: f64,
    pub(super) ended_at: Option<f64>,
}

/// A fault, as it was injected. Moments as above.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    /// `None` for those of the database.
    pub(super) host: Option<String>,
    /// Where one attempt alone was struck.
    pub(super) instance_id: Option<String>,
    pub(super) at: f64,
    pub(super) until: f64,
}

/// What there is to judge by.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) sightings: Vec<Sighting>,
    pub(super) attempts: Vec<Attempt>,
    /// Each run with its status.
    pub(super) runs: BTreeMap<String, String>,
    pub(super) faults: Vec<Fault>,
    /// Attempts whose completion their node was told to be recorded.
    pub(super) acknowledged: BTreeSet<(String, i32)>,
    /// Whoever was alive when nobody should have been.
    pub(super) orphans: Vec<String>,
    pub(super) ledger_errors: Vec<String>,
    pub(super) audit_violations: Vec<String>,
    pub(super) stuck_nodes: Vec<String>,
}

/// How often each promise was broken.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Violations {
    /// Two attempts of one run were at work at once.
    pub(crate) overlaps: usize,
    /// Processes that outlived their attempt.
    pub(crate) orphans: usize,
    /// Money that was lost, made, or moved in the name of a superseded attempt.
    pub(crate) ledger_errors: usize,
    /// An executor was declared dead without a reason.
    pub(crate) false_takeovers: usize,
    /// An acknowledged completion that the database does not know.
    pub(crate) lost_completions: usize,
    /// An attempt did not complete, or came after one that had, without a reason.
    pub(crate) unexplained_repeats: usize,
    /// Runs that nobody brought to an end.
    pub(crate) unfinished_runs: usize,
    /// What `systole audit` has found.
    pub(crate) audit_violations: usize,
}

/// What the drill says at its end.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Verdict {
    /// No promise was broken.
    pub(crate) clean: bool,
    pub(crate) seed: u64,
    pub(crate) duration_seconds: f64,
    /// Whether transfers end with systole.fence().
    pub(crate) is_fenced: bool,
    /// Ended before its time, by a signal.
    pub(crate) is_cut_short: bool,
    pub(crate) faults: BTreeMap<String, usize>,
    pub(crate) faults_total: usize,
    /// Kinds of faults that could not be injected here, and why.
    pub(crate) not_injected: BTreeMap<String, String>,
    /// Faults of the plan that found nothing to strike.
    pub(crate) missed: usize,
    pub(crate) runs: usize,
    pub(crate) attempts: usize,
    pub(crate) transfers: usize,
    /// Transfers that were committed just before a failover, and got lost in it: nobody can promise those.
    pub(crate) transfers_lost_in_failovers: usize,
    /// Transfers in the name of a superseded attempt that fence() has refused.
    pub(crate) late_writes_refused: usize,
    pub(crate) violations: Violations,
    /// The first of each kind, in words.
    pub(crate) told: Vec<String>,
    pub(crate) handover: Handover,
    /// Share of heartbeats that changed no index; `None` if there were none.
    pub(crate) hot_ratio: Option<f64>,
    /// Where everything can be looked at, if it was kept.
    pub(crate) folder: Option<String>,
}

impl Verdict {
    /// Judges. What it cannot know is left for the caller to fill in.
    pub(super) fn of(evidence: &Evidence) -> Verdict {
        let mut told = Vec::new();
        let mut count = |sentences: Vec<String>| {
            told.extend(sentences.iter().take(TOLD_MAX).cloned());
            sentences.len()
        };
        let ends: Vec<Judged> = evidence.attempts.iter().filter_map(|attempt| judge(evidence, attempt)).collect();
        let unexplained = |is_crash: bool| {
            let these =
                ends.iter().filter(move |end| end.fault.is_none() && (end.attempt.status == "CRASHED") == is_crash);
            these.map(|end| end.sentence.clone()).collect::<Vec<_>>()
        };
        let violations = Violations {
            overlaps: count(overlaps(&evidence.sightings)),
            orphans: count(evidence.orphans.clone()),
            ledger_errors: count(evidence.ledger_errors.clone()),
            false_takeovers: count(unexplained(true)),
            lost_completions: count(lost_completions(evidence)),
            unexplained_repeats: count([unexplained(false), repeats_of_completed(&evidence.attempts)].concat()),
            unfinished_runs: count([unfinished(&evidence.runs), evidence.stuck_nodes.clone()].concat()),
            audit_violations: count(evidence.audit_violations.clone()),
        };
        let mut faults = BTreeMap::new();
        for fault in &evidence.faults {
            *faults.entry(fault.kind.name()).or_default() += 1;
        }
        Verdict {
            clean: violations == Violations::default(),
            faults,
            faults_total: evidence.faults.len(),
            runs: evidence.runs.len(),
            attempts: evidence.attempts.len(),
            handover: Handover::of(evidence, &ends),
            violations,
            told,
            ..Verdict::default()
        }
    }
}

/// An attempt that did not complete, and why.
#[derive(Debug)]
struct Judged<'a> {
    attempt: &'a Attempt,
    fault: Option<&'a Fault>,
    sentence: String,
}

/// `None` for one that has completed, or not ended.
fn judge<'a>(evidence: &'a Evidence, attempt: &'a Attempt) -> Option<Judged<'a>> {
    let ended_at = attempt.ended_at.filter(|_| attempt.status != "COMPLETED")?;
    // While the database is away nobody can be told of an end.
    let away: f64 = evidence
        .faults
        .iter()
        .filter(|fault| fault.kind.is_of_database())
        .filter(|fault| fault.until <= ended_at && fault.until >= ended_at - AFTERMATH)
        .map(|fault| fault.until - fault.at)
        .sum();
    let window = TIMING.stale_after.as_secs_f64() + AFTERMATH + away;
    let explains = |fault: &&Fault| {
        let is_of_it = fault.instance_id.as_ref().is_none_or(|id| *id == attempt.instance_id)
            && fault.host.as_ref().is_none_or(|host| *host == attempt.host);
        let is_of_then = fault.at - SLACK <= ended_at
            && ended_at <= fault.until + window
            && attempt.claimed_at <= fault.until + SLACK;
        is_of_it && is_of_then && (explains(fault.kind, attempt) || kills_what_is_frozen(evidence, fault, attempt))
    };
    let fault = evidence.faults.iter().rev().find(explains);
    let how = [
        Some(attempt.status.clone()),
        attempt.cause.clone(),
        attempt.exit_code.map(|code| format!("exit code {code}")),
    ];
    let sentence = format!(
        "run \"{}\" attempt {} on {}: {}, and no fault explains it",
        attempt.run_id,
        attempt.attempt,
        attempt.host,
        how.into_iter().flatten().collect::<Vec<_>>().join(", ")
    );
    Some(Judged { attempt, fault, sentence })
}

/// Whether a fault of this kind may end an attempt like that. What the database suffers ends none, except where there is no
/// freezer: a stopped tree is killed before it could be woken. What could not begin in time is given back.
fn explains(kind: Kind, attempt: &Attempt) -> bool {
    let cause = attempt.cause.as_deref().unwrap_or_default();
    match (attempt.status.as_str(), kind) {
        ("RELEASED", _) => true,
        ("CRASHED", Kind::NodeKilled) => matches!(cause, "proof" | "stale"),
        ("CRASHED", Kind::NodeAndGuardsKilled | Kind::HostLost | Kind::NodeStopped | Kind::CutOff) => true,
        ("CRASHED", Kind::GuardKilled | Kind::GuardStopped) => matches!(cause, "guard_lost" | "proof"),
        ("CRASHED", kind) if kind.is_of_database() => cause == "proof" && !attempt.has_freezer,
        ("FAILED", Kind::ProbeKilled) => attempt.exit_code == Some(137),
        _ => false,
    }
}

/// A frozen tree whose supervisor falls silent is killed within half of kill_grace, and so by a pause that is short.
fn kills_what_is_frozen(evidence: &Evidence, fault: &Fault, attempt: &Attempt) -> bool {
    let freezes = |other: &Fault| {
        let is_on_its_way =
            other.kind.is_of_database() || other.kind == Kind::CutOffBriefly && other.host == fault.host;
        is_on_its_way && other.at <= fault.until && fault.at <= other.until + AFTERMATH
    };
    let is_killed = attempt.status == "CRASHED" && attempt.cause.as_deref() == Some("proof");
    fault.kind == Kind::NodePaused && is_killed && evidence.faults.iter().any(freezes)
}

/// Two attempts of one run that were seen alive in the wrong order. A line says that its writer ran at that moment, so
/// there is no tolerance: one of the earlier attempt behind the first of the later one is an overlap.
fn overlaps(sightings: &[Sighting]) -> Vec<String> {
    let mut by_run: BTreeMap<&str, Vec<&Sighting>> = BTreeMap::new();
    for sighting in sightings {
        by_run.entry(&sighting.run_id).or_default().push(sighting);
    }
    let mut found = Vec::new();
    for (run_id, mut seen) in by_run {
        seen.sort_by_key(|sighting| (sighting.fence, sighting.first));
        // However many processes of the two attempts met.
        let mut longest: BTreeMap<(i64, i64), u64> = BTreeMap::new();
        for (n, one) in seen.iter().enumerate() {
            for other in &seen[n + 1..] {
                if one.fence == other.fence && one.role == other.role {
                    found.push(format!("run \"{run_id}\": the attempt with fence {} was started twice", one.fence));
                } else if one.fence < other.fence && one.last > other.first {
                    let nanos = longest.entry((one.fence, other.fence)).or_default();
                    *nanos = (one.last - other.first).max(*nanos);
                }
            }
        }
        found.extend(longest.into_iter().map(|((a, b), nanos)| {
            let by = Duration::from_nanos(nanos);
            format!("run \"{run_id}\": fence {a} was at work {by:?} after fence {b} had begun")
        }));
    }
    found
}

/// What a host tells again behind a failover may have got another number.
fn lost_completions(evidence: &Evidence) -> Vec<String> {
    let completed: BTreeMap<&str, i32> = evidence
        .attempts
        .iter()
        .filter(|one| one.status == "COMPLETED")
        .map(|one| (one.run_id.as_str(), one.attempt))
        .collect();
    let is_lost = |(run_id, attempt): &&(String, i32)| {
        evidence.runs.get(run_id).map(String::as_str) != Some("COMPLETED")
            || completed.get(run_id.as_str()).is_none_or(|newest| newest < attempt)
    };
    let lost = evidence.acknowledged.iter().filter(is_lost);
    lost.map(|(run_id, attempt)| {
        format!("run \"{run_id}\": the completion of attempt {attempt} was acknowledged, and is lost")
    })
    .collect()
}

fn repeats_of_completed(attempts: &[Attempt]) -> Vec<String> {
    let newest: BTreeMap<&str, i32> = attempts.iter().fold(BTreeMap::new(), |mut newest, one| {
        let attempt = newest.entry(one.run_id.as_str()).or_default();
        *attempt = one.attempt.max(*attempt);
        newest
    });
    let again = attempts.iter().filter(|one| one.status == "COMPLETED" && one.attempt < newest[one.run_id.as_str()]);
    again
        .map(|one| format!("run \"{}\" was started again after attempt {} had completed", one.run_id, one.attempt))
        .collect()
}

fn unfinished(runs: &BTreeMap<String, String>) -> Vec<String> {
    let left = runs.iter().filter(|(_, status)| *status != "COMPLETED");
    left.map(|(run_id, status)| format!("run \"{run_id}\" is {status} when all is over")).collect()
}
