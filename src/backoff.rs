//! How long to wait before the next try: exponential with full jitter, so that a fleet does not return in step.

use std::time::Duration;

use rand::Rng;

/// Delays between tries: each uniform in `0..=ceiling`, the ceiling doubling up to a maximum.
#[derive(Debug, Clone)]
pub struct Backoff {
    ceiling: Duration,
    start: Duration,
    max: Duration,
}

impl Backoff {
    /// Starts with delays of up to `start`, and ends with delays of up to `max`.
    pub fn new(start: Duration, max: Duration) -> Backoff {
        Backoff { ceiling: start, start, max }
    }

    /// The delay before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.ceiling.mul_f64(rand::rng().random::<f64>());
        self.ceiling = (self.ceiling * 2).min(self.max);
        delay
    }

    /// Back to the start: the last try succeeded.
    pub fn reset(&mut self) {
        self.ceiling = self.start;
    }
}
