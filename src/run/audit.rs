//! Whether the history of one run allows that two executors ever held it at once. Pure: it is told the events in order of
//! their ids, and what the tables said in the same look at the database.
//!
//! Whoever claims a run or ends one of its instances holds the lock on the run's row, and draws the id of the event under it
//! (claim.sql, claim_queued.sql, and the callers of end_instances() and unbar()). So of one run the order of these ids is the
//! order of the commits, whatever the clock did meanwhile, and nothing here goes by times. A refusal is written without the
//! lock, and has no place in that order.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::store::Event;

#[cfg(test)]
mod tests;

/// A run that is wrong all through is not described all through.
const VIOLATIONS_TOLD_MAX: usize = 20;

/// An event, beside what the tables said when it was read.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    pub(crate) event: Event,
    /// How many attempts the run has had; `None` if there is no such run.
    pub(crate) run_attempt: Option<i32>,
    /// The row of the event's instance, if there is one of this run.
    pub(crate) row: Option<Row>,
}

/// What `executor_instances` says of an instance.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) attempt: i32,
    pub(crate) fence: i64,
    pub(crate) status: String,
    pub(crate) bars_successor: bool,
    /// For how long after its last heartbeat plus `stale_after` this event came.
    pub(crate) margin_seconds: Option<f64>,
}

/// What a sound history never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rule {
    /// Claimed while another instance of the run had not ended.
    Overlap,
    /// Claimed while one that was taken away by force might still be at work.
    BarredClaim,
    /// Declared dead by its age before it was that old.
    EarlyTakeover,
    /// More than one claim, or more than one end, or an end of what was not live.
    Order,
    /// Attempts are not numbered 1, 2, 3: something is missing, or there twice.
    Attempts,
    /// A fence that is not above all before it, or not the one that was granted.
    Fences,
    /// The tables tell otherwise than the events.
    Rows,
}

/// One place where the history is not sound.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) run_id: String,
    /// `None` where an event is missing.
    pub(crate) event_id: Option<i64>,
    pub(crate) at: Option<DateTime<Utc>>,
    pub(crate) instance_ids: Vec<Uuid>,
    pub(crate) message: String,
}

/// One tenure of a takeover.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Side {
    pub(crate) executor_id: String,
    pub(crate) instance_id: Option<Uuid>,
    pub(crate) attempt: i32,
}

/// A claim that followed a crash, and was no new beginning.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Takeover {
    /// Of the claim.
    pub(crate) event_id: i64,
    pub(crate) at: DateTime<Utc>,
    pub(crate) run_id: String,
    pub(crate) from: Side,
    pub(crate) to: Side,
    /// proof, stale, forced or guard_lost.
    pub(crate) cause: String,
    /// What showed that one from whom the run was taken by force was at work no more: report, certificate or silence.
    pub(crate) cleared_by: Option<&'static str>,
    /// By how much its silence exceeded `stale_after`; `None` where it was no silence that decided.
    pub(crate) margin_seconds: Option<f64>,
    /// From the end of the one to the claim of the other.
    pub(crate) delay_seconds: f64,
    /// By --unsafe-now: nobody waited for the old command's death.
    pub(crate) two_may_have_worked: bool,
}

/// What became of a run's whole history.
#[derive(Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) tenures: u64,
    pub(crate) is_running: bool,
    /// The first of them, if there are many.
    pub(crate) violations: Vec<Violation>,
    pub(crate) violations_total: u64,
}

/// Hears the events of one run.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    run_id: String,
    tenures: u64,
    attempt: i32,
    fence: i64,
    run_attempt: Option<i32>,
    live: Option<Tenure>,
    ended: Option<Ended>,
    violations: Vec<Violation>,
    violations_total: u64,
}

#[derive(Debug)]
struct Tenure {
    side: Side,
    fence: i64,
    /// Its status when its claim was read, and so no later than the history behind it.
    row_status: Option<String>,
}

#[derive(Debug)]
struct Ended {
    side: Side,
    at: DateTime<Utc>,
    crash: Option<Crash>,
    /// No successor may be granted yet.
    bars: bool,
    /// Whether its row said so when its end was read.
    row_bars: bool,
}

#[derive(Debug)]
struct Crash {
    cause: String,
    margin_seconds: Option<f64>,
    cleared_by: Option<&'static str>,
    two_may_have_worked: bool,
}

impl Judge {
    /// For the run of this name.
    pub(crate) fn of(run_id: &str) -> Judge {
        Judge { run_id: run_id.to_owned(), ..Judge::default() }
    }

    pub(crate) fn run_id(&self) -> &str {
        &self.run_id
    }

