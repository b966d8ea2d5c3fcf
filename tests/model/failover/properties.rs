//! The invariants that a failover could break, by their numbers in ARCHITECTURE.md, and what must happen sometimes.

use stateright::Property;

use super::database::Status;
use super::protocol::{Failover, State};

pub(crate) const ONE_RUNNING: &str = "1: at most one RUNNING instance";
pub(crate) const FENCES: &str = "2: fences increase, and none is given twice";
pub(crate) const NO_OVERLAP: &str = "3: no two commands are at work";
pub(crate) const NO_RETURN: &str = "5: nobody returns behind one who came later";
pub(crate) const ENDS_ARE_KNOWN: &str = "11: an end is known again when its host has come back";
pub(crate) const NOBODY_KILLED: &str = "14: nobody in contact is killed whom nobody has followed";

pub(crate) fn all() -> Vec<Property<Failover>> {
    vec![
        Property::always(ONE_RUNNING, |_, state: &State| {
            state.database.tables().rows.iter().filter(|row| row.status == Status::Running).count() <= 1
        }),
        Property::always(FENCES, |_, state: &State| !state.database.wrongs.repeated_fence),
        Property::always(NO_OVERLAP, |_, state: &State| state.hosts.iter().filter(|it| it.is_at_work()).count() <= 1),
        Property::always(NO_RETURN, |_, state: &State| !state.database.wrongs.returned),
        Property::always(ENDS_ARE_KNOWN, |_, state: &State| state.hosts.iter().all(|it| !it.wrongs.end_lost)),
        Property::always(NOBODY_KILLED, |_, state: &State| state.hosts.iter().all(|it| !it.wrongs.killed)),
        Property::sometimes("a tenure taken up again", |_, state: &State| state.database.wrongs.readopted),
        Property::sometimes("a known one that was followed is ended", |_, state: &State| {
            state.database.wrongs.ended_the_known
        }),
        Property::sometimes("a silent one that waits", |_, state: &State| {
            state.hosts.iter().any(|it| it.wrongs.waited)
        }),
        Property::sometimes("one that goes on", |_, state: &State| {
            state.hosts.iter().any(|it| it.wrongs.went_on_behind_failover)
        }),
        Property::sometimes("an end that is said again", |_, state: &State| {
            state.hosts.iter().any(|it| it.wrongs.said_again)
        }),
        Property::sometimes("a grant behind a failover", |_, state: &State| {
            state.database.wrongs.granted_behind_failover
        }),
    ]
}
