//! Until when may we believe our last answer? Pure: time comes in as an argument.

use std::time::Duration;

use super::timing::Timing;
use crate::elapsed::Instant;

/// The end of our trust in being the holder. It only ever moves to `sent + F` of an acknowledged heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Trust {
    until: Option<Instant>,
}

impl Trust {
    /// A heartbeat that was sent at `sent` has been acknowledged, whenever that was: only its sending counts.
    pub fn acknowledged(&mut self, sent: Instant, fence_after: Duration) {
        self.until = self.until.max(Some(sent + fence_after));
    }

    /// The end of trust; `None` before the first acknowledged heartbeat.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether somebody may have taken over by age when an answer comes at `acked`: nobody can have before the newest
    /// acknowledged heartbeat was [`Timing::untouched`] old. Before the first one, anybody.
    pub fn may_be_succeeded(&self, acked: Instant, timing: &Timing) -> bool {
        let last_sent = self.until.map(|until| until - timing.fence_after);
        last_sent.is_none_or(|sent| acked.since(sent) >= timing.untouched())
    }

    /// Whether we may act at `now`.
    pub fn holds_at(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn nobody_trusts_before_the_first_acknowledged_heartbeat() {
        assert!(!Trust::default().holds_at(at(0)));
    }

    #[test]
    fn a_late_success_cannot_stretch_trust() {
        let mut trust = Trust::default();
        // Sent at 0, acknowledged at 14.9 s or at 100 s: it makes no difference.
        trust.acknowledged(at(0), Duration::from_secs(15));
        assert!(trust.holds_at(at(14_999)));
        assert!(!trust.holds_at(at(15_000)));
    }

    proptest! {
        /// Answers may arrive in any order: trust ends F after the newest sending among them, and never later.
        #[test]
        fn trust_ends_f_after_the_newest_acknowledged_sending(
            sends in prop::collection::vec(0u64..100_000, 1..20), f in 1u64..60_000,
        ) {
            let mut trust = Trust::default();
            for sent in &sends {
                trust.acknowledged(at(*sent), Duration::from_millis(f));
            }
            let newest = sends.iter().max().unwrap();
            prop_assert_eq!(trust.until(), Some(at(newest + f)));
        }
    }
}
