//! Each rule taken away: the model has to find what it was for.

use stateright::{Checker, HasDiscoveries, Model};

use super::properties::{ENDS_ARE_KNOWN, NO_OVERLAP, NO_RETURN, NOBODY_KILLED};
use super::protocol::{Failover, Fault};
use super::rule::{LONG, Rule, SHORT};

/// Without the rule the property fails. The very same steps do no harm where the rule holds, if they are possible at all.
fn is_missed(rule: Rule, property: &'static str, with: Failover) {
    let mut without = with.clone();
    without.rules.taken_away = Some(rule);
    let checker = without.checker().finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
    let actions = checker.assert_any_discovery(property).into_actions();
    println!("| {rule:?} | {property} | {} | {} |", actions.len(), checker.unique_state_count());
    println!("{actions:?}");

    let mut states = with.init_states();
    for action in actions {
        states = states.iter().filter_map(|state| with.next_state(state, action)).collect();
    }
    let fine = with.properties().into_iter().find(|it| it.name == property).expect("it is one of ours").condition;
    assert!(states.iter().all(|state| fine(&with, state)), "{rule:?} is not what prevents it");
}

fn one() -> Failover {
    Failover { failovers: 1, ..Failover::new() }
}

fn cut_once() -> Failover {
    Failover { faults: 1, ..Failover::new() }
}

/// The one host beats and is taken over as slowly as the quarantine lets it be.
fn uneven() -> Failover {
    one().leased([SHORT, LONG])
}

#[test]
fn nothing_is_granted_until_all_can_have_come_back() {
    is_missed(Rule::Quarantine, NO_OVERLAP, one());
}

#[test]
fn a_wait_is_for_the_longest_lease() {
    is_missed(Rule::ForTheLongest, NO_OVERLAP, uneven());
}

#[test]
fn nobody_is_dead_by_his_age_meanwhile() {
    is_missed(Rule::AgeWaits, NO_OVERLAP, Failover { kinds: vec![Fault::LinkDown, Fault::PowerLost], ..uneven() });
}

#[test]
fn whoever_was_forgotten_comes_back() {
    is_missed(Rule::Readoption, NOBODY_KILLED, one());
}

#[test]
fn not_from_a_line_before_the_last() {
    is_missed(Rule::OnlyTheLineBefore, NO_RETURN, Failover { clocks: vec![0, -6500], ..Failover::new() });
}

#[test]
fn a_line_that_was_never_heard_of_is_not_missed() {
    is_missed(Rule::UnheardLines, NOBODY_KILLED, cut_once());
}

#[test]
fn the_higher_fence_came_later() {
    is_missed(Rule::FenceDecides, NOBODY_KILLED, one());
}

#[test]
fn nobody_returns_behind_a_claim() {
    is_missed(Rule::NobodyClaimedSince, NO_RETURN, Failover { clocks: vec![-6500], ends: 1, ..one() });
}

#[test]
fn a_known_one_makes_room_in_the_quarantine() {
    is_missed(Rule::EndsTheKnown, NOBODY_KILLED, one());
}

#[test]
fn a_known_one_that_went_on_keeps_the_run() {
    is_missed(Rule::KnownKeepsTheRun, NO_OVERLAP, one());
}

#[test]
fn the_end_of_the_quarantine_is_asked_for_behind_the_lock() {
    is_missed(Rule::TestBehindTheLock, NO_OVERLAP, one());
}

#[test]
fn whoever_was_silent_waits() {
    is_missed(Rule::SilentWaitsOut, NO_OVERLAP, one());
}

#[test]
fn an_end_is_told_again() {
    is_missed(Rule::Outbox, ENDS_ARE_KNOWN, Failover { ends: 1, ..one() });
}

#[test]
fn an_end_is_of_the_line_that_has_recorded_it() {
    is_missed(Rule::OutboxKnowsTheLine, ENDS_ARE_KNOWN, Failover { ends: 1, ..cut_once() });
}
