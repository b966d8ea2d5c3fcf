//! What is broken, when, and for how long: from the seed alone.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde::Serialize;

use super::TIMING;

/// The fleet has its first work by then.
const FIRST_AT_MS: u64 = 1500;

/// Between the end of one fault and the next, on top of what it takes to heal.
const PAUSE_MS: RangeInclusive<u64> = 0..=400;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// kill -9 of a node, which is started again at once. Its guards certify.
    NodeKilled,
    /// kill -9 of a node and all its guards, and started again at once: nobody is left to certify.
    NodeAndGuardsKilled,
    /// Everything on a host at once, and the host stays away until long after its runs went stale.
    HostLost,
    /// kill -9 of one guard.
    GuardKilled,
    /// kill -9 of one command.
    ProbeKilled,
    /// SIGSTOP of a node for less than fence_after.
    NodePaused,
    /// SIGSTOP of a node until after stale_after.
    NodeStopped,
    /// SIGSTOP of one guard.
    GuardStopped,
    /// A host is cut off from the database for less than fence_after.
    CutOffBriefly,
    /// A host is cut off from the database until after stale_after.
    CutOff,
    /// kill -9 of one server process: the whole server recovers.
    BackendKilled,
    /// kill -9 of the postmaster, which is started again.
    PostmasterKilled,
    /// Somebody else locks all rows of runs and instances.
    RowsLocked,
    /// The disk with a host's state and output is full.
    DiskFull,
    /// The database's clock is off by some seconds for a while.
    ClockStepped,
    /// The primary is killed and its standby promoted, without what was committed last.
    FailedOver,
}

/// How a kind of fault is dealt.
struct Habit {
    /// Cards in the deck.
    cards: usize,
    length_ms: RangeInclusive<u64>,
    /// How long the fleet may need afterwards, until the next one.
    healing_ms: u64,
}

impl Kind {
    pub(crate) const ALL: [Kind; 16] = [
        Kind::NodeKilled,
        Kind::NodeAndGuardsKilled,
        Kind::HostLost,
        Kind::GuardKilled,
        Kind::ProbeKilled,
        Kind::NodePaused,
        Kind::NodeStopped,
        Kind::GuardStopped,
        Kind::CutOffBriefly,
        Kind::CutOff,
        Kind::BackendKilled,
        Kind::PostmasterKilled,
        Kind::RowsLocked,
        Kind::DiskFull,
        Kind::ClockStepped,
        Kind::FailedOver,
    ];

    fn habit(self) -> Habit {
        let fence = TIMING.fence_after.as_millis() as u64;
        let stale = TIMING.stale_after.as_millis() as u64;
        let habit = |cards, length_ms, healing_ms| Habit { cards, length_ms, healing_ms };
        match self {
            Kind::NodeKilled => habit(4, 0..=0, 1200),
            Kind::NodeAndGuardsKilled => habit(2, 0..=0, 1500),
            Kind::HostLost => habit(1, stale + 500..=stale + 1500, 1500),
            Kind::GuardKilled => habit(3, 0..=0, 1000),
            Kind::ProbeKilled => habit(3, 0..=0, 800),
            Kind::NodePaused => habit(2, 200..=fence * 4 / 5, 800),
            Kind::NodeStopped => habit(1, stale + 500..=stale + 1500, 1500),
            Kind::GuardStopped => habit(2, fence..=fence * 4 / 3, 500),
            Kind::CutOffBriefly => habit(2, 200..=fence * 4 / 5, 800),
            Kind::CutOff => habit(1, stale + 500..=stale + 1500, 1500),
            Kind::BackendKilled => habit(2, 0..=0, 1500),
            Kind::PostmasterKilled => habit(2, 100..=2500, 1500),
            // Longer than fence_after, so that trees freeze, and shorter than stale_after.
            Kind::RowsLocked => habit(2, 300..=stale * 5 / 8, 1000),
            Kind::DiskFull => habit(2, 500..=3000, 1000),
            Kind::ClockStepped => habit(2, 500..=stale, 2500),
            // So long are commits lost; and nothing is granted anew for as long as its healing takes.
            Kind::FailedOver => habit(1, 0..=400, 5500),
        }
    }

    /// Its name in JSON.
    pub(crate) fn name(self) -> String {
        let name = serde_json::to_value(self).expect("a word");
        name.as_str().expect("a word").to_owned()
    }

    /// Whether it strikes all of the fleet through its database.
    pub(crate) fn is_of_database(self) -> bool {
        match self {
            Kind::BackendKilled | Kind::PostmasterKilled | Kind::RowsLocked | Kind::ClockStepped | Kind::FailedOver => {
                true
            }
            Kind::NodeKilled
            | Kind::NodeAndGuardsKilled
            | Kind::HostLost
            | Kind::GuardKilled
            | Kind::ProbeKilled
            | Kind::NodePaused
            | Kind::NodeStopped
            | Kind::GuardStopped
            | Kind::CutOffBriefly
            | Kind::CutOff
            | Kind::DiskFull => false,
        }
    }

