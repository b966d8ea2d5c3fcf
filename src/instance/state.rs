//! What passes between a lease and the loop that keeps it: what the loop knows, and what the holder tells.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::store::Pulse;
use crate::db::DbError;
use crate::elapsed::Instant;
use crate::ids::InstanceId;
use crate::tenure::{History, Tenure};

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
    /// Its end is being recorded: that a heartbeat finds it ended is no news.
    pub(super) is_ending: AtomicBool,
    /// Nobody holds it any more: no more heartbeats, whatever else gets lost.
    pub(super) is_over: AtomicBool,
    message: Mutex<Message>,
    /// In which history of the database it was known last.
    history: Mutex<Option<History>>,
}

/// What the command says of its progress, and whether the database has it.
#[derive(Debug, Default)]
pub(super) struct Message {
    text: Option<String>,
    is_told: bool,
}

impl Message {
    /// Replaces what was said before.
    pub(super) fn say(&mut self, text: String) {
        if self.text.as_ref() != Some(&text) {
            *self = Message { text: Some(text), is_told: false };
        }
    }

    /// What the database does not know of.
    pub(super) fn untold(&self) -> Option<String> {
        self.text.clone().filter(|_| !self.is_told)
    }

    /// It knows of this. It may be that something else was said meanwhile.
    pub(super) fn told(&mut self, text: &str) {
        self.is_told |= self.text.as_deref() == Some(text);
    }
}

impl Gauges {
    pub(super) fn of(tenure: &Tenure) -> Gauges {
        Gauges { history: Mutex::new(tenure.history), ..Gauges::default() }
    }

    pub(super) fn history(&self) -> Option<History> {
        *self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known_in(&self, history: Option<History>) {
        *self.history.lock().unwrap_or_else(PoisonError::into_inner) = history;
    }

    pub(super) fn message(&self) -> MutexGuard<'_, Message> {
        self.message.lock().unwrap_or_else(PoisonError::into_inner)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_word_is_told_and_once() {
        let mut message = Message::default();
        assert_eq!(message.untold(), None);
        message.say("one".to_owned());
        assert_eq!(message.untold().as_deref(), Some("one"));
        message.say("two".to_owned());
        message.told("one");
        assert_eq!(message.untold().as_deref(), Some("two"), "what is told is not what was said last");
        message.told("two");
        message.say("two".to_owned());
        assert_eq!(message.untold(), None);
    }
}
