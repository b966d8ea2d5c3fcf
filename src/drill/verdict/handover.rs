//! How long a run was without an executor: from the fault to the next claim.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Evidence, Judged};
use crate::drill::TIMING;
use crate::drill::plan::Kind;

/// What the hand-overs behind a certificate are held against, and by how much others may exceed `stale_after`.
const CERTIFIED_LIMIT: f64 = 1.0;
const BEYOND_STALE: f64 = 2.0;

/// A fleet whose database was away a moment ago is still on its way back.
const RETURN: f64 = 2.0;

/// Hand-overs by what they had to wait for, in seconds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Handover {
    /// Something was killed, and a guard or a supervisor lived to say so.
    pub(crate) certified: Delays,
    /// Nobody said so: the silence itself had to be long enough, or a frozen tree to be killed.
    pub(crate) silent: Delays,
    /// The database was away as well, for part of it.
    pub(crate) without_database: Delays,
}

/// Of one sort.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Delays {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    /// What p99 is held against, if it is. Exceeding it breaks no promise: the machine may be busy.
    pub(crate) limit: Option<f64>,
}

impl Handover {
    pub(super) fn of(evidence: &Evidence, ends: &[Judged<'_>]) -> Handover {
        let claims: BTreeMap<(&str, i32), f64> =
            evidence.attempts.iter().map(|one| ((one.run_id.as_str(), one.attempt), one.claimed_at)).collect();
        let (mut certified, mut silent, mut without_database) = (Vec::new(), Vec::new(), Vec::new());
        for end in ends.iter().filter(|end| end.attempt.status == "CRASHED") {
            let Some(fault) = end.fault else { continue };
            let Some(next) = claims.get(&(end.attempt.run_id.as_str(), end.attempt.attempt + 1)) else { continue };
            let from = fault.at.max(end.attempt.claimed_at);
            let delay = (next - from).max(0.0);
            let is_away = |other: &&crate::drill::verdict::Fault| {
                other.kind.is_of_database() && other.at <= *next && other.until + RETURN >= from
            };
            let was_told = end.attempt.cause.as_deref() != Some("stale");
            if evidence.faults.iter().find(is_away).is_some() {
                without_database.push(delay);
            } else if was_told && matches!(fault.kind, Kind::NodeKilled | Kind::GuardKilled) {
                certified.push(delay);
            } else {
                silent.push(delay);
            }
        }
        Handover {
            certified: Delays::of(certified, Some(CERTIFIED_LIMIT)),
            silent: Delays::of(silent, Some(TIMING.stale_after.as_secs_f64() + BEYOND_STALE)),
            without_database: Delays::of(without_database, None),
        }
    }
}

impl Delays {
    pub(super) fn of(mut seconds: Vec<f64>, limit: Option<f64>) -> Delays {
        seconds.sort_by(f64::total_cmp);
        // The smallest that so many hundredths do not exceed.
        let at = |hundredths: usize| {
            let rank = (seconds.len() * hundredths).div_ceil(100).max(1);
            seconds.get(rank - 1).copied().unwrap_or(0.0)
        };
        Delays { count: seconds.len(), p50: at(50), p99: at(99), max: at(100), limit }
    }

    /// Whether it is what is hoped for.
    pub(crate) fn is_slow(&self) -> bool {
        self.limit.is_some_and(|limit| self.p99 > limit)
    }
}
