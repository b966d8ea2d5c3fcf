//! A lease in a program's hands: its fence, its end, and the three ways to give it up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::operation::{Op, Release};
use super::state::{Gauges, LeaseState, Loss};
use super::store::{Finish, Holder};
use crate::backoff::Backoff;
use crate::db::DbError;
use crate::elapsed::{Instant, sleep_until};
use crate::ids::{Fence, InstanceId, RunId};
use crate::outcome::{End, InstanceStatus};
use crate::tenure::{History, Tenure};

/// The right to be the only executor of a run, for as long as its heartbeats are acknowledged.
///
/// There is no guard behind a library lease: that nobody else works on the run at the same time holds only if the
/// program stops by [`Lease::lost`]. What it writes to PostgreSQL it can protect without that assumption, by calling
/// `systole.fence(run_id, fence)` last in its transactions.
///
/// Dropping a lease gives it back (RELEASED) in the background, trying for at most `stale_after`; if the process ends
/// before, the lease runs out by itself after `stale_after`. It is never silently kept.
#[derive(Debug)]
pub struct Lease {
    pub(super) tenure: Arc<Tenure>,
    pub(super) predecessor: Option<Holder>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) state: watch::Receiver<LeaseState>,
    pub(super) operations: mpsc::Sender<Op>,
    pub(super) ended: bool,
}

/// Why a finish was not recorded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FinishError {
    /// The tenure had ended before in another way; what was said now is not recorded.
    #[error("the run \"{run_id}\" was lost before its end could be recorded: another executor may hold it")]
    Lost {
        /// The run.
        run_id: RunId,
    },
    /// The database does not take this end for one (its detail, say), and never will: nothing is recorded, and the lease is
    /// given back.
    #[error(transparent)]
    Db(DbError),
    /// The heartbeat thread is gone: a bug of ours.
    #[error("the heartbeat thread has ended")]
    Stopped,
}

impl Lease {
    /// The run.
    pub fn run_id(&self) -> &RunId {
        &self.tenure.run_id
    }

    /// The identity of this tenure.
    pub fn instance_id(&self) -> InstanceId {
        self.tenure.instance_id
    }

    /// The fencing token, for `systole.fence(run_id, fence)` and for any store that compares tokens.
    pub fn fence(&self) -> Fence {
        self.tenure.fence
    }

    /// This tenure's number within its run, from 1.
    pub fn attempt(&self) -> i32 {
        self.tenure.attempt
    }

    /// In which history of the database it was known last, or an older one.
    pub(crate) fn history(&self) -> Option<History> {
        self.gauges.history()
    }

    /// The crashed instance that this one follows, if it follows one.
    pub fn predecessor(&self) -> Option<&Holder> {
        self.predecessor.as_ref()
    }

