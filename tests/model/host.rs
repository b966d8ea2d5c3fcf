//! A host: a supervisor that beats and claims, and the tenure it may have, with guard and command. What they decide is
//! decided by the program's own `Witness`, `Trust` and `Deadman`; here they are only carried about.

use std::time::Duration;

use systole::elapsed::Instant;
use systole::guard::{Deadman, Decision, Hold};
use systole::instance::{Trust, Witness};

use super::database::{BeatVerdict, Claim, Database};
use super::rule::{Rule, Rules};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    Running,
    Stopped,
    Dead,
}

/// A heartbeat that has been sent and is not answered yet, as far as the supervisor knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Beat {
    pub(crate) sent: Instant,
    /// The database's stamp, and what it says of the instance, if the heartbeat named one.
    pub(crate) answer: Option<(i64, Option<BeatVerdict>)>,
}

/// Between a host and the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Link {
    Up,
    /// Nothing arrives, and it fails.
    Down,
    /// What is sent arrives later.
    RequestsHeld,
    /// What is answered arrives later.
    AnswersHeld,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) supervisor: Life,
    /// Whether it was stopped when its heartbeat was answered: then no clock of its own has bounded the wait.
    pub(crate) has_slept: bool,
    pub(crate) link: Link,
    pub(crate) witness: Witness,
    pub(crate) beat: Option<Beat>,
    pub(crate) claim: Option<Claim>,
    pub(crate) tenure: Option<Tenure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Command {
    Waiting,
    Started,
    Dead,
}

/// One tenure: what the supervisor knows of it, and its guard and command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tenure {
    pub(crate) instance: usize,
    pub(crate) trust: Trust,
    pub(crate) guard: Life,
    pub(crate) switch: Deadman,
    /// When the guard means to look at its clock again.
    pub(crate) timer: Instant,
    pub(crate) pipe: Pipe,
    pub(crate) command: Command,
    /// Whether the certificate of death lies on the disk.
    pub(crate) is_certified: bool,
    /// When the newest acknowledged heartbeat was sent, by nobody's word but the model's.
    pub(crate) acked_sending: Option<Instant>,
    pub(crate) was_thawed: bool,
}

/// From the supervisor to the guard. Renewals and ticks only ever grow, so the last of each stands for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Pipe {
    pub(crate) renewal: Option<Instant>,
    /// Since when an echo is owed.
    pub(crate) owed_since: Option<Instant>,
    /// The last sign of life, while the guard does not hear it.
    pub(crate) tick: Option<Instant>,
    pub(crate) go: bool,
    pub(crate) kill: bool,
}

fn never() -> Instant {
    Instant::from_nanos(u64::MAX)
}

impl Host {
    pub(crate) fn new() -> Host {
        Host {
            supervisor: Life::Running,
            has_slept: false,
            link: Link::Up,
            witness: Witness::default(),
            beat: None,
            claim: None,
            tenure: None,
        }
    }

    /// What a healthy host does at each tick: a heartbeat, its renewal and echo, and behind the first of them the start. The
    /// guard's deadlines and kills are not among it: how late each of them is acted upon is a step of its own.
    pub(crate) fn lives_on(&mut self, rules: &Rules, hold: Hold, database: &mut Database, at: i64, now: Instant) {
        let is_up = self.supervisor == Life::Running;
        if is_up && self.beat.is_none() {
            self.beat = Some(Beat { sent: now, answer: None });
            self.pass(rules, database, at, now);
        }
        let Some(tenure) = &mut self.tenure else { return };
        if is_up {
            tenure.ticks(now);
        }
        let is_routine = self.supervisor != Life::Dead && !tenure.pipe.kill && tenure.timer > now;
        if is_routine {
            tenure.guard_turns(rules, hold, now, self.supervisor);
        }
        let is_echoed = tenure.switch.until().is_some() || !rules.keep(Rule::StartBehindAHeartbeat);
        if is_up && is_echoed && tenure.command == Command::Waiting {
            tenure.pipe.go = true;
            if is_routine && tenure.timer > now {
                tenure.guard_turns(rules, hold, now, self.supervisor);
            }
        }
    }

