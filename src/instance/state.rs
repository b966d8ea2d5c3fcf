//! What passes between a lease and the loop that keeps it: what the loop knows, and what the holder tells.

use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

use super::store::Pulse;
use crate::db::DbError;
use crate::elapsed::Instant;
use crate::ids::InstanceId;

/// What the heartbeat loop knows of a lease.
#[derive(Debug, Clone, Default)]
pub struct LeaseState {
    /// `sent + fence_after` of the newest acknowledged heartbeat; `None` before the first.
    pub trusted_until: Option<Instant>,
    /// Set once, and for good.
    pub lost: Option<Loss>,
    /// Somebody has asked for a stop (`systole stop`).
    pub stop_requested: bool,
    /// Why the newest heartbeat failed; `None` after a success.
    pub trouble: Option<DbError>,
    /// The newest heartbeat found its row locked by somebody else's transaction.
    pub busy: bool,
}

/// Why a lease is over although nobody here ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The database says so: another executor holds the run, or an operator has ended this tenure.
    Superseded,
    /// No heartbeat was acknowledged in time: another executor may soon hold the run.
    Expired,
}

/// What a holder tells with its next heartbeat.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub(super) phases: AtomicI64,
    /// 0 until the command has been started.
    pub(super) child_pid: AtomicI32,
}

impl Gauges {
    /// What the next heartbeat of this instance carries.
    pub(super) fn pulse(&self, instance_id: InstanceId) -> Pulse {
        let child_pid = self.child_pid.load(Ordering::Relaxed);
        Pulse {
            instance_id,
            phases: self.phases.load(Ordering::Relaxed),
            child_pid: (child_pid != 0).then_some(child_pid),
        }
    }
}