    /// Kills that may come on another host while this one lasts.
    fn has_company(self) -> bool {
        matches!(self, Kind::HostLost | Kind::NodeStopped | Kind::CutOff | Kind::PostmasterKilled | Kind::ClockStepped)
    }
}

/// One fault of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    pub(crate) at_ms: u64,
    pub(crate) length_ms: u64,
    /// Chooses among those that can be struck when it comes.
    pub(crate) pick: u32,
}

/// The faults of these kinds within `duration`, in the order of their moments. The same seed, the same faults.
///
/// Dealt from a deck, so that a short drill has many kinds and a long one all of them; the first is always a killed node,
/// for which there must be a hand-over. One at a time, but for kills while something lasts.
pub(crate) fn plan(seed: u64, duration: Duration, kinds: &[Kind]) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let end = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let companions: Vec<Kind> = [Kind::NodeKilled, Kind::GuardKilled, Kind::ProbeKilled]
        .into_iter()
        .filter(|kind| kinds.contains(kind))
        .collect();
    let (mut steps, mut deck, mut at_ms) = (Vec::new(), Vec::new(), FIRST_AT_MS);
    loop {
        if deck.is_empty() {
            deck = kinds.iter().flat_map(|kind| std::iter::repeat_n(*kind, kind.habit().cards)).collect();
            deck.shuffle(&mut random);
            if let (true, Some(first)) = (steps.is_empty(), deck.iter().rposition(|kind| *kind == Kind::NodeKilled)) {
                let last = deck.len() - 1;
                deck.swap(first, last);
            }
        }
        let Some(kind) = deck.pop() else { return steps };
        let habit = kind.habit();
        let length_ms = random.random_range(habit.length_ms);
        if at_ms + length_ms > end {
            return steps;
        }
        steps.push(Step { kind, at_ms, length_ms, pick: random.random() });
        if kind.has_company()
            && random.random_bool(0.5)
            && let Some(company) = companions.choose(&mut random)
        {
            let later = random.random_range(0..=length_ms);
            steps.push(Step { kind: *company, at_ms: at_ms + later, length_ms: 0, pick: random.random() });
        }
        at_ms += length_ms + habit.healing_ms + random.random_range(PAUSE_MS);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_an_hour_has_four_hundred_faults_of_all_kinds() {
        let half_an_hour = Duration::from_secs(1800);
        for seed in 0..20 {
            let steps = plan(seed, half_an_hour, &Kind::ALL);
            assert!(steps.len() >= 400, "{}", steps.len());
            assert_eq!(steps.iter().map(|step| step.kind).collect::<BTreeSet<_>>(), Kind::ALL.into());
        }
    }

    proptest! {
        #[test]
        fn the_same_seed_is_the_same_plan(seed: u64, seconds in 0u64..300, kinds in prop::sample::subsequence(&Kind::ALL[..], 1..16)) {
            let duration = Duration::from_secs(seconds);
            let steps = plan(seed, duration, &kinds);
            prop_assert_eq!(&steps, &plan(seed, duration, &kinds));
            prop_assert!(steps.iter().all(|step| kinds.contains(&step.kind)));
            prop_assert!(steps.iter().all(|step| u128::from(step.at_ms + step.length_ms) <= duration.as_millis()));
            prop_assert!(steps.is_sorted_by_key(|step| step.at_ms));
            if let (Some(first), true) = (steps.first(), kinds.contains(&Kind::NodeKilled)) {
                prop_assert_eq!(first.kind, Kind::NodeKilled);
            }
        }

        /// Only kills come while something lasts: two silences of one holder would add up, and be nobody's.
        #[test]
        fn what_lasts_is_alone(seed: u64) {
            let mut lasts_until = 0;
            for step in plan(seed, Duration::from_secs(600), &Kind::ALL) {
                if step.at_ms < lasts_until {
                    prop_assert!(step.length_ms == 0 && !step.kind.is_of_database(), "{step:?}");
                } else {
                    lasts_until = step.at_ms + step.length_ms;
                }
            }
        }

        /// A longer drill begins as the shorter one.
        #[test]
        fn a_longer_drill_begins_as_the_shorter(seed: u64) {
            let short = plan(seed, Duration::from_secs(20), &Kind::ALL);
            let long = plan(seed, Duration::from_secs(200), &Kind::ALL);
            prop_assert_eq!(&short[..], &long[..short.len()]);
        }
    }
}
