//! A host: a supervisor that beats, takes up again and tells what has ended, and the tenure it may have. Until when it may act,
//! whether it may have been succeeded, and when its tree is frozen and thawed is decided by the program's own code.

use systole::elapsed::Instant;
use systole::guard::{Deadman, Decision, Hold};
use systole::instance::{Timing, Trust};

use super::database::{BeatVerdict, Database, Tenancy};
use super::rule::{Rule, Rules};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) is_linked: bool,
    pub(crate) tenure: Option<Tenure>,
    /// The certificates on its disk.
    deaths: Vec<Death>,
    pub(crate) wrongs: Wrongs,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Wrongs {
    /// A holder in contact, whom nobody has ever followed, was told that it is lost.
    pub(crate) killed: bool,
    /// An end that was recorded is not known, although its host has told it in the quarantine.
    pub(crate) end_lost: bool,
    /// Not wrong.
    pub(crate) waited: bool,
    pub(crate) went_on_behind_failover: bool,
    pub(crate) said_again: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Death {
    tenancy: Tenancy,
    /// In which history it was known last.
    known_in: u8,
    /// In whose folder of the outbox it lies; `None` before it was told.
    kept_in: Option<u8>,
    was_recorded: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tenure {
    pub(crate) tenancy: Tenancy,
    known_in: u8,
    trust: Trust,
    switch: Deadman,
    is_started: bool,
    pub(crate) asking: Option<Asking>,
}

/// A `readopt()` that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Asking {
    since: Instant,
    /// Whether there was a quarantine when it began.
    saw: bool,
}

/// All that a host needs to know of this moment.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) rules: &'a Rules,
    pub(crate) number: usize,
    /// By the database's clock.
    pub(crate) at: i64,
    pub(crate) now: Instant,
}

impl Moment<'_> {
    fn timing(&self) -> &Timing {
        &self.rules.timing[self.number]
    }
}

impl Host {
    pub(crate) fn new() -> Host {
        Host { is_linked: true, tenure: None, deaths: Vec::new(), wrongs: Wrongs::default() }
    }

    /// What it does at each tick, if it reaches the database: say what has ended, and beat.
    pub(crate) fn lives_on(&mut self, moment: Moment<'_>, database: &mut Database) {
        if self.is_linked {
            self.tell(moment, database);
            self.beat(moment, database);
        }
    }

    /// `file_deaths()`.
    fn tell(&mut self, moment: Moment<'_>, database: &mut Database) {
        let line = database.line;
        for death in self.deaths.iter_mut().filter(|it| it.kept_in.is_none_or(|kept| kept < line)) {
            if death.kept_in.is_none() || moment.rules.keep(Rule::Outbox) {
                let recorded_in = death.kept_in.filter(|_| moment.rules.keep(Rule::OutboxKnowsTheLine));
                let known_in = recorded_in.unwrap_or(death.tenancy.granted_in);
                database.end(moment.rules, moment.at, death.tenancy, known_in);
            }
            let is_known = database.knows_the_end_of(death.tenancy.instance);
            let is_in_time = database.quarantine(moment.rules, moment.at)
                && death.kept_in.is_some_and(|kept| kept >= database.tables().history_before);
            self.wrongs.end_lost |= death.was_recorded && is_in_time && !is_known;
            self.wrongs.said_again |= death.was_recorded && is_known;
            death.kept_in = Some(line);
            death.was_recorded |= is_known;
        }
    }

    /// As `Heartbeat::acknowledged` does.
    fn beat(&mut self, moment: Moment<'_>, database: &mut Database) {
        let Some(tenure) = self.tenure.as_mut().filter(|it| it.asking.is_none()) else { return };
        let verdict = database.beat(tenure.tenancy.instance, moment.at);
        // Behind the heartbeat, and under the lock of its row.
        let is_quarantined = database.quarantine(moment.rules, moment.at);
        match verdict {
            BeatVerdict::Ok
                if is_quarantined
                    && tenure.known_in != database.line
                    && tenure.trust.may_be_succeeded(moment.now, moment.timing())
                    && moment.rules.keep(Rule::SilentWaitsOut) =>
            {
                self.wrongs.waited = true;
            }
            BeatVerdict::Ok => {
                tenure.trust.acknowledged(moment.now, moment.timing().fence_after);
                tenure.known_in = database.line;
                tenure.renewed(moment.now);
                self.wrongs.went_on_behind_failover |= database.line > 1;
            }
            BeatVerdict::Lost => {
                tenure.asking = Some(Asking { since: moment.now, saw: database.look(moment.rules, moment.at) });
            }
        }
    }

