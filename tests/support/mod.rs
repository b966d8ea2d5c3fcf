//! What the tests share: a private PostgreSQL per test process, a database per test, real processes of ours.

#![allow(dead_code, unused_imports, unreachable_pub, missing_docs)] // each test binary uses its own part

pub mod cgroup;
pub mod clock;
pub mod pooler;
pub mod probe;
pub mod process;
pub mod server;
pub mod terminal;

use std::fmt::Display;
use std::time::{Duration, Instant};

pub use cgroup::Cgroup;
pub use clock::ServerClock;
pub use pooler::Pooler;
pub use process::{Running, Systole};
pub use server::{Database, OwnServer};
pub use terminal::Terminal;

/// Waits until `condition` yields something, and fails with `what` if it does not within `limit`.
#[track_caller]
pub fn eventually<T>(what: impl Display, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5)); // between two looks at a condition
    }
}

/// Milliseconds of CLOCK_BOOTTIME, the clock that the probe executors log as well.
pub fn boottime_ms() -> u64 {
    systole::elapsed::Instant::now().as_nanos() / 1_000_000
}

/// Whether tests may make PID namespaces and cgroups.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Checks all through `span` that `condition` holds: for what must not happen.
#[track_caller]
pub fn throughout(what: &str, span: Duration, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while started.elapsed() < span {
        assert!(condition(), "no longer after {:?}: {what}", started.elapsed());
        std::thread::sleep(Duration::from_millis(5)); // between two looks at a condition
    }
}
