//! Since when may a taker believe the database's clock? Pure: instants and stamps come in as arguments.
//!
//! A step of the database clock makes every holder look silent for as long as the step: a step of 60 s killed a holder
//! a tenth of a second after its heartbeat. So a taker compares, at each of its own heartbeats, how far the database
//! clock went with how far its own CLOCK_BOOTTIME went. A server that was started meanwhile needs no rule here:
//! `rw_since()` speaks for it inside the claim.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::elapsed::Instant;

/// How far the two clocks may drift apart between two heartbeats, beyond what the round trips explain.
const AGREEMENT: Duration = Duration::from_millis(200);

/// An answer that took longer is no sighting: its stamp may be from any moment of that time, and a step as long as it would
/// go unseen. Above all that of a taker who was stopped meanwhile.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);

/// The taker's own view of the database clock.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Witness {
    trusted_since: Option<DateTime<Utc>>,
    last: Option<Sighting>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sighting {
    sent: Instant,
    acked: Instant,
    at: DateTime<Utc>,
}

/// What a taker tells the database with a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Testimony {
    /// Since when, by the database clock, its heartbeats were healthy and the clock went evenly.
    pub trusted_since: DateTime<Utc>,
    /// What the database clock should show when the claim arrives.
    pub expected_now: DateTime<Utc>,
    /// By how much it may differ.
    pub tolerance: Duration,
}

impl Witness {
    /// A heartbeat sent at `sent` was answered at `acked`, and the database clock showed `at` in between.
    ///
    /// A slow answer neither confirms nor breaks the chain: the next quick one is compared with the last quick one.
    pub fn saw(&mut self, sent: Instant, acked: Instant, at: DateTime<Utc>) {
        if acked.since(sent) > ROUND_TRIP_MAX {
            return;
        }
        let agrees = self.last.is_some_and(|last| {
            // Each stamp was taken somewhere between sending and answer, so true elapsed time lies within these.
            let shortest = signed(sent.since(last.acked)) - signed(AGREEMENT);
            let longest = signed(acked.since(last.sent)) + signed(AGREEMENT);
            (shortest..=longest).contains(&(at - last.at))
        });
        if !agrees {
            self.trusted_since = Some(at);
        }
        self.last = Some(Sighting { sent, acked, at });
    }

    /// A heartbeat failed: whatever comes next starts anew.
    pub fn failed(&mut self) {
        *self = Witness::default();
    }

    /// What to tell the database now; `None` while there is nothing to go by.
    pub fn testimony(&self, now: Instant) -> Option<Testimony> {
        let last = self.last?;
        let round_trip = last.acked.since(last.sent);
        Some(Testimony {
            trusted_since: self.trusted_since?,
            expected_now: last.at + signed(now.since(last.sent + round_trip / 2)),
            tolerance: AGREEMENT + round_trip * 2,
        })
    }
}

fn signed(span: Duration) -> TimeDelta {
    TimeDelta::from_std(span).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_700_000_000_000 + ms).unwrap()
    }

    fn boot(ms: u64) -> Instant {
        Instant::from_nanos((1_000_000 + ms) * 1_000_000)
    }

    #[test]
    fn even_clocks_keep_the_first_moment() {
        let mut witness = Witness::default();
        for n in 0..10 {
            witness.saw(boot(n * 4000), boot(n * 4000 + 20), at(n as i64 * 4000 + 10));
        }
        assert_eq!(witness.testimony(boot(40_000)).unwrap().trusted_since, at(10));
        let expected = witness.testimony(boot(40_000)).unwrap().expected_now;
        assert!((expected - at(40_000)).num_milliseconds().abs() <= 10);
    }

    #[test]
    fn a_step_of_the_database_clock_starts_trust_anew() {
        for step in [60_000, -60_000, 300, -300] {
            let mut witness = Witness::default();
            witness.saw(boot(0), boot(2), at(1));
            witness.saw(boot(4000), boot(4002), at(4001 + step));
            assert_eq!(witness.testimony(boot(4002)).unwrap().trusted_since, at(4001 + step), "step of {step} ms");
        }
    }

    #[test]
    fn a_slow_round_trip_is_no_step() {
        let mut witness = Witness::default();
        witness.saw(boot(0), boot(2), at(1));
        witness.saw(boot(4000), boot(7000), at(6900));
        assert_eq!(witness.testimony(boot(7000)).unwrap().trusted_since, at(1));
    }

    /// Found by tests/model: a taker was stopped in the middle of a heartbeat, and the clock was set meanwhile.
    #[test]
    fn a_step_does_not_hide_in_a_slow_answer() {
        let mut witness = Witness::default();
        witness.saw(boot(0), boot(2), at(1));
        witness.saw(boot(4000), boot(64_000), at(4001));
        let testimony = witness.testimony(boot(64_000)).unwrap();
        assert!(testimony.tolerance < Duration::from_millis(500), "{testimony:?}");
        assert_eq!((testimony.expected_now - at(64_000)).num_milliseconds(), 0);
        witness.saw(boot(64_001), boot(64_003), at(124_002));
        assert_eq!(witness.testimony(boot(64_003)).unwrap().trusted_since, at(124_002));
    }

    #[test]
    fn a_failed_heartbeat_breaks_the_chain() {
        let mut witness = Witness::default();
        witness.saw(boot(0), boot(2), at(1));
        witness.failed();
        assert_eq!(witness.testimony(boot(5)), None);
        witness.saw(boot(9000), boot(9002), at(9001));
        assert_eq!(witness.testimony(boot(9002)).unwrap().trusted_since, at(9001));
    }
}
