//! Whose turn it is: in which order the addresses of a target are dialled, and where the next attempt begins.
//!
//! An attempt is cut off when its time is up. Whoever had all the time that is his by then is passed over in the next one,
//! which begins with whoever had not. So nobody who is silent costs more than an attempt, and nobody who is slow is
//! passed over for ever.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One address of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) server: usize,
    /// `None` is a name that is to be looked up, or a place that has no address.
    pub(super) address: Option<IpAddr>,
}

/// What all connections to a target know.
#[derive(Debug)]
pub(super) struct Turns {
    first: Mutex<Candidate>,
    /// How many addresses each server had when it was last looked up.
    addresses: Vec<AtomicUsize>,
}

/// The candidates of one attempt.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    turns: &'a Turns,
    timeout: Duration,
    began_with: Candidate,
    waiting: VecDeque<Candidate>,
}

/// What one candidate may take of an attempt before the next one has its turn.
pub(super) fn share(attempt_timeout: Duration) -> Duration {
    attempt_timeout * 2 / 3
}

impl Turns {
    pub(super) fn of(servers: usize) -> Turns {
        let first = Candidate { server: 0, address: None };
        Turns { first: Mutex::new(first), addresses: (0..servers).map(|_| AtomicUsize::new(1)).collect() }
    }

    /// How many candidates are known.
    pub(super) fn candidates(&self) -> usize {
        self.addresses.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn attempt(&self, timeout: Duration) -> Attempt<'_> {
        let (first, count) = (*self.first(), self.addresses.len());
        let servers = (0..count).map(|n| Candidate { server: (first.server + n) % count, address: None });
        Attempt { turns: self, timeout, began_with: first, waiting: servers.collect() }
    }

    fn first(&self) -> MutexGuard<'_, Candidate> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    /// The next one, if this attempt has taken so long already.
    pub(super) fn next(&mut self, elapsed: Duration) -> Option<Candidate> {
        let candidate = self.waiting.pop_front()?;
        let has_all_his_time = elapsed + share(self.timeout) <= self.timeout;
        *self.turns.first() =
            if has_all_his_time { self.waiting.front().copied().unwrap_or(self.began_with) } else { candidate };
        Some(candidate)
    }

    /// The addresses behind a name: each is a candidate, in place of the name.
    pub(super) fn found(&mut self, server: usize, addresses: &[IpAddr]) {
        self.turns.addresses[server].store(addresses.len(), Ordering::Relaxed);
        let candidates: Vec<Candidate> =
            addresses.iter().map(|address| Candidate { server, address: Some(*address) }).collect();
        // Those before the one to begin with have had their turn in the attempts before.
        let begin = candidates.iter().position(|candidate| *candidate == self.began_with).unwrap_or(0);
        let (before, from) = candidates.split_at(begin);
        self.waiting.extend(before);
        from.iter().rev().for_each(|candidate| self.waiting.push_front(*candidate));
    }

    /// This one is where the next attempt begins.
    pub(super) fn answered(&self, candidate: Candidate) {
        *self.turns.first() = candidate;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(3);
    const AT_ONCE: Duration = Duration::ZERO;
    const LATE: Duration = Duration::from_secs(2);

    fn socket(server: usize) -> Candidate {
        Candidate { server, address: None }
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn at(server: usize, last: u8) -> Candidate {
        Candidate { server, address: Some(address(last)) }
    }

    /// Who has a turn in an attempt in which each is refused at once.
    fn order(turns: &Turns) -> Vec<usize> {
        let mut attempt = turns.attempt(TIMEOUT);
        std::iter::from_fn(|| attempt.next(AT_ONCE)).map(|candidate| candidate.server).collect()
    }

    #[test]
    fn whoever_answered_comes_first() {
        let turns = Turns::of(3);
        assert_eq!(order(&turns), [0, 1, 2]);
        turns.attempt(TIMEOUT).answered(socket(2));
        assert_eq!(order(&turns), [2, 0, 1]);
    }

    #[test]
    fn whoever_took_the_whole_attempt_is_last_in_the_next_one() {
        let turns = Turns::of(3);
        turns.attempt(TIMEOUT).next(AT_ONCE);
        assert_eq!(order(&turns), [1, 2, 0]);
        // Also behind one that was refused at once.
        let turns = Turns::of(2);
        turns.attempt(TIMEOUT).answered(socket(1));
        let mut attempt = turns.attempt(TIMEOUT);
        assert_eq!((attempt.next(AT_ONCE), attempt.next(AT_ONCE)), (Some(socket(1)), Some(socket(0))));
        assert_eq!(order(&turns), [1, 0]);
    }

    #[test]
    fn whoever_was_cut_short_by_another_one_is_first_in_the_next_attempt() {
        let turns = Turns::of(2);
        let mut attempt = turns.attempt(TIMEOUT);
        assert_eq!((attempt.next(AT_ONCE), attempt.next(LATE)), (Some(socket(0)), Some(socket(1))));
        let mut attempt = turns.attempt(TIMEOUT);
        assert_eq!(attempt.next(AT_ONCE), Some(socket(1)));
        // Now it had its time.
        assert_eq!(order(&turns), [0, 1]);
    }

    #[test]
    fn every_address_of_a_name_has_its_turn() {
        let turns = Turns::of(2);
        let name = [address(1), address(2), address(3)];
        let mut seen = Vec::new();
        // Two of them fit into an attempt, of which the second one is cut short.
        for _ in 0..4 {
            let mut attempt = turns.attempt(TIMEOUT);
            if attempt.waiting[0].server == 0 {
                assert_eq!(attempt.next(AT_ONCE), Some(socket(0)));
                attempt.found(0, &name);
            }
            seen.push((attempt.next(AT_ONCE).unwrap(), attempt.next(LATE).unwrap()));
        }
        let expected = [(at(0, 1), at(0, 2)), (at(0, 2), at(0, 3)), (at(0, 3), socket(1)), (socket(1), socket(0))];
        assert_eq!(seen, expected);
        assert_eq!(turns.candidates(), 4);
    }

    #[test]
    fn a_name_whose_addresses_have_changed_begins_with_the_first() {
        let turns = Turns::of(1);
        turns.attempt(TIMEOUT).answered(at(0, 9));
        let mut attempt = turns.attempt(TIMEOUT);
        attempt.next(AT_ONCE);
        attempt.found(0, &[address(1), address(2)]);
        assert_eq!((attempt.next(AT_ONCE), attempt.next(AT_ONCE)), (Some(at(0, 1)), Some(at(0, 2))));
        // The same with one among them: those before it come at the end.
        turns.attempt(TIMEOUT).answered(at(0, 2));
        let mut attempt = turns.attempt(TIMEOUT);
        attempt.next(AT_ONCE);
        attempt.found(0, &[address(1), address(2)]);
        assert_eq!((attempt.next(AT_ONCE), attempt.next(AT_ONCE)), (Some(at(0, 2)), Some(at(0, 1))));
    }
}
