//! When to freeze, thaw and kill. Pure: the clock comes in as an argument, and no process is touched.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::elapsed::Instant;

/// The relations the switch works by; durations of the supervisor's timing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rules {
    /// K: a silent supervisor's tree is dead by deadline + K, so its end is decided at half of that.
    pub kill_grace: Duration,
    /// How long a tree may stay frozen while its supervisor lives.
    pub freeze_max: Duration,
    /// The same without a freezer, where a stopped tree could be woken by anybody, counted from the deadline.
    pub stopped_max: Duration,
}

/// How well a frozen tree is held, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Hold {
    /// All of it by the freezer of its cgroup, whatever anybody sends it.
    Freezer,
    /// Some of it by SIGSTOP alone: anybody may wake it.
    Grace,
}

/// Why a tree was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillReason {
    /// The supervisor's end of the socket closed: it has died.
    SupervisorGone,
    /// The deadline passed, and the supervisor neither renewed nor ticked: stopped or hung.
    SupervisorSilent,
    /// The supervisor lives, but has had no acknowledged heartbeat for longer than a tree may wait.
    DatabaseAway,
    /// The supervisor said so.
    Ordered,
}

/// What to do now.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing before this moment.
    Wait(Instant),
    /// The deadline has passed.
    Freeze,
    /// The deadline of a frozen tree is ahead again.
    Thaw,
    /// For good.
    Kill(KillReason),
}

/// The state of the switch: armed with its first deadline, and final once it has killed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Deadman {
    rules: Rules,
    /// The latest absolute deadline: `sent + F` of an acknowledged heartbeat. None has come yet: nothing may start.
    until: Option<Instant>,
    last_tick: Instant,
    frozen: Option<(Instant, Hold)>,
}

impl Deadman {
    /// Armed, but without a deadline yet.
    pub fn armed(rules: Rules, now: Instant) -> Deadman {
        Deadman { rules, until: None, last_tick: now, frozen: None }
    }

    /// A renewal: deadlines are absolute, so one that was long under way moves nothing it should not.
    pub fn renewed(&mut self, until: Instant) {
        self.until = self.until.max(Some(until));
    }

    /// A sign of life that was *sent* at `at`: one that lay in the socket while we were stopped is as old as it is.
    pub fn ticked(&mut self, at: Instant, now: Instant) {
        self.last_tick = self.last_tick.max(at.min(now));
    }

    /// Also said again while frozen: a hold gets no better by that, only worse. True if it is news.
    pub fn froze(&mut self, now: Instant, hold: Hold) -> bool {
        let before = self.frozen;
        let (since, held) = before.unwrap_or((now, hold));
        self.frozen = Some((since, held.max(hold)));
        self.frozen != before
    }

    /// The tree runs again.
    pub fn thawed(&mut self) {
        self.frozen = None;
    }

    /// Whether the tree is held, however well.
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// How long a freeze may take before it is said to be done: within half of K the supervisor wants to hear of it.
    pub(crate) fn freeze_patience(&self) -> Duration {
        self.rules.kill_grace / 4
    }

