//! A chaos run on purpose: a small fleet on a throw-away database, faults from a seed, and a verdict.
//!
//! ```text
//! plan      from the seed alone: what is broken, when, for how long                                  (pure)
//! host      a thread in namespaces of its own: the network and the state folder of one machine
//! servers   a private PostgreSQL and its standby, in a network of their own, killed, started again, promoted
//! clock     that of the servers, set with the help of libfaketime
//! fleet     a node on each host, as real processes of this program
//! probe     what the fleet runs: it writes down when it ran, and moves money in fenced transactions
//! work      keeps the fleet busy, and writes late, as somebody who does not know that he was superseded
//! faults    does what the plan says, and writes down when it really was
//! evidence  the logs of the probes, the tables, the ledger, what the nodes said
//! verdict   whether the promises were kept                                                           (pure)
//! ```
//!
//! It proves what it sees: that the processes of two attempts never interleave by CLOCK_BOOTTIME, that no money moved in the
//! name of a superseded attempt, that each attempt that did not complete has a fault of the plan as its reason. It does
//! not prove the absence of what it cannot make: failing memory, a kernel that lies, a disk that forgets.
//!
//! All of it ends with it. Namespaces and mounts belong to threads and vanish with them, nodes die with their thread, and
//! server and folder hang on a leash: a process that ends both when this one is gone, however it went.

mod clock;
mod error;
mod evidence;
mod faults;
mod fleet;
mod host;
mod leash;
mod ledger;
mod network;
mod obstacles;
mod plan;
mod probe;
mod processes;
mod run;
mod server;
mod servers;
mod verdict;
mod work;

pub(crate) use error::DrillError;
pub(crate) use fleet::become_node;
pub(crate) use probe::{Role, work_as_probe};
pub(crate) use run::{Order, run};
pub(crate) use verdict::{Delays, Verdict};

use std::time::Duration;

use crate::instance::Timing;

/// Frozen after 1.5 s, stale after 4 s: much happens in a short time, and `(1.5 + 1) x 1.1 + 0.5 = 3.25 ≤ 3.6` of a stale 4 s.
const TIMING: Timing = Timing {
    heartbeat_interval: Duration::from_millis(400),
    attempt_timeout: Duration::from_millis(500),
    fence_after: Duration::from_millis(1500),
    kill_grace: Duration::from_secs(1),
    stale_after: Duration::from_secs(4),
    freeze_max: Duration::from_secs(600),
};

/// Hosts, each with one node. A lost one and one that was killed beside it leave two.
const HOSTS: usize = 4;

/// Runs that one node works on at once.
const SLOTS: usize = 3;

/// Runs in the queue or at work: as many as two nodes can take, so that no hand-over waits for a slot.
const IN_FLIGHT: i64 = 6;

/// The schema of systole's tables, and that of the ledger. Both are dropped before and after.
pub(crate) const SCHEMA: &str = "systole_drill";
pub(crate) const LEDGER_SCHEMA: &str = "systole_drill_ledger";

/// Marks every process of a probe, by its environment, so that it is found wherever it hides.
const MARK: &str = "DRILL_MARK";

#[cfg(test)]
mod tests {
    #[test]
    fn the_fast_timing_is_safe() {
        assert_eq!(super::TIMING.checked().err(), None);
    }
}