    /// As far as the link lets it, the heartbeat goes to the database and its answer comes back.
    pub(crate) fn pass(&mut self, rules: &Rules, database: &mut Database, at: i64, now: Instant) {
        let Some(beat) = &mut self.beat else { return };
        if self.link == Link::Down && self.supervisor == Life::Running && beat.answer.is_none() {
            self.fail_beat();
            return;
        }
        if beat.answer.is_none() && matches!(self.link, Link::Up | Link::AnswersHeld) {
            beat.answer = Some((at, self.tenure.as_ref().map(|it| database.beat(it.instance, at))));
        }
        // What has come in before the link broke lies in our socket.
        if beat.answer.is_some() && self.link != Link::AnswersHeld && self.supervisor == Life::Running {
            let is_in_time = now.since(beat.sent) <= rules.timing.attempt_timeout;
            match self.beat.take().filter(|_| is_in_time || self.has_slept) {
                Some(beat) => self.acknowledged(rules, now, &beat),
                None => self.witness.failed(),
            }
            self.has_slept = false;
        }
    }

    pub(crate) fn fail_beat(&mut self) {
        self.beat = None;
        self.has_slept = false;
        self.witness.failed();
    }

    /// As `Heartbeat::acknowledged` does.
    fn acknowledged(&mut self, rules: &Rules, now: Instant, beat: &Beat) {
        let Some((at, verdict)) = beat.answer else { return };
        let stamp = chrono::DateTime::from_timestamp_millis(at).expect("the model has no time beyond the calendar");
        self.witness.saw(beat.sent, now, stamp);
        let (Some(tenure), Some(verdict)) = (&mut self.tenure, verdict) else { return };
        if verdict == BeatVerdict::Ok {
            tenure.acked_sending = tenure.acked_sending.max(Some(beat.sent));
        }
        match verdict {
            BeatVerdict::Busy if rules.keep(Rule::BusyRenewsNothing) => {}
            BeatVerdict::Ok | BeatVerdict::Busy => {
                let from = if rules.keep(Rule::TrustFromSending) { beat.sent } else { now };
                let before = tenure.trust.until();
                tenure.trust.acknowledged(from, rules.timing.fence_after);
                if tenure.trust.until() > before {
                    tenure.pipe.renewal = tenure.trust.until();
                    tenure.pipe.owed_since.get_or_insert(now);
                }
            }
            BeatVerdict::Lost => tenure.pipe.kill = true,
        }
    }

    /// Whether the tenure's command executes code. What is stopped by SIGSTOP alone might be woken by anybody.
    pub(crate) fn is_at_work(&self, hold: Hold) -> bool {
        self.tenure
            .as_ref()
            .is_some_and(|it| it.command == Command::Started && !(it.switch.is_frozen() && hold == Hold::Freezer))
    }
}

impl Tenure {
    /// Granted, and its guard armed: before the first heartbeat.
    pub(crate) fn armed(rules: &Rules, instance: usize, now: Instant) -> Tenure {
        let timing = rules.timing;
        let switch = Deadman::armed(
            systole::guard::Rules {
                kill_grace: timing.kill_grace,
                freeze_max: timing.freeze_max,
                stopped_max: timing.stopped_max(),
            },
            now,
        );
        Tenure {
            instance,
            trust: Trust::default(),
            guard: Life::Running,
            switch,
            timer: never(),
            pipe: Pipe::default(),
            command: Command::Waiting,
            is_certified: false,
            acked_sending: None,
            was_thawed: false,
        }
    }

    /// The tree is emptied, and that is written down.
    pub(crate) fn end(&mut self) {
        self.command = Command::Dead;
        self.guard = Life::Dead;
        self.is_certified = true;
        // Nobody asks any more what they were like.
        self.timer = never();
        self.pipe = Pipe::default();
    }

