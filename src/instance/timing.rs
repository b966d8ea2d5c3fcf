//! How long each thing may take, and the relations without which two executors could overlap.

use std::time::Duration;

use humantime::format_duration;

/// r: by how much the rates of two clocks may differ.
pub const CLOCK_RATE_ERROR: f64 = 0.1;

/// J: a step of a clock that goes unnoticed.
pub const UNDETECTED_STEP: Duration = Duration::from_millis(500);

/// The intervals of a lease. Only values that pass [`Timing::checked`] are safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// h: between two heartbeats.
    pub heartbeat_interval: Duration,
    /// Bound of one try at the database, dialling included.
    pub attempt_timeout: Duration,
    /// F: trust ends this long after the last acknowledged heartbeat was *sent*.
    pub fence_after: Duration,
    /// K: how long freezing or killing the tree may take.
    pub kill_grace: Duration,
    /// L: the database lets another take over this long after the last heartbeat it *saw*.
    pub stale_after: Duration,
    /// How long a tree may stay frozen while its supervisor lives and the database is away.
    pub freeze_max: Duration,
}

impl Default for Timing {
    /// `fence 15 s + kill 3 s, at 10 % clock error, + 0.5 s step = 20.3 s ≤ 27 s of a stale 30 s`.
    fn default() -> Timing {
        Timing {
            heartbeat_interval: Duration::from_secs(4),
            attempt_timeout: Duration::from_secs(4),
            fence_after: Duration::from_secs(15),
            kill_grace: Duration::from_secs(3),
            stale_after: Duration::from_secs(30),
            freeze_max: Duration::from_secs(600),
        }
    }
}

/// A set of intervals under which two executors could overlap, or a healthy one be fenced. Says so with its arithmetic.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum UnsafeTiming {
    /// The next executor could start before this one is stopped.
    #[error(
        "unsafe timing: (fence_after + kill_grace) x 1.1 + 0.5s must not exceed stale_after x 0.9, but \
         ({} + {}) x 1.1 + 0.5s = {left:.1}s is more than {} x 0.9 = {right:.1}s. Raise stale_after or lower fence_after",
        format_duration(*.fence_after), format_duration(*.kill_grace), format_duration(*.stale_after)
    )]
    Overlap {
        /// F
        fence_after: Duration,
        /// K
        kill_grace: Duration,
        /// L
        stale_after: Duration,
        /// (F + K)(1 + r) + J in seconds
        left: f64,
        /// L(1 - r) in seconds
        right: f64,
    },
    /// Too few heartbeats fit into a lease: one lost packet would fence a healthy executor.
    #[error(
        "unsafe timing: heartbeat_interval must not exceed fence_after / 3, but {} is more than {} / 3. \
         Lower heartbeat_interval or raise fence_after",
        format_duration(*.heartbeat_interval), format_duration(*.fence_after)
    )]
    TooFewHeartbeats {
        /// h
        heartbeat_interval: Duration,
        /// F
        fence_after: Duration,
    },
    /// One hanging connection would fence a healthy executor.
    #[error(
        "unsafe timing: two tries must fit between a heartbeat and the fence: 2 x attempt_timeout must not exceed \
         fence_after - heartbeat_interval, but 2 x {} is more than {} - {}. Lower attempt_timeout",
        format_duration(*.attempt_timeout), format_duration(*.fence_after), format_duration(*.heartbeat_interval)
    )]
    TooFewTries {
        /// The bound of one try.
        attempt_timeout: Duration,
        /// h
        heartbeat_interval: Duration,
        /// F
        fence_after: Duration,
    },
    /// An interval of zero.
    #[error("unsafe timing: {0} must be longer than zero")]
    Zero(&'static str),
}

impl Timing {
    /// The same intervals, if they are safe together.
    pub fn checked(self) -> Result<Timing, UnsafeTiming> {
        let Timing { heartbeat_interval, attempt_timeout, fence_after, kill_grace, stale_after, freeze_max: _ } = self;
        for (name, span) in [
            ("heartbeat_interval", heartbeat_interval),
            ("attempt_timeout", attempt_timeout),
            ("fence_after", fence_after),
            ("kill_grace", kill_grace),
            ("stale_after", stale_after),
        ] {
            if span.is_zero() {
                return Err(UnsafeTiming::Zero(name));
            }
        }
        let left = (fence_after + kill_grace).as_secs_f64() * (1.0 + CLOCK_RATE_ERROR) + UNDETECTED_STEP.as_secs_f64();
        let right = stale_after.as_secs_f64() * (1.0 - CLOCK_RATE_ERROR);
        if left > right {
            return Err(UnsafeTiming::Overlap { fence_after, kill_grace, stale_after, left, right });
        }
        if heartbeat_interval * 3 > fence_after {
            return Err(UnsafeTiming::TooFewHeartbeats { heartbeat_interval, fence_after });
        }
        if attempt_timeout * 2 + heartbeat_interval > fence_after {
            return Err(UnsafeTiming::TooFewTries { attempt_timeout, heartbeat_interval, fence_after });
        }
        Ok(self)
    }

    /// Nobody can have taken over by age before this long after the last acknowledged heartbeat was sent, whoever the database
    /// was by then.
    pub fn untouched(&self) -> Duration {
        self.stale_after.mul_f64(1.0 - CLOCK_RATE_ERROR).saturating_sub(UNDETECTED_STEP)
    }

    /// Without a freezer the tree must be dead, not merely stopped, before anybody may take over: the kill is decided
    /// this long after the deadline `sent + F`, so that `sent + L(1 - r) - J` leaves K for it. Never negative, because
    /// [`Timing::checked`] holds.
    pub fn stopped_max(&self) -> Duration {
        self.untouched().saturating_sub(self.kill_grace).saturating_sub(self.fence_after)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_defaults_are_safe() {
        assert!(Timing::default().checked().is_ok());
    }

    #[test]
    fn a_refusal_shows_its_arithmetic() {
        let error = Timing { stale_after: Duration::from_secs(20), ..Timing::default() }.checked().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("(15s + 3s) x 1.1 + 0.5s = 20.3s is more than 20s x 0.9 = 18.0s"), "{text}");
    }

    proptest! {
        /// Whatever passes the check: the slowest holder, by the fastest admitted taker's clock, is done before the taker
        /// may start, with or without a freezer.
        #[test]
        fn checked_timing_never_lets_a_taker_in_before_the_holder_is_done(
            h in 1u64..20_000, attempt in 1u64..20_000, f in 1u64..60_000, k in 1u64..20_000, l in 1u64..200_000,
            holder_rate in 0.9f64..1.0, sent_to_seen in 0u64..4_000,
        ) {
            let ms = Duration::from_millis;
            let timing = Timing { heartbeat_interval: ms(h), attempt_timeout: ms(attempt), fence_after: ms(f),
                kill_grace: ms(k), stale_after: ms(l), freeze_max: ms(0) };
            prop_assume!(timing.checked().is_ok());
            // On the database's clock, the beat is seen after it was sent; the holder's clock may run slow.
            let step = UNDETECTED_STEP.as_secs_f64();
            let dead_frozen = (timing.fence_after + timing.kill_grace).as_secs_f64() / holder_rate;
            let dead_stopped = (timing.fence_after + timing.stopped_max() + timing.kill_grace).as_secs_f64() / holder_rate;
            let taken = sent_to_seen as f64 / 1000.0 + timing.stale_after.as_secs_f64();
            prop_assert!(dead_frozen + step <= taken, "{dead_frozen} {taken}");
            prop_assert!(dead_stopped <= taken + 1e-6, "{dead_stopped} {taken}");
        }
    }
}
