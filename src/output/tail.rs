//! The newest of a log, in memory: a ring of fixed size.

use std::collections::VecDeque;

/// How much of an attempt's log is kept in PostgreSQL. The same bound stands in V10__output.sql.
pub(crate) const TAIL_MAX: usize = 64 * 1024;

/// The last [`TAIL_MAX`] bytes of what was pushed.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(TAIL_MAX)..];
        let excess = (self.0.len() + bytes.len()).saturating_sub(TAIL_MAX);
        self.0.drain(..excess);
        self.0.extend(bytes);
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let (front, back) = self.0.as_slices();
        [front, back].concat()
    }
}

/// Where in `tail` that begins which came behind `known`, an earlier tail of the same log; `None` if there is a gap.
pub(crate) fn continued_at(known: &[u8], tail: &[u8]) -> Option<usize> {
    // Each line has its moment: so many bytes hardly stand in a log twice.
    let end = &known[known.len().saturating_sub(2048)..];
    if end.is_empty() {
        return Some(0);
    }
    tail.windows(end.len()).position(|window| window == end).map(|at| at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_kept_however_it_comes() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        for step in [1_000, 70_000, 200_000] {
            let mut tail = Tail::default();
            bytes.chunks(step).for_each(|chunk| tail.push(chunk));
            assert_eq!(tail.to_vec(), bytes[bytes.len() - TAIL_MAX..], "{step}");
        }
    }

    #[test]
    fn a_later_tail_says_what_is_new_or_that_there_is_a_gap() {
        assert_eq!(continued_at(b"", b"abc"), Some(0));
        assert_eq!(continued_at(b"abc", b"abc"), Some(3));
        assert_eq!(continued_at(b"abc", b"abcde"), Some(3));
        let (known, later) =
            ([vec![b'x'; 100], vec![b'1'; 3000]].concat(), [vec![b'1'; 2500], vec![b'2'; 10]].concat());
        assert_eq!(later[continued_at(&known, &later).unwrap()..].iter().filter(|byte| **byte == b'2').count(), 10);
        assert_eq!(continued_at(b"abc", b"xyz"), None);
    }
}
