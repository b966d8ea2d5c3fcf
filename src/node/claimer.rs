//! Claims queued runs for the free slots of one executor, and never loses one to an answer that did not come.

use super::store::{self, Assignment, Registration, Slot};
use crate::db::{DbError, Link};

/// What an executor claims with: who it is, what it can serve, and the slots of a claim that was not answered.
#[derive(Debug)]
pub(crate) struct Claimer {
    registration: Registration,
    containment: String,
    /// Asked again with the same ids, they mean the same slots.
    unanswered: Vec<Slot>,
}

impl Claimer {
    pub(crate) fn new(registration: Registration, containment: String) -> Claimer {
        Claimer { registration, containment, unanswered: Vec::new() }
    }

    pub(crate) fn registration(&self) -> &Registration {
        &self.registration
    }

    pub(crate) fn containment(&self) -> &str {
        &self.containment
    }

    /// How many slots were asked for without an answer: they may have been granted.
    pub(crate) fn in_doubt(&self) -> usize {
        self.unanswered.len()
    }

    /// Claims for these slots, and for those in doubt; unless it `takes_more`, only what was granted before is heard of.
    ///
    /// After an error, or when the future is dropped, the slots are in doubt: the next claim finds out.
    pub(crate) async fn claim(
        &mut self,
        link: &mut Link,
        fresh: Vec<Slot>,
        takes_more: bool,
    ) -> Result<Vec<(Assignment, Slot)>, DbError> {
        self.unanswered.extend(fresh);
        let slots = &self.unanswered;
        let (registration, containment) = (&self.registration, &self.containment);
        let claim =
            async |session: &_| store::claim_queued(session, registration, containment, slots, takes_more).await;
        let assignments = link.call(claim).await?;
        let slots = std::mem::take(&mut self.unanswered);
        let slot_of = |assignment: &Assignment| {
            let slot = slots.iter().find(|slot| slot.instance_id == assignment.tenure.instance_id);
            *slot.expect("an assignment is one of our slots")
        };
        Ok(assignments.into_iter().map(|it| (slot_of(&it), it)).map(|(slot, it)| (it, slot)).collect())
    }
}
