//! The only clock that decides trust: CLOCK_BOOTTIME, which runs on while the machine is suspended.

use std::ops::{Add, Sub};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment on this machine since it booted, in nanoseconds. Means nothing on another machine or after a reboot.
///
/// Unlike `std::time::Instant` it may be sent to another process of the same machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(u64);

impl Instant {
    /// This moment.
    pub fn now() -> Instant {
        #[cfg(target_os = "linux")]
        let clock = ClockId::Boottime;
        // On macOS CLOCK_MONOTONIC runs through sleep, as CLOCK_BOOTTIME does on Linux.
        #[cfg(not(target_os = "linux"))]
        let clock = ClockId::Monotonic;
        let now = clock_gettime(clock);
        Instant(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
    }

    /// The moment that lies this many nanoseconds after the boot.
    pub fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Nanoseconds since the boot.
    pub fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, span: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, span: Duration) -> Instant {
        Instant(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Waits until `deadline`, however long the machine is suspended meanwhile. Cancel-safe.
///
/// tokio's timers stand still during a suspend, so no single sleep is longer than a second.
pub async fn sleep_until(deadline: Instant) {
    loop {
        let left = deadline.since(Instant::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
    }
}

/// A duration as people write it: `500ms`, `30s`, `5m`, `1h30m`. A bare number has no unit, and is refused.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok().filter(|span| *span <= Duration::from_secs(366 * 24 * 3600))
}