    /// The second half of `readopt()`, and what follows from its answer. False if there is nothing under way.
    pub(crate) fn readopts(&mut self, moment: Moment<'_>, database: &mut Database) -> bool {
        let Some(tenure) = &mut self.tenure else { return false };
        let Some(Asking { saw, .. }) = tenure.asking.take() else { return false };
        if database.readopt(moment.rules, moment.at, tenure.tenancy, tenure.known_in, saw) {
            self.beat(moment, database);
        } else {
            let is_in_contact =
                tenure.trust.holds_at(moment.now) && tenure.known_in >= database.tables().history_before;
            self.wrongs.killed |= is_in_contact && database.is_newest(tenure.tenancy.instance);
            self.ends();
        }
        true
    }

    /// The tree is emptied, and that is certified.
    pub(crate) fn ends(&mut self) {
        let dead = self.tenure.take();
        let death =
            |it: Tenure| Death { tenancy: it.tenancy, known_in: it.known_in, kept_in: None, was_recorded: false };
        self.deaths.extend(dead.map(death));
    }

    /// The command ends by itself, and its holder says so.
    pub(crate) fn finishes(&mut self, moment: Moment<'_>, database: &mut Database) -> bool {
        if !self.is_at_work() || !self.is_linked {
            return false;
        }
        self.ends();
        let Some(death) = self.deaths.last_mut() else { return false };
        database.end(moment.rules, moment.at, death.tenancy, death.known_in);
        death.was_recorded = database.knows_the_end_of(death.tenancy.instance);
        death.kept_in = Some(death.known_in);
        true
    }

    pub(crate) fn granted(&mut self, moment: Moment<'_>, tenancy: Tenancy) {
        let timing = moment.timing();
        let rules = systole::guard::Rules {
            kill_grace: timing.kill_grace,
            freeze_max: timing.freeze_max,
            stopped_max: timing.stopped_max(),
        };
        self.tenure = Some(Tenure {
            tenancy,
            known_in: tenancy.granted_in,
            trust: Trust::default(),
            switch: Deadman::armed(rules, moment.now),
            is_started: false,
            asking: None,
        });
    }

    /// Whether its command executes code.
    pub(crate) fn is_at_work(&self) -> bool {
        self.tenure.as_ref().is_some_and(|it| it.is_started && !it.switch.is_frozen())
    }
}

impl Tenure {
    /// The guard hears of it without delay.
    fn renewed(&mut self, now: Instant) {
        self.switch.renewed(self.trust.until().expect("it was just acknowledged"));
        if self.switch.decide(now) == Decision::Thaw {
            self.switch.thawed();
        }
        self.is_started = true;
    }

    /// Its guard acts at the deadline, or up to K later. False if nothing is due.
    pub(crate) fn freezes(&mut self, now: Instant) -> bool {
        // The supervisor is alive, or it would have been killed.
        self.switch.ticked(now, now);
        self.switch.decide(now) == Decision::Freeze && self.switch.froze(now, Hold::Freezer)
    }

    /// Whether the guard can no longer be about to act, or the server to answer.
    pub(crate) fn is_overdue(&self, timing: &Timing, now: Instant) -> bool {
        let deadline = self.switch.until().map(|until| until + timing.kill_grace);
        let is_late = deadline.is_some_and(|deadline| deadline < now) && !self.switch.is_frozen();
        is_late || self.asking.is_some_and(|asking| now.since(asking.since) > timing.attempt_timeout)
    }
}
