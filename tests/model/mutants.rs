//! Each rule taken away: the model has to find what it was for. What a rule prevents is what is asserted, so that a model
//! that has lost its teeth fails here.

use stateright::{Checker, HasDiscoveries, Model};
use systole::guard::Hold;

use super::properties::{FENCES_INCREASE, NO_EARLY_TAKEOVER, NO_LATE_COMMIT, NO_OVERLAP, ONE_RUNNING};
use super::protocol::{Begin, Fault, Protocol, Writes};
use super::rule::Rule;

/// Without the rule the property fails, by no more than these faults, each at most once or twice. With it, it does not.
fn is_missed(rule: Rule, property: &'static str, protocol: Protocol, kinds: &[Fault]) {
    let with = Protocol { kinds: kinds.to_vec(), faults: kinds.len() as u8, ..protocol };
    let mut without = with.clone();
    without.rules.taken_away = Some(rule);
    let checker = without.checker().finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
    let path = checker.assert_any_discovery(property);
    let actions = path.into_actions();
    println!("| {rule:?} | {property} | {} | {} |", actions.len(), checker.unique_state_count());
    println!("{actions:?}");

    // The very same steps do no harm where the rule holds, if they are possible at all.
    let mut states = with.init_states();
    for action in actions {
        states = states.iter().filter_map(|state| with.next_state(state, action)).collect();
    }
    let fine = with.properties().into_iter().find(|it| it.name == property).expect("it is one of ours").condition;
    assert!(states.iter().all(|state| fine(&with, state)), "{rule:?} is not what prevents it");
}

fn usual() -> Protocol {
    Protocol::new()
}

#[test]
fn trust_counts_from_the_sending() {
    is_missed(
        Rule::TrustFromSending,
        NO_OVERLAP,
        Protocol { ticks: 10, ..usual() },
        &[Fault::SupervisorStopped, Fault::LinkDown],
    );
}

#[test]
fn busy_renews_nothing() {
    is_missed(Rule::BusyRenewsNothing, NO_OVERLAP, usual(), &[Fault::RowsLocked]);
}

#[test]
fn a_taker_brings_no_stale_after() {
    is_missed(Rule::HoldersOwnStaleAfter, NO_OVERLAP, usual(), &[Fault::LinkDown]);
}

#[test]
fn a_server_that_came_back_has_not_seen_anybody_yet() {
    is_missed(Rule::RwSince, NO_EARLY_TAKEOVER, usual(), &[Fault::LinkDown, Fault::ServerRestarted]);
}

#[test]
fn a_taker_has_watched_the_clock() {
    is_missed(Rule::TrustedSince, NO_OVERLAP, usual(), &[Fault::LinkDown, Fault::ClockStep(6000)]);
}

#[test]
fn a_claim_knows_what_the_clock_should_show() {
    is_missed(Rule::ExpectedNow, NO_OVERLAP, usual(), &[Fault::ClockStep(6000)]);
}

#[test]
fn a_claim_tests_again_behind_its_locks() {
    is_missed(Rule::TestBehindTheLock, NO_EARLY_TAKEOVER, usual(), &[Fault::LinkDown]);
    is_missed(Rule::TestBehindTheLock, ONE_RUNNING, Protocol { begins: Begin::Free, ..usual() }, &[]);
}

#[test]
fn a_fence_grows_whatever_the_clock_says() {
    is_missed(Rule::FenceGrows, FENCES_INCREASE, usual(), &[Fault::SupervisorKilled, Fault::ClockStep(-6000)]);
}

#[test]
fn a_fence_that_was_checked_holds_until_the_commit() {
    is_missed(Rule::FenceLocks, NO_LATE_COMMIT, Protocol { writes: Writes::Fenced, ..usual() }, &[Fault::GuardKilled]);
}

#[test]
fn a_pid_that_is_gone_proves_nothing() {
    is_missed(Rule::CertificateIsProof, NO_OVERLAP, usual(), &[Fault::SupervisorKilled]);
}

#[test]
fn the_revoked_bars_its_successor() {
    is_missed(Rule::RevokedBarsItsSuccessor, NO_OVERLAP, usual(), &[Fault::TakenAway]);
}

#[test]
fn a_command_starts_behind_a_heartbeat() {
    is_missed(Rule::StartBehindAHeartbeat, NO_OVERLAP, usual(), &[Fault::LinkDown]);
}

#[test]
fn a_guard_has_a_deadline() {
    is_missed(Rule::GuardHasADeadline, NO_OVERLAP, usual(), &[Fault::SupervisorStopped]);
}

#[test]
fn a_renewal_that_came_too_late_thaws_nothing() {
    is_missed(Rule::ThawOnlyIfAhead, NO_OVERLAP, usual(), &[Fault::AnswersHeld, Fault::SupervisorStopped]);
}

#[test]
fn what_is_merely_stopped_is_killed() {
    is_missed(Rule::StoppedIsNotFrozen, NO_OVERLAP, Protocol { hold: Hold::Grace, ..usual() }, &[Fault::LinkDown]);
}

#[test]
fn a_guard_that_misses_its_deadline_is_found_out() {
    is_missed(Rule::GuardIsWatched, NO_OVERLAP, usual(), &[Fault::GuardStopped, Fault::LinkDown]);
}