    /// The deadline; without one nothing may be started.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// What to do at `now`. Every answer but `Wait` is to be acted upon and reported, and then to be asked for again.
    pub fn decide(&self, now: Instant) -> Decision {
        let Some(until) = self.until else { return Decision::Wait(Instant::from_nanos(u64::MAX)) };
        let Some((frozen_since, hold)) = self.frozen else {
            return if now < until { Decision::Wait(until) } else { Decision::Freeze };
        };
        if now < until {
            return Decision::Thaw;
        }
        let silent_at = until.max(self.last_tick) + self.rules.kill_grace / 2;
        let away_at = match hold {
            Hold::Freezer => frozen_since + self.rules.freeze_max,
            Hold::Grace => until + self.rules.stopped_max,
        };
        if now >= silent_at {
            Decision::Kill(KillReason::SupervisorSilent)
        } else if now >= away_at {
            Decision::Kill(KillReason::DatabaseAway)
        } else {
            Decision::Wait(silent_at.min(away_at))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    const RULES: Rules = Rules {
        kill_grace: Duration::from_secs(3),
        freeze_max: Duration::from_secs(600),
        stopped_max: Duration::from_millis(8500),
    };

    fn frozen_at_deadline(hold: Hold) -> Deadman {
        let mut switch = Deadman::armed(RULES, at(0));
        switch.renewed(at(15_000));
        assert_eq!(switch.decide(at(14_999)), Decision::Wait(at(15_000)));
        assert_eq!(switch.decide(at(15_000)), Decision::Freeze);
        assert!(switch.froze(at(15_000), hold));
        switch
    }

    #[test]
    fn without_a_renewal_there_is_no_deadline_to_start_by() {
        let switch = Deadman::armed(RULES, at(0));
        assert_eq!(switch.until(), None);
        assert!(matches!(switch.decide(at(1_000_000)), Decision::Wait(_)));
    }

    #[test]
    fn a_silent_supervisor_costs_its_tree_within_k_of_the_deadline() {
        let switch = frozen_at_deadline(Hold::Freezer);
        assert_eq!(switch.decide(at(16_499)), Decision::Wait(at(16_500)));
        assert_eq!(switch.decide(at(16_500)), Decision::Kill(KillReason::SupervisorSilent));
    }

    #[test]
    fn a_living_supervisor_keeps_its_tree_frozen_while_the_database_is_away() {
        let mut switch = frozen_at_deadline(Hold::Freezer);
        for second in 16..600 {
            switch.ticked(at(second * 1000), at(second * 1000));
            assert!(matches!(switch.decide(at(second * 1000)), Decision::Wait(_)), "{second}");
        }
        switch.ticked(at(615_000), at(615_000));
        assert_eq!(switch.decide(at(615_000)), Decision::Kill(KillReason::DatabaseAway));
    }

    #[test]
    fn without_a_freezer_the_tree_is_dead_before_anybody_may_take_over() {
        let mut switch = frozen_at_deadline(Hold::Grace);
        switch.ticked(at(23_400), at(23_400));
        assert!(matches!(switch.decide(at(23_400)), Decision::Wait(_)));
        switch.ticked(at(23_500), at(23_500));
        // 23.5 s + K = 26.5 s = 30 s x 0.9 - 0.5 s.
        assert_eq!(switch.decide(at(23_500)), Decision::Kill(KillReason::DatabaseAway));
    }

    #[test]
    fn what_escapes_from_a_freezer_has_the_time_of_one_without() {
        let mut switch = frozen_at_deadline(Hold::Freezer);
        switch.ticked(at(20_000), at(20_000));
        assert!(!switch.froze(at(20_000), Hold::Freezer));
        assert!(switch.froze(at(20_000), Hold::Grace));
        assert!(!switch.froze(at(20_000), Hold::Freezer), "a hold that was lost is not won back");
        switch.ticked(at(23_500), at(23_500));
        assert_eq!(switch.decide(at(23_500)), Decision::Kill(KillReason::DatabaseAway));
    }

    #[test]
    fn a_renewal_that_came_too_late_thaws_nothing() {
        let mut switch = frozen_at_deadline(Hold::Freezer);
        switch.renewed(at(15_900));
        assert_ne!(switch.decide(at(16_000)), Decision::Thaw);
        switch.renewed(at(30_000));
        assert_eq!(switch.decide(at(16_000)), Decision::Thaw);
    }

    #[test]
    fn ticks_that_lay_in_the_socket_are_as_old_as_they_are() {
        let mut switch = frozen_at_deadline(Hold::Freezer);
        // We were stopped; the supervisor's last tick is from 15.2 s, and read only now.
        switch.ticked(at(15_200), at(40_000));
        assert_eq!(switch.decide(at(40_000)), Decision::Kill(KillReason::SupervisorSilent));
    }

    proptest! {
        /// Whatever arrives in whatever order: nothing runs past the newest deadline, and deadlines only come from renewals.
        #[test]
        fn nothing_runs_past_the_newest_renewal(
            steps in prop::collection::vec((0u64..3, 0u64..60_000), 1..60), freezer: bool,
        ) {
            let hold = if freezer { Hold::Freezer } else { Hold::Grace };
            let mut switch = Deadman::armed(RULES, at(0));
            let (mut now, mut newest) = (0u64, 0u64);
            for (kind, value) in steps {
                match kind {
                    0 => { switch.renewed(at(value)); newest = newest.max(value); }
                    1 => switch.ticked(at(value), at(now)),
                    _ => now += value / 20,
                }
                match switch.decide(at(now)) {
                    Decision::Freeze => prop_assert!(switch.froze(at(now), hold)),
                    Decision::Thaw => switch.thawed(),
                    Decision::Kill(_) => { prop_assert!(now >= newest); break; }
                    Decision::Wait(next) => prop_assert!(next > at(now)),
                }
                prop_assert!(switch.until().is_none() || switch.is_frozen() || now < newest, "running at {now} with deadline {newest}");
            }
        }
    }
}
