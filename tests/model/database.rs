//! The database: one run, its instances, a clock that may be set, and the rules of `migrations/functions`, each named after
//! its SQL function. Stamps are milliseconds of the database's clock; each call is one statement, and commits at once.

use systole::instance::Testimony;

use super::rule::{Rule, Rules};

/// A row of `executor_instances`. Its attempt is its place in the list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Instance {
    pub(crate) host: usize,
    pub(crate) fence: i64,
    pub(crate) is_running: bool,
    pub(crate) bars_successor: bool,
    pub(crate) last_heartbeat: i64,
    /// Whether a transaction of its holder stands between its `fence()` and its COMMIT.
    pub(crate) is_fencing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Database {
    /// By how much its clock has been set.
    pub(crate) offset: i64,
    pub(crate) rw_since: i64,
    pub(crate) fence: i64,
    /// Whether a stranger's transaction holds the rows of this run.
    pub(crate) is_locked: bool,
    pub(crate) instances: Vec<Instance>,
    pub(crate) wrongs: Wrongs,
}

/// What must never have happened. Judged by what the model knows, not by what the rules look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Wrongs {
    pub(crate) early_takeover: bool,
    pub(crate) late_commit: bool,
    pub(crate) repeated_fence: bool,
    /// Not wrong: for the properties that keep the model from being vacuous.
    pub(crate) taken_by_age: bool,
    pub(crate) taken_by_certificate: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum BeatVerdict {
    Ok,
    Busy,
    Lost,
}

/// What `staleness()` says; `brake` needs three hosts, and is not modelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Staleness {
    Yes,
    Fresh,
    ServerStarted,
    TakerCold,
    ClockStep,
}

/// What a claim brings, and whether it has passed its look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    pub(crate) testimony: Option<Testimony>,
    /// What the look saw in the holder's place.
    saw: Option<usize>,
}

/// What became of a claim that has its locks.
#[must_use]
pub(crate) enum Grant {
    Ok(usize),
    Refused,
}

impl Database {
    pub(crate) fn new(at: i64) -> Database {
        // It has been up for longer than anybody waits.
        let rw_since = at - 1_000_000;
        Database { offset: 0, rw_since, fence: 0, is_locked: false, instances: Vec::new(), wrongs: Wrongs::default() }
    }

    pub(crate) fn running(&self) -> Option<usize> {
        self.instances.iter().position(|instance| instance.is_running)
    }

    /// Whom a successor has to reckon with: the holder, or one that force has revoked and that may still be at work.
    fn holder(&self, rules: &Rules) -> Option<usize> {
        self.running().or_else(|| {
            let last = self.instances.len().checked_sub(1)?;
            (self.instances[last].bars_successor && rules.keep(Rule::RevokedBarsItsSuccessor)).then_some(last)
        })
    }

    fn staleness(&self, rules: &Rules, holder: usize, at: i64, testimony: Option<Testimony>) -> Staleness {
        let stale_after = match rules.keep(Rule::HoldersOwnStaleAfter) {
            true => rules.stale_after(),
            false => rules.impatience(),
        };
        let limit = at - stale_after;
        if self.instances[holder].last_heartbeat.min(at) >= limit {
            return Staleness::Fresh;
        }
        if self.rw_since.min(at) >= limit && rules.keep(Rule::RwSince) {
            return Staleness::ServerStarted;
        }
        let trusted_since = testimony.map(|it| it.trusted_since.timestamp_millis());
        if trusted_since.is_none_or(|since| since >= limit) && rules.keep(Rule::TrustedSince) {
            return Staleness::TakerCold;
        }
        let agrees = testimony.is_none_or(|it| {
            (at - it.expected_now.timestamp_millis()).unsigned_abs() <= it.tolerance.as_millis() as u64
        });
        if !agrees && rules.keep(Rule::ExpectedNow) { Staleness::ClockStep } else { Staleness::Yes }
    }

    /// The first half of `claim()`: without locks. `None` is an answer that grants nothing.
    pub(crate) fn look(&mut self, rules: &Rules, at: i64, testimony: Option<Testimony>) -> Option<Claim> {
        let saw = self.holder(rules);
        if let Some(holder) = saw {
            if self.instances[holder].last_heartbeat > at + 1000 && !self.is_locked {
                self.instances[holder].last_heartbeat = at;
            }
            if self.staleness(rules, holder, at, testimony) != Staleness::Yes {
                return None;
            }
        }
        Some(Claim { testimony, saw })
    }