    /// The supervisor is alive. A guard that is not stopped hears that without delay, which only saves states.
    pub(crate) fn ticks(&mut self, now: Instant) {
        match self.guard {
            Life::Running => self.switch.ticked(now, now),
            Life::Stopped => self.pipe.tick = Some(now),
            Life::Dead => {}
        }
    }

    /// One turn of the guard's loop, as in `guard::process`: the clock before the pipe, and again behind it. False if there
    /// is nothing to wake up for.
    pub(crate) fn guard_turns(&mut self, rules: &Rules, hold: Hold, now: Instant, supervisor: Life) -> bool {
        let Pipe { renewal, go, kill, .. } = self.pipe;
        let has_news = renewal.is_some() || go || kill || supervisor == Life::Dead || self.timer <= now;
        if self.guard != Life::Running || !has_news {
            return false;
        }
        self.keep_deadline(rules, hold, now);
        if self.guard != Life::Dead {
            self.hear(rules, hold, now, supervisor);
        }
        true
    }

    fn hear(&mut self, rules: &Rules, hold: Hold, now: Instant, supervisor: Life) {
        let renewal = self.pipe.renewal.take();
        if let Some(until) = renewal {
            self.switch.renewed(until);
            self.pipe.owed_since = None;
        }
        if let Some(at) = self.pipe.tick.take() {
            self.switch.ticked(at, now);
        }
        let is_ready = self.switch.until().is_some() || !rules.keep(Rule::StartBehindAHeartbeat);
        if std::mem::take(&mut self.pipe.go) && is_ready {
            self.command = Command::Started;
        }
        if self.pipe.kill || supervisor == Life::Dead {
            self.end();
        } else if renewal.is_some() && self.switch.is_frozen() && !rules.keep(Rule::ThawOnlyIfAhead) {
            self.switch.thawed();
        } else {
            self.keep_deadline(rules, hold, now);
        }
    }

    fn keep_deadline(&mut self, rules: &Rules, hold: Hold, now: Instant) {
        if !rules.keep(Rule::GuardHasADeadline) {
            return;
        }
        loop {
            match self.switch.decide(now) {
                Decision::Wait(until) => {
                    self.timer = until;
                    return;
                }
                Decision::Freeze => {
                    let _ = self.switch.froze(now, rules.told(hold));
                }
                Decision::Thaw => {
                    self.switch.thawed();
                    self.was_thawed = true;
                }
                Decision::Kill(_) => return self.end(),
            }
        }
    }

    /// Whether a living supervisor has found out by now that its guard does not do its work.
    pub(crate) fn is_guard_found_out(&self, rules: &Rules, hold: Hold, now: Instant) -> bool {
        let timing = rules.timing;
        let is_mute = self.pipe.owed_since.is_some_and(|since| now.since(since) > timing.fence_after / 2);
        let is_late = self.trust.until().is_some_and(|until| now >= until + self.patience(rules, hold));
        self.guard != Life::Dead && (is_mute || is_late && rules.keep(Rule::GuardIsWatched))
    }

    /// How long behind its deadline the guard may take to say that it has acted.
    fn patience(&self, rules: &Rules, hold: Hold) -> Duration {
        let timing = rules.timing;
        match (self.switch.is_frozen(), rules.told(hold)) {
            (false, _) => timing.kill_grace / 2,
            (true, Hold::Grace) => timing.stopped_max() + timing.kill_grace / 2,
            (true, Hold::Freezer) => Duration::MAX,
        }
    }

    /// By when somebody must have acted: each does what is due within K, if it is neither stopped nor dead.
    pub(crate) fn is_overdue(&self, rules: &Rules, hold: Hold, supervisor: Life, now: Instant) -> bool {
        let grace = rules.timing.kill_grace;
        let guard = self.guard == Life::Running && self.timer + grace < now;
        let supervisor = supervisor == Life::Running
            && self.guard == Life::Stopped
            && self.is_guard_found_out(rules, hold, now - grace / 2);
        guard || supervisor
    }
}
