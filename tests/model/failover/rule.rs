//! The rules of a failover, each of which can be taken away, and the intervals of either host.

use std::time::Duration;

use systole::instance::Timing;

/// What may be taken away, to see that the model misses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Behind a failover nothing is granted for a while.
    Quarantine,
    /// That is as long as the longest lease, whoever is known to have one.
    ForTheLongest,
    /// Nor is anybody dead by his age in that time.
    AgeWaits,
    /// A holder that was forgotten takes its tenure up again.
    Readoption,
    /// Only out of the line of commits before this one.
    OnlyTheLineBefore,
    /// Or out of one between them, of which this server has never heard.
    UnheardLines,
    /// Of two that were forgotten the one with the higher fence came later.
    FenceDecides,
    /// Not if somebody has claimed the run in this history.
    NobodyClaimedSince,
    /// In the quarantine it ends a tenure that is known, and came before it.
    EndsTheKnown,
    /// Behind the quarantine a known tenure keeps the run.
    KnownKeepsTheRun,
    /// Whether that is over is asked behind the lock of the known one.
    TestBehindTheLock,
    /// A heartbeat on a new history renews nothing in the quarantine, if its holder was silent for long enough to be succeeded.
    SilentWaitsOut,
    /// Each host tells again how its tenures have ended.
    Outbox,
    /// And in which history that was recorded, not in which the tenure was granted.
    OutboxKnowsTheLine,
}

/// All rules but one, or all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) taken_away: Option<Rule>,
    /// Of either host.
    pub(crate) timing: [Timing; 2],
}

/// The tightest that the program would accept: (3 + 1) x 1.1 + 0.5 = 4.9 s of 4.95 s.
pub(crate) const SHORT: Timing = Timing {
    heartbeat_interval: Duration::from_secs(1),
    attempt_timeout: Duration::from_secs(1),
    fence_after: Duration::from_secs(3),
    kill_grace: Duration::from_secs(1),
    stale_after: Duration::from_millis(5500),
    freeze_max: Duration::from_secs(600),
};

/// The same for a longer lease: (6 + 1) x 1.1 + 0.5 = 8.2 s of 8.28 s.
pub(crate) const LONG: Timing =
    Timing { fence_after: Duration::from_secs(6), stale_after: Duration::from_millis(9200), ..SHORT };

impl Rules {
    pub(crate) fn all(timing: [Timing; 2]) -> Rules {
        let timing = timing.map(|it| it.checked().expect("the program accepts these"));
        Rules { taken_away: None, timing }
    }

    pub(crate) fn keep(&self, rule: Rule) -> bool {
        self.taken_away != Some(rule)
    }

    /// L of a host, in milliseconds.
    pub(crate) fn stale_after(&self, host: usize) -> i64 {
        self.timing[host].stale_after.as_millis() as i64
    }

    /// How long nothing is granted behind a failover: `stale_after_max` as low as the leases let it be.
    pub(crate) fn quarantine(&self) -> i64 {
        let both = [0, 1].map(|host| self.stale_after(host));
        match self.taken_away {
            Some(Rule::Quarantine) => 0,
            Some(Rule::ForTheLongest) => both[0].min(both[1]),
            _ => both[0].max(both[1]),
        }
    }
}
