//! The failover in a model of its own: a database that is replaced by an older part of its commits, and two hosts that may have
//! been granted the run in what was lost.

mod database;
mod host;
mod mutants;
mod properties;
mod protocol;
mod rule;

use std::time::Instant;

use stateright::{Checker, Model};

use super::is_deep;
use protocol::{Failover, Fault};
use rule::{LONG, SHORT};

/// The clock of either host slow by r, and that of the servers fast by r.
const RATES: [[u64; 3]; 3] = [[90, 100, 100], [100, 90, 100], [100, 100, 110]];

fn is_safe(name: &str, failover: Failover) {
    let began = Instant::now();
    let checker = failover.checker().threads(2).spawn_dfs().join();
    println!("{name}: {} states in {:.1?}", checker.unique_state_count(), began.elapsed());
    assert!(checker.is_done());
    checker.assert_properties();
}

#[test]
fn two_failovers_and_a_broken_link() {
    let ends = u8::from(is_deep());
    is_safe("two failovers", Failover { faults: 1, ticks: 13, ends, ..Failover::new() });
}

#[test]
fn two_failovers_and_two_broken_links() {
    let ticks = if is_deep() { 12 } else { 10 };
    is_safe("two failovers, two links", Failover { ticks, ..Failover::new() });
}

#[test]
fn a_failover_and_two_broken_links() {
    let ends = u8::from(is_deep());
    is_safe("a failover", Failover { failovers: 1, ends, ..Failover::new() });
}

#[test]
fn two_failovers_and_the_end_of_a_command() {
    is_safe("ends", Failover { faults: 1, ticks: 9, ends: 1, ..Failover::new() });
}

#[test]
fn a_failover_with_clocks_at_their_limits_and_leases_of_two_lengths() {
    let failover = Failover { failovers: 1, faults: 1, rates: RATES.to_vec(), ..Failover::new() };
    is_safe("clock rates", failover);
    let kinds = vec![Fault::LinkDown, Fault::PowerLost];
    let leases = Failover { failovers: 1, faults: 1, kinds, ticks: 20, ..Failover::new() };
    is_safe("leases", leases.leased([SHORT, LONG]));
}
