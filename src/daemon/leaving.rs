//! How a node goes: drained, then halted, and whatever could not be recorded left where it will be found.

use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::sync::mpsc;

use super::Node;
use crate::attempt::AttemptError;
use crate::elapsed::Instant;
use crate::log::{self, What};
use crate::node::store::{self, NodeState};
use crate::supervise::Origin;

/// How far it is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Starting,
    Working,
    /// Takes nothing more; gives back at this moment what still runs.
    Draining {
        until: Instant,
    },
    /// Has given everything back.
    Halting,
}

/// What whoever has started a node wants of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leave {
    /// There is nothing more to come: end, when what runs has ended.
    Over,
    /// Drain, for this reason.
    Drain(String),
}

/// What is wanted next. Cancel-safe.
pub(super) async fn asked(leaving: &mut Option<mpsc::Receiver<Leave>>) -> Leave {
    match leaving {
        Some(asked) => match asked.recv().await {
            Some(leave) => leave,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

impl Node {
    pub(super) fn leave(&mut self, leave: Leave) {
        match leave {
            Leave::Over => self.phase = Phase::Halting,
            Leave::Drain(why) if self.phase <= Phase::Working => self.drain(&why),
            Leave::Drain(_) => {}
        }
    }

    pub(super) fn is_done(&self) -> bool {
        // A claim without an answer may have been granted: while there is time, that is found out first.
        let in_doubt = self.claimer.in_doubt() > 0 && self.phase != Phase::Halting;
        self.phase > Phase::Working && self.running.is_empty() && !in_doubt
    }

    pub(super) fn signalled(&mut self, signal: i32) {
        if !matches!(signal, SIGINT | SIGTERM) {
            return;
        }
        self.signals += 1;
        match (self.signals, self.phase) {
            (1, Phase::Starting | Phase::Working) => self.drain("a signal"),
            (1, _) => log::say(What::Draining, "a signal: it is on its way out already; again to stop what runs"),
            (2, _) => {
                log::say(What::Halting, "a second signal: stopping what runs, and giving it back");
                self.halt();
            }
            _ => {
                log::say(
                    What::Halting,
                    "a third signal: killing what runs, and leaving what cannot be recorded to its certificates",
                );
                self.halt();
            }
        }
    }

    pub(super) fn drain(&mut self, why: &str) {
        let (running, patience) = (self.running.len(), self.shared.setup.drain_timeout);
        log::say(
            What::Draining,
            format_args!(
                "draining ({why}): nothing more is started, {running} still running, for up to {}; again to stop them",
                humantime::format_duration(patience)
            ),
        );
        self.phase = Phase::Draining { until: Instant::now() + patience };
        self.beat_due = Instant::now();
    }

    pub(super) fn halt(&mut self) {
        self.phase = Phase::Halting;
        for (_, orders) in self.attempts.values() {
            // An attempt that does not hear any more has ended.
            let _ = orders.try_send((SIGTERM, Origin::Halt));
        }
    }

    /// Says that it is gone; an error if something of it is not over yet for the database.
    pub(super) async fn say_goodbye(&mut self) -> Result<(), AttemptError> {
        if let Some(spare) = self.spare.take() {
            spare.dismiss().await;
        }
        let registration = self.claimer.registration();
        let answer = self.link.call(async |session| store::beat(session, registration, 0, NodeState::Gone).await).await;
        self.tell(NodeState::Gone, &answer);
        if self.left_behind > 0 {
            return Err(AttemptError::LeftBehind { runs: self.left_behind });
        }
        log::say(What::Drained, "drained");
        Ok(())
    }
}
