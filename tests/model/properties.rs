//! The invariants of ARCHITECTURE.md as far as the model can see them, by their numbers, and what must happen sometimes.

use stateright::Property;

use super::host::{Command, Host};
use super::protocol::{Protocol, State};

pub(crate) const ONE_RUNNING: &str = "1: at most one RUNNING instance";
pub(crate) const FENCES_INCREASE: &str = "2: fences strictly increase";
pub(crate) const NO_OVERLAP: &str = "3: no code runs after a later instance's command may start";
pub(crate) const NO_LATE_COMMIT: &str = "4: no fenced transaction of a superseded instance commits";
pub(crate) const NO_EARLY_TAKEOVER: &str = "6: no takeover before its time";
pub(crate) const DEADLINES_ARE_EARNED: &str = "9: a deadline is sent + F of an acknowledged heartbeat";

pub(crate) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(ONE_RUNNING, |_, state: &State| {
            state.database.instances.iter().filter(|it| it.is_running).count() <= 1
        }),
        Property::always(FENCES_INCREASE, |_, state: &State| !state.database.wrongs.repeated_fence),
        Property::always(NO_OVERLAP, no_overlap),
        Property::always(NO_LATE_COMMIT, |_, state: &State| !state.database.wrongs.late_commit),
        Property::always(NO_EARLY_TAKEOVER, |_, state: &State| !state.database.wrongs.early_takeover),
        Property::always(DEADLINES_ARE_EARNED, |model: &Protocol, state: &State| {
            state.hosts.iter().all(|host| has_earned_it(model, host))
        }),
        Property::sometimes("a takeover by age", |_, state: &State| state.database.wrongs.taken_by_age),
        Property::sometimes("a takeover by certificate", |_, state: &State| state.database.wrongs.taken_by_certificate),
        Property::sometimes("a freeze and a thaw", |_, state: &State| {
            state.hosts.iter().flat_map(|host| &host.tenure).any(|it| it.was_thawed)
        }),
        Property::sometimes("a second command at work", |model: &Protocol, state: &State| {
            state
                .hosts
                .iter()
                .any(|it| it.is_at_work(model.hold) && it.tenure.as_ref().is_some_and(|it| it.instance > 0))
        }),
    ]
}

/// Of two commands the later one's start ends whatever the earlier one might still do.
fn no_overlap(model: &Protocol, state: &State) -> bool {
    let started = state.hosts.iter().flat_map(|it| &it.tenure).filter(|it| it.command == Command::Started);
    let newest = started.map(|it| it.instance).max();
    let mut at_work = state.hosts.iter().filter(|it| it.is_at_work(model.hold)).flat_map(|it| &it.tenure);
    at_work.all(|it| Some(it.instance) == newest)
}

fn has_earned_it(model: &Protocol, host: &Host) -> bool {
    host.tenure.as_ref().is_none_or(|it| {
        let earned = it.acked_sending.map(|sent| sent + model.rules.timing.fence_after);
        it.trust.until() == earned && it.switch.until() <= earned
    })
}
