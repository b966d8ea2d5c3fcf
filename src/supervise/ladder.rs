//! The stop ladder: TERM, a grace, KILL. And what a signal to the supervisor means. Pure.

use std::time::Duration;

use crate::elapsed::Instant;
use crate::outcome::InstanceStatus;

/// Two Ctrl-C within this time mean it; further apart, they are two of the command's own (an interactive interpreter).
const CTRL_C_TWICE_WITHIN: Duration = Duration::from_secs(5);

/// How far a stop has gone. It only ever goes up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ladder {
    passed_on: Option<(Instant, bool)>,
    ends_as: Option<InstanceStatus>,
    kill_at: Option<Instant>,
    killed: bool,
}

/// What to do now.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rung {
    /// Nothing more than what has been done.
    Stay,
    /// Let the command have the signal, as if we were not there.
    PassOn,
    /// TERM to the whole tree.
    Terminate(InstanceStatus),
    /// KILL.
    Kill(InstanceStatus),
}

impl Ladder {
    /// A signal that asks to end has reached the supervisor. The first is passed on, the second halts, the third kills.
    pub(crate) fn signalled(&mut self, from_keyboard: bool, now: Instant, grace: Duration) -> Rung {
        if self.ends_as.is_some() {
            return self.kill();
        }
        match self.passed_on {
            Some((at, was_keyboard)) if !(was_keyboard && from_keyboard) || now.since(at) <= CTRL_C_TWICE_WITHIN => {
                self.stop(InstanceStatus::Cancelled, now, grace)
            }
            _ => {
                self.passed_on = Some((now, from_keyboard));
                Rung::PassOn
            }
        }
    }

    /// Somebody asked for a stop, or the time is up. The first reason stays.
    pub(crate) fn stop(&mut self, ends_as: InstanceStatus, now: Instant, grace: Duration) -> Rung {
        if self.ends_as.is_some() {
            return Rung::Stay;
        }
        self.ends_as = Some(ends_as);
        self.kill_at = Some(now + grace);
        Rung::Terminate(ends_as)
    }

    /// When the grace ends.
    pub(crate) fn kill_at(&self) -> Option<Instant> {
        self.kill_at.filter(|_| !self.killed)
    }

    /// The grace is over.
    pub(crate) fn kill(&mut self) -> Rung {
        match self.ends_as {
            Some(ends_as) if !self.killed => {
                self.killed = true;
                Rung::Kill(ends_as)
            }
            _ => Rung::Stay,
        }
    }

    /// What the stop makes of the end, if there was one.
    pub(crate) fn ends_as(&self) -> Option<InstanceStatus> {
        self.ends_as
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn the_first_signal_is_passed_on_the_second_halts_the_third_kills() {
        let mut ladder = Ladder::default();
        assert_eq!(ladder.signalled(false, at(0), GRACE), Rung::PassOn);
        assert_eq!(ladder.signalled(false, at(60), GRACE), Rung::Terminate(InstanceStatus::Cancelled));
        assert_eq!(ladder.kill_at(), Some(at(70)));
        assert_eq!(ladder.signalled(false, at(61), GRACE), Rung::Kill(InstanceStatus::Cancelled));
        assert_eq!(ladder.signalled(false, at(62), GRACE), Rung::Stay);
    }

    #[test]
    fn ctrl_c_now_and_then_belongs_to_the_command() {
        let mut ladder = Ladder::default();
        for minute in 0..5 {
            assert_eq!(ladder.signalled(true, at(minute * 60), GRACE), Rung::PassOn);
        }
        assert_eq!(ladder.signalled(true, at(242), GRACE), Rung::Terminate(InstanceStatus::Cancelled));
    }

    #[test]
    fn the_first_reason_stays() {
        let mut ladder = Ladder::default();
        assert_eq!(ladder.stop(InstanceStatus::TimedOut, at(0), GRACE), Rung::Terminate(InstanceStatus::TimedOut));
        assert_eq!(ladder.stop(InstanceStatus::Cancelled, at(1), GRACE), Rung::Stay);
        assert_eq!(ladder.kill(), Rung::Kill(InstanceStatus::TimedOut));
        assert_eq!(ladder.kill_at(), None);
    }
}
