//! How many attempts begin at once.

use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::guard::certificate::DeathSecret;
use crate::ids::InstanceId;
use crate::node::store::Slot;

/// Each has to fork a guard before its first heartbeat. A node that claimed for a thousand free slots together had some taken from
/// it again before it came to them.
const BEGINNING_MAX: usize = 64;

/// The turns that are left.
#[derive(Debug)]
pub(super) struct Turns {
    left: Arc<Semaphore>,
    given_back: Arc<Notify>,
}

/// Of an attempt that has not begun yet; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    held: Option<OwnedSemaphorePermit>,
    given_back: Arc<Notify>,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns { left: Arc::new(Semaphore::new(BEGINNING_MAX)), given_back: Arc::default() }
    }
}

impl Turns {
    /// How many more may begin now.
    pub(super) fn left(&self) -> usize {
        self.left.available_permits()
    }

    /// Whoever was granted more than he asked for, by an answer that came late, begins all the same.
    pub(super) fn take(&self) -> Turn {
        Turn { held: self.left.clone().try_acquire_owned().ok(), given_back: self.given_back.clone() }
    }

    /// Waits until one was given back since this was asked last. Cancel-safe.
    pub(super) async fn given_back(&self) {
        self.given_back.notified().await;
    }
}

/// What an attempt that is to begin is claimed by.
pub(super) fn fresh_slot() -> std::io::Result<Slot> {
    Ok(Slot { instance_id: InstanceId::fresh(), secret: Some(DeathSecret::random()?) })
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.held.take());
        self.given_back.notify_one();
    }
}