    /// What the heartbeat loop knows, and how to wait for news of it.
    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.state.clone()
    }

    /// Resolves when the run may no longer be worked on: superseded, or no heartbeat acknowledged for `fence_after`.
    ///
    /// Stop at once then, within `kill_grace`. Cancel-safe; may be called again, also from several tasks.
    pub async fn lost(&self) -> Loss {
        let mut state = self.state.clone();
        loop {
            let LeaseState { trusted_until, lost, .. } = state.borrow_and_update().clone();
            if let Some(loss) = lost {
                return loss;
            }
            let until = trusted_until.unwrap_or(Instant::from_nanos(0));
            tokio::select! {
                changed = state.changed() => if changed.is_err() { return Loss::Expired },
                () = sleep_until(until) => return Loss::Expired,
            }
        }
    }

    /// Tells how far the work is; shown as `phases_executed`. Goes with the next heartbeat, and never backwards.
    pub fn progress(&self, phases: i64) {
        self.gauges.phases.fetch_max(phases, Ordering::Relaxed);
    }

    /// The progress told last.
    pub(crate) fn phases(&self) -> i64 {
        self.gauges.phases.load(Ordering::Relaxed)
    }

    /// [`Lease::progress`] for somebody who does not hold the lease, with a word on what is being done.
    pub(crate) fn progress_teller(&self) -> impl Fn(i64, Option<String>) + Clone + Send + 'static {
        let gauges = self.gauges.clone();
        move |phases, message| {
            gauges.phases.fetch_max(phases, Ordering::Relaxed);
            if let Some(message) = message {
                gauges.message().say(message);
            }
        }
    }

    /// Tells which process does the work, with a heartbeat sent soon.
    pub(crate) fn started(&self, child_pid: i32) {
        self.gauges.child_pid.store(child_pid, Ordering::Relaxed);
        // If the queue is full, the next heartbeat carries it.
        let _ = self.operations.try_send(Op::BeatSoon(self.instance_id()));
    }

    /// Ends the tenure as COMPLETED. See [`Lease::finish`] on errors and cancellation.
    pub async fn complete(self) -> Result<(), FinishError> {
        self.finish(End::of(InstanceStatus::Completed)).await
    }

    /// Ends the tenure as FAILED. See [`Lease::finish`] on errors and cancellation.
    pub async fn fail(self) -> Result<(), FinishError> {
        self.finish(End::of(InstanceStatus::Failed)).await
    }

    /// Gives the run back on purpose. See [`Lease::finish`] on errors and cancellation.
    pub async fn release(self) -> Result<(), FinishError> {
        self.finish(End::of(InstanceStatus::Released)).await
    }

    /// Ends the tenure, and keeps it alive until the end is recorded, however long the database is away, or refuses: a
    /// password that was changed too early, a right that was taken away, are mended by somebody sooner or later.
    ///
    /// Dropping the future gives the lease back instead; the end may have been recorded by then, or not.
    pub async fn finish(mut self, end: End) -> Result<(), FinishError> {
        self.record_end(end).await
    }

    /// [`Lease::finish`] for somebody who may still change his mind: dropping this future gives nothing back, though the end may
    /// be recorded behind its back.
    pub(crate) async fn record_end(&mut self, mut end: End) -> Result<(), FinishError> {
        // No heartbeat follows that could tell it.
        if let (Some(message), Some(detail)) = (self.gauges.message().untold(), end.detail.as_object_mut()) {
            detail.insert("message".to_owned(), message.into());
        }
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        self.gauges.is_ending.store(true, Ordering::Relaxed);
        loop {
            let (reply, answer) = oneshot::channel();
            let finish = Box::new(self.as_ended(end.clone()));
            let operation = Op::Finish { finish, reply };
            self.operations.send(operation).await.map_err(|_| FinishError::Stopped)?;
            match answer.await {
                Ok(Ok(stands)) => {
                    self.over();
                    return if stands { Ok(()) } else { Err(FinishError::Lost { run_id: self.run_id().clone() }) };
                }
                Ok(Err(error)) if error.is_about_the_value() => return Err(FinishError::Db(error)),
                // Its outcome is unknown, or the loop was too busy to take it: ask again.
                Ok(Err(_)) | Err(_) => {
                    // A heartbeat tells what the trouble is.
                    let _ = self.operations.try_send(Op::BeatSoon(self.instance_id()));
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    /// What is to be recorded of such an end.
    pub(super) fn as_ended(&self, end: End) -> Finish {
        Finish { tenure: self.tenure.clone(), history: self.history(), end, phases: self.phases() }
    }

    /// Leaves the tenure as it is: its end is on disk as a certificate, or has been recorded by somebody else.
    pub(crate) fn abandon(mut self) {
        self.over();
    }

    /// No more heartbeats, and nothing to be given back.
    fn over(&mut self) {
        self.ended = true;
        self.gauges.is_over.store(true, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.ended {
            // If the queue is full or the loop is gone, the lease runs out by itself: nobody beats for it any more.
            self.gauges.is_over.store(true, Ordering::Relaxed);
            let finish = self.as_ended(End::of(InstanceStatus::Released));
            let until = Instant::now() + self.tenure.executor.stale_after;
            let _ = self.operations.try_send(Op::Release(Release { finish, until }));
        }
    }
}
