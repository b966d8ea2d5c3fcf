//! The protocol in a model checker: every order of events and faults within bounds, not those that a test thinks of.
//!
//! `docs/reliability.md` says what is modelled and what is not. What is decided by the program's own pure code (`Trust`,
//! `Witness`, `Deadman`, `Timing`) is decided by it here as well; the SQL functions are restated in `database`.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // it is a test, and tells how large it was

mod database;
mod failover;
mod host;
mod mutants;
mod properties;
mod protocol;
mod rule;

use std::time::Instant;

use stateright::{Checker, Model};
use systole::guard::Hold;

use protocol::{Begin, Fault, Protocol, Writes};

/// The clock of either host slow by r, and that of the database fast by r.
const RATES: [[u64; 3]; 4] = [[100, 100, 100], [90, 100, 100], [100, 90, 100], [100, 100, 110]];

/// All of it, to the end: no invariant is violated, and what must happen sometimes happens.
fn is_safe(name: &str, protocol: Protocol) {
    let began = Instant::now();
    let checker = protocol.checker().threads(2).spawn_dfs().join();
    println!("{name}: {} states in {:.1?}", checker.unique_state_count(), began.elapsed());
    assert!(checker.is_done());
    checker.assert_properties();
}

/// The larger bounds, which take minutes.
fn is_deep() -> bool {
    std::env::var_os("SYSTOLE_MODEL_DEEP").is_some()
}

#[test]
fn one_fault_at_any_moment_with_clocks_at_their_limits() {
    is_safe("one fault", Protocol { faults: 1, rates: RATES.to_vec(), ..Protocol::new() });
}

#[test]
fn one_fault_without_a_freezer() {
    is_safe("no freezer", Protocol { faults: 1, rates: RATES.to_vec(), hold: Hold::Grace, ..Protocol::new() });
}

#[test]
fn one_fault_in_a_race_for_a_free_run() {
    is_safe("a free run", Protocol { faults: 1, begins: Begin::Free, ticks: 8, ..Protocol::new() });
}

#[test]
fn one_fault_under_fenced_transactions() {
    is_safe("fenced", Protocol { faults: 1, writes: Writes::Fenced, ..Protocol::new() });
}

#[test]
fn a_stopped_process_and_a_broken_link() {
    let kinds = vec![Fault::SupervisorStopped, Fault::GuardStopped, Fault::LinkDown];
    is_safe("stopped and cut off", Protocol { kinds, ..Protocol::new() });
}

#[test]
fn a_clock_that_is_set_and_a_broken_host() {
    let kinds = vec![Fault::SupervisorStopped, Fault::LinkDown, Fault::ClockStep(6000), Fault::ServerRestarted];
    is_safe("set clocks", Protocol { kinds, ..Protocol::new() });
}

#[test]
fn any_two_faults() {
    let few = vec![Fault::SupervisorKilled, Fault::RowsLocked, Fault::TakenAway];
    let (kinds, ticks) = if is_deep() { (Fault::ALL.to_vec(), 9) } else { (few, 8) };
    is_safe("any two faults", Protocol { kinds: kinds.clone(), ticks, ..Protocol::new() });
    if is_deep() {
        is_safe("any two faults, no freezer", Protocol { hold: Hold::Grace, kinds, ..Protocol::new() });
    }
}

#[test]
fn half_the_grain() {
    let few = vec![Fault::SupervisorStopped, Fault::SupervisorKilled, Fault::LinkDown];
    let (kinds, rates) = if is_deep() { (Fault::ALL.to_vec(), RATES.to_vec()) } else { (few, vec![[100; 3]]) };
    is_safe("half the grain", Protocol { faults: 1, rates, kinds, tick: 500, ticks: 16, ..Protocol::new() });
}