    /// The second half of `claim()`: with the locks, on rows that nobody else can change.
    pub(crate) fn test_and_grant(&mut self, rules: &Rules, host: usize, at: i64, claim: &Claim) -> Grant {
        let tests = rules.keep(Rule::TestBehindTheLock);
        if let Some(holder) = if tests { self.holder(rules) } else { claim.saw } {
            if tests && self.staleness(rules, holder, at, claim.testimony) != Staleness::Yes {
                return Grant::Refused;
            }
            let trusted_since = claim.testimony.map_or(at, |it| it.trusted_since.timestamp_millis());
            let known = self.instances[holder].last_heartbeat.max(self.rw_since).max(trusted_since);
            self.wrongs.early_takeover |= at < known + rules.stale_after();
            self.wrongs.taken_by_age = true;
            self.end_instance(holder);
        } else if self.instances.last().is_some_and(|last| !last.is_running) {
            self.wrongs.taken_by_certificate = true;
        }
        let next = if rules.keep(Rule::FenceGrows) { (self.fence + 1).max(at) } else { at };
        self.wrongs.repeated_fence |= next <= self.fence;
        self.fence = next;
        self.instances.push(Instance {
            host,
            fence: next,
            is_running: true,
            bars_successor: false,
            last_heartbeat: at,
            is_fencing: false,
        });
        Grant::Ok(self.instances.len() - 1)
    }

    /// A claim that cannot have its locks ends the transactions of a dead holder, and asks again.
    pub(crate) fn evict_blockers(&mut self, rules: &Rules, at: i64, claim: &Claim) {
        let is_dead =
            self.holder(rules).is_none_or(|it| self.staleness(rules, it, at, claim.testimony) == Staleness::Yes);
        if is_dead {
            self.instances.iter_mut().for_each(|it| it.is_fencing = false);
        }
    }

    /// Whether somebody holds what a claim has to lock.
    pub(crate) fn is_claim_blocked(&self, rules: &Rules) -> bool {
        self.is_locked || self.instances.iter().any(|it| it.is_fencing) && rules.keep(Rule::FenceLocks)
    }

    pub(crate) fn beat(&mut self, instance: usize, at: i64) -> BeatVerdict {
        let row = &mut self.instances[instance];
        if !row.is_running {
            BeatVerdict::Lost
        } else if self.is_locked {
            BeatVerdict::Busy
        } else {
            row.last_heartbeat = at;
            BeatVerdict::Ok
        }
    }

    /// `end_instances()` and `unbar()`.
    fn end_instance(&mut self, instance: usize) {
        self.instances[instance].is_running = false;
        self.instances[instance].bars_successor = false;
    }

    /// `file_certificate()`, or the holder's own `finish()`: the tree is empty. False if nothing comes of it.
    pub(crate) fn file_certificate(&mut self, rules: &Rules, instance: usize) -> bool {
        let row = &self.instances[instance];
        if !(row.is_running || row.bars_successor) || self.is_locked {
            return false;
        }
        if self.is_claim_blocked(rules) {
            // The dead's own transaction is ended; it is filed next time.
            self.instances.iter_mut().for_each(|it| it.is_fencing = false);
        } else {
            self.end_instance(instance);
        }
        true
    }

    /// `take_away()`: `systole takeover --force`.
    pub(crate) fn take_away(&mut self, at: i64) {
        if let Some(holder) = self.running() {
            self.fence = (self.fence + 1).max(at);
            self.instances[holder].is_running = false;
            self.instances[holder].bars_successor = true;
        }
    }

    /// `fence()`, at the end of a transaction of the holder's. False if it raises.
    pub(crate) fn fence(&mut self, instance: usize) -> bool {
        let passes = self.fence == self.instances[instance].fence && !self.is_locked;
        self.instances[instance].is_fencing |= passes;
        passes
    }

    /// The COMMIT behind it.
    pub(crate) fn commit(&mut self, instance: usize) {
        self.instances[instance].is_fencing = false;
        self.wrongs.late_commit |= self.fence != self.instances[instance].fence;
    }

    /// Open transactions end with the server's processes.
    pub(crate) fn restart(&mut self, at: i64) {
        self.rw_since = at;
        self.is_locked = false;
        self.instances.iter_mut().for_each(|it| it.is_fencing = false);
    }
}
