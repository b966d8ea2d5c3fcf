//! How a node goes: drained, then halted, and whatever could not be recorded left where it will be found.

use signal_hook::consts::{SIGINT, SIGTERM};

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

impl Node {
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