    /// Hears the next event, and says whether it was a takeover.
    pub(crate) fn hear(&mut self, evidence: &Evidence) -> Option<Takeover> {
        self.run_attempt = evidence.run_attempt;
        match evidence.event.kind.as_str() {
            "claimed" => return self.claimed(evidence),
            // What it was claimed by, and what had been before, a failover has lost.
            "readopted" => {
                let attempt = evidence.event.detail["attempt"].as_i64().and_then(|n| i32::try_from(n).ok());
                self.attempt = self.attempt.max(attempt.unwrap_or(0) - 1);
                self.claimed(evidence);
            }
            // One without an instance took the run out of its queue.
            "cancelled" if evidence.event.instance_id.is_none() => {}
            "completed" | "failed" | "timed_out" | "cancelled" | "released" | "crashed" => self.ended(evidence),
            "unbarred" => self.unbarred(evidence),
            _ => {}
        }
        None
    }

    fn claimed(&mut self, evidence: &Evidence) -> Option<Takeover> {
        let event = &evidence.event;
        let attempt = event.detail["attempt"].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
        let fence = event.fence.unwrap_or(0);
        let side = Side {
            executor_id: event.executor_id.clone().unwrap_or_default(),
            instance_id: event.instance_id,
            attempt,
        };
        let (before, barring) = match (self.live.take(), &self.ended) {
            (Some(live), _) => (Some(live.side), None),
            (None, Some(ended)) => (None, Some(ended.side.clone()).filter(|_| ended.bars)),
            (None, None) => (None, None),
        };
        let ended_as_itself = self.ended.as_ref().is_some_and(|ended| ended.side.instance_id == event.instance_id);
        if ended_as_itself || before.as_ref().is_some_and(|live| live.instance_id == event.instance_id) {
            self.tell(Rule::Order, event, &[], "was claimed again".to_owned());
        } else if let Some(live) = &before {
            let message = format!("was claimed while attempt {} by {} had not ended", live.attempt, live.executor_id);
            self.tell(Rule::Overlap, event, &[live], message);
        } else if let Some(barring) = &barring {
            let message = format!(
                "was claimed although attempt {} by {}, from whom the run was taken by force, might still be at work",
                barring.attempt, barring.executor_id
            );
            self.tell(Rule::BarredClaim, event, &[barring], message);
        }
        if attempt != self.attempt + 1 {
            self.tell(Rule::Attempts, event, &[], format!("follows attempt {}", self.attempt));
        }
        if fence <= self.fence {
            self.tell(Rule::Fences, event, &[], format!("was granted fence {fence} behind fence {}", self.fence));
        }
        match &evidence.row {
            None => self.tell(Rule::Rows, event, &[], "has no row in executor_instances".to_owned()),
            Some(row) if (row.attempt, row.fence) != (attempt, fence) => {
                let message =
                    format!("was granted fence {fence}, its row is attempt {} with fence {}", row.attempt, row.fence);
                self.tell(Rule::Rows, event, &[], message);
            }
            Some(_) => {}
        }
        self.tenures += 1;
        (self.attempt, self.fence) = (attempt, fence.max(self.fence));
        let row_status = evidence.row.as_ref().map(|row| row.status.clone());
        self.live = Some(Tenure { side: side.clone(), fence, row_status });
        let ended = self.ended.take()?;
        if before.is_some() {
            return None;
        }
        let crash = ended.crash.filter(|_| event.detail["afresh"] != true)?;
        Some(Takeover {
            event_id: event.id,
            at: event.at,
            run_id: self.run_id.clone(),
            from: ended.side,
            to: side,
            cause: crash.cause,
            cleared_by: crash.cleared_by,
            margin_seconds: crash.margin_seconds,
            delay_seconds: seconds_between(ended.at, event.at),
            two_may_have_worked: crash.two_may_have_worked,
        })
    }

