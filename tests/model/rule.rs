//! The rules of the protocol, each of which can be taken away, and the intervals they work with.

use std::time::Duration;

use systole::guard::Hold;
use systole::instance::Timing;

/// What may be taken away, to see that the model misses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Trust counts from the sending of a heartbeat, not from its answer.
    TrustFromSending,
    /// `busy` renews nothing.
    BusyRenewsNothing,
    /// A holder is judged by its own stale_after, not by its taker's.
    HoldersOwnStaleAfter,
    /// Nobody is stale before the server has taken heartbeats for stale_after.
    RwSince,
    /// A taker has watched the database's clock for stale_after.
    TrustedSince,
    /// A claim says what the database's clock should show.
    ExpectedNow,
    /// A claim tests the age again once it has its locks.
    TestBehindTheLock,
    /// A fence is greater than every earlier one, whatever the clock says.
    FenceGrows,
    /// `fence()` holds the run until its transaction ends.
    FenceLocks,
    /// A certificate is written when the tree is empty.
    CertificateIsProof,
    /// Whoever was revoked by force bars its successor until it is known to be over.
    RevokedBarsItsSuccessor,
    /// A command starts behind an acknowledged heartbeat.
    StartBehindAHeartbeat,
    /// The guard acts at its deadline, and not only when its supervisor is gone.
    GuardHasADeadline,
    /// A renewal thaws only if its deadline is ahead.
    ThawOnlyIfAhead,
    /// What is stopped by SIGSTOP alone is killed in time.
    StoppedIsNotFrozen,
    /// A supervisor kills a guard that has not acted at its deadline, and its tree.
    GuardIsWatched,
}

/// The protocol with all of its rules but one, or with all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) taken_away: Option<Rule>,
    pub(crate) timing: Timing,
}

impl Rules {
    pub(crate) fn all() -> Rules {
        let second = Duration::from_secs(1);
        let timing = Timing {
            heartbeat_interval: second,
            attempt_timeout: second,
            fence_after: second * 3,
            kill_grace: second,
            stale_after: Duration::from_millis(5500),
            freeze_max: second * 600,
        };
        // The tightest that the program would accept: 4.9 s of 4.95 s.
        Rules { taken_away: None, timing: timing.checked().expect("the program accepts these") }
    }

    pub(crate) fn keep(&self, rule: Rule) -> bool {
        self.taken_away != Some(rule)
    }

    /// How well the guard is told that its tree is held.
    pub(crate) fn told(&self, hold: Hold) -> Hold {
        if self.keep(Rule::StoppedIsNotFrozen) { hold } else { Hold::Freezer }
    }

    /// L, in milliseconds.
    pub(crate) fn stale_after(&self) -> i64 {
        self.timing.stale_after.as_millis() as i64
    }

    /// What a hasty taker would bring, were it asked.
    pub(crate) fn impatience(&self) -> i64 {
        self.timing.heartbeat_interval.as_millis() as i64
    }
}
