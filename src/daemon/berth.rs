//! Where an attempt is to live: a guard with its init waiting in their containment, and what will carry its output.
//!
//! To make one takes about as long as everything else between a claim and the exec. So a node makes that of its next attempt ahead.

use std::fs::File;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::leaving::Phase;
use super::{Node, Setup, TROUBLE_PAUSE, turns};
use crate::attempt::AttemptError;
use crate::elapsed::Instant;
use crate::guard::{Guard, Outlet, Preparation};
use crate::ids::InstanceId;
use crate::node::store::Slot;
use crate::output::{Pipes, Written};

/// Between the start of an attempt and the making of the next one's berth: first come those that wait.
const SPARE_PAUSE: Duration = Duration::from_millis(20);

/// A berth for one instance. When it is dropped, its guard ends by itself.
pub(super) struct Berth {
    /// Not waited for: it may not be ready yet.
    pub(super) guard: Guard,
    pub(super) written: Written,
    mounts: Mounts,
}

/// The berth of the next attempt, and the slot that it is for.
pub(super) struct Spare {
    slot: Slot,
    berth: Berth,
    /// It was claimed for: until there is an answer, it may have been granted.
    is_in_doubt: bool,
}

/// What is mounted, as it was when init took its own view of it.
struct Mounts(Option<File>);

impl Berth {
    /// Begins to make it. Must be called within a tokio runtime.
    pub(super) fn make(setup: &Setup, instance_id: InstanceId) -> Result<Berth, AttemptError> {
        let log = |error| AttemptError::Log { path: setup.runs_dir.clone(), error };
        let (pipes, written) = Pipes::open().map_err(log)?;
        let outlet = Outlet::pipes(pipes.out, pipes.err).map_err(log)?;
        // Before init is born: a change that it has seen is noticed for nothing, and none is missed.
        let mounts = Mounts::now();
        let guard = Guard::start(Preparation { instance_id, wish: setup.containment, own_session: true }, outlet)?;
        Ok(Berth { guard, written, mounts })
    }
}

impl Spare {
    pub(super) async fn dismiss(self) {
        self.berth.guard.dismiss().await;
    }
}

impl Mounts {
    fn now() -> Mounts {
        Mounts(File::open("/proc/self/mountinfo").ok())
    }

    /// Whether anything was mounted or unmounted since. The kernel says so of an open file: proc_pid_mountinfo(5).
    fn have_changed(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.0.as_ref().is_some_and(|file| poll(&mut [PollFd::new(file, PollFlags::PRI)], Some(&now)) != Ok(0))
    }
}

impl Node {
    /// Makes a spare berth, unless there is one that can be used, or no attempt to come.
    pub(super) fn keep_spare(&mut self) {
        if let Some(spare) = self.spare.as_ref().filter(|spare| !spare.is_in_doubt) {
            let is_gone = spare.berth.guard.is_gone();
            if is_gone {
                self.spare_due = Instant::now() + TROUBLE_PAUSE;
            }
            if is_gone || spare.berth.mounts.have_changed() {
                self.spare = None;
            }
        }
        if !self.lacks_spare() || Instant::now() < self.spare_due {
            return;
        }
        // Whatever it cannot be made for, the attempt itself will meet, and tell.
        let made = turns::fresh_slot().ok().and_then(|slot| {
            let berth = Berth::make(&self.shared.setup, slot.instance_id).ok()?;
            Some(Spare { slot, berth, is_in_doubt: false })
        });
        if made.is_none() {
            self.spare_due = Instant::now() + TROUBLE_PAUSE;
        }
        self.spare = made;
    }

    pub(super) fn lacks_spare(&self) -> bool {
        self.spare.is_none() && self.phase == Phase::Working && !self.shared.setup.once
    }

    /// The spare's slot, to be claimed for; that of one in doubt is claimed for already.
    pub(super) fn spare_slot(&mut self) -> Option<Slot> {
        self.keep_spare();
        let spare = self.spare.as_mut().filter(|spare| !spare.is_in_doubt)?;
        spare.is_in_doubt = true;
        Some(spare.slot)
    }

    /// A claim was answered: what was not granted by now never was.
    pub(super) fn spare_is_known(&mut self) {
        if let Some(spare) = &mut self.spare {
            spare.is_in_doubt = false;
        }
    }

    /// The berth that was made for this slot, if one was.
    pub(super) fn spare_of(&mut self, slot: &Slot) -> Option<Berth> {
        let spare = self.spare.take_if(|spare| spare.slot.instance_id == slot.instance_id)?;
        // Not while this one begins.
        self.spare_due = Instant::now() + SPARE_PAUSE;
        Some(spare.berth)
    }
}