    fn ended(&mut self, evidence: &Evidence) {
        let event = &evidence.event;
        let Some(live) = self.live.take_if(|live| live.side.instance_id == event.instance_id) else {
            return self.tell(Rule::Order, event, &[], format!("was {}, but was not live", event.kind));
        };
        if event.fence != Some(live.fence) {
            let message = format!("ended with fence {}, and was granted {}", event.fence.unwrap_or(0), live.fence);
            self.tell(Rule::Fences, event, &[], message);
        }
        if event.detail["attempt"].as_i64() != Some(live.side.attempt.into()) {
            self.tell(Rule::Attempts, event, &[], format!("ended, and was claimed as attempt {}", live.side.attempt));
        }
        if let Some(row) = evidence.row.as_ref().filter(|row| row.status.to_lowercase() != event.kind) {
            self.tell(Rule::Rows, event, &[], format!("was {}, its row says {}", event.kind, row.status));
        }
        let crash = (event.kind == "crashed").then(|| Crash {
            cause: event.detail["cause"].as_str().unwrap_or("unknown").to_owned(),
            margin_seconds: event.detail["margin_seconds"].as_f64(),
            cleared_by: None,
            two_may_have_worked: event.detail["unsafe"].as_bool().unwrap_or(false),
        });
        // staleness() has compared the very times whose difference this is.
        if let Some(crash) = crash.as_ref().filter(|crash| crash.cause == "stale")
            && crash.margin_seconds.is_none_or(|margin| margin <= 0.0)
        {
            let margin =
                crash.margin_seconds.map_or("no margin".to_owned(), |margin| format!("a margin of {margin} s"));
            self.tell(Rule::EarlyTakeover, event, &[], format!("was declared dead by its age with {margin}"));
        }
        let bars = crash.as_ref().is_some_and(|crash| crash.cause == "forced" && !crash.two_may_have_worked);
        let row_bars = evidence.row.as_ref().is_some_and(|row| row.bars_successor);
        self.ended = Some(Ended { side: live.side, at: event.at, crash, bars, row_bars });
    }

    fn unbarred(&mut self, evidence: &Evidence) {
        let event = &evidence.event;
        let barring = self.ended.as_mut().filter(|ended| ended.bars && ended.side.instance_id == event.instance_id);
        let Some((ended, crash)) = barring.and_then(|ended| ended.crash.take().map(|crash| (ended, crash))) else {
            return self.tell(Rule::Order, event, &[], "was unbarred, but barred nobody".to_owned());
        };
        ended.bars = false;
        let says = |key: &str| event.detail[key] == true;
        let (cleared_by, margin_seconds) = if says("silent") {
            (Some("silence"), evidence.row.as_ref().and_then(|row| row.margin_seconds))
        } else if says("certified") {
            (Some("certificate"), None)
        } else {
            (event.detail["reported_by"].as_str().map(|_| "report"), None)
        };
        ended.crash = Some(Crash { cleared_by, margin_seconds, two_may_have_worked: says("unsafe"), ..crash });
    }

    /// There is no more of it.
    pub(crate) fn close(mut self) -> Verdict {
        if let Some(live) = &self.live
            && let Some(status) = live.row_status.clone().filter(|status| status != "RUNNING")
        {
            let message =
                format!("attempt {}: its row says {status}, and it has no event of its end", live.side.attempt);
            self.miss(live.side.instance_id, message);
        }
        if let Some(ended) = self.ended.as_ref().filter(|ended| ended.bars && !ended.row_bars) {
            let message =
                format!("attempt {}: its row bars nobody any more, and it has no event of that", ended.side.attempt);
            self.miss(ended.side.instance_id, message);
        }
        match self.run_attempt {
            Some(attempt) if attempt != self.attempt => {
                self.miss(None, format!("the tables know {attempt} attempts, the events {}", self.attempt));
            }
            None if self.tenures > 0 => self.miss(None, "there is no such run in runs, only its events".to_owned()),
            _ => {}
        }
        let Judge { tenures, live, violations, violations_total, .. } = self;
        Verdict { tenures, is_running: live.is_some(), violations, violations_total }
    }

    /// `others`: of whom the message speaks beside the event's own instance.
    fn tell(&mut self, rule: Rule, event: &Event, others: &[&Side], message: String) {
        let attempt =
            event.detail["attempt"].as_i64().map_or_else(|| "an instance".to_owned(), |n| format!("attempt {n}"));
        let executor = event.executor_id.as_deref().unwrap_or("nobody");
        let ids = event.instance_id.into_iter().chain(others.iter().filter_map(|side| side.instance_id));
        self.add(Violation {
            rule,
            run_id: self.run_id.clone(),
            event_id: Some(event.id),
            at: Some(event.at),
            instance_ids: ids.collect(),
            message: format!("{attempt} by {executor} {message}"),
        });
    }

    fn miss(&mut self, instance_id: Option<Uuid>, message: String) {
        let run_id = self.run_id.clone();
        self.add(Violation { instance_ids: Vec::from_iter(instance_id), ..Violation::missing(run_id, message) });
    }

    fn add(&mut self, violation: Violation) {
        self.violations_total += 1;
        if self.violations.len() < VIOLATIONS_TOLD_MAX {
            self.violations.push(violation);
        }
    }
}

impl Violation {
    /// One of a run of which there are rows, and no events.
    pub(crate) fn missing(run_id: String, message: String) -> Violation {
        Violation { rule: Rule::Rows, run_id, event_id: None, at: None, instance_ids: Vec::new(), message }
    }
}

fn seconds_between(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).num_microseconds().map_or(f64::MAX, |micros| micros as f64 / 1e6)
}
