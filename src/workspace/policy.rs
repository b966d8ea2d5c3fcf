//! Which worktrees go, pure: by their age, by how many there are, and by how full the disk is.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::record::Record;

/// What may go of those whose attempts are over. A bound that is not set lets everything stay, or go: see each verb.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Only those that ended longer ago.
    pub(crate) older_than: Option<Duration>,
    /// All but the newest so many.
    pub(crate) keep: Option<usize>,
    /// As many as it takes until so much of the disk is free: the oldest first.
    pub(crate) free_bytes_min: Option<u64>,
}

impl Policy {
    /// For `clean`: those that every bound lets go, the oldest first.
    pub(crate) fn chosen<'a>(&self, over: &'a [Record], now: DateTime<Utc>) -> Vec<&'a Record> {
        let mut sorted = by_age(over);
        sorted.truncate(over.len().saturating_sub(self.keep.unwrap_or(0)));
        sorted.retain(|record| self.older_than.is_none_or(|limit| age(record, now) >= limit));
        sorted
    }

    /// For a node: those that any bound wants gone, the oldest first, with whether it is the disk alone that does.
    pub(crate) fn overdue<'a>(&self, over: &'a [Record], now: DateTime<Utc>) -> Vec<(&'a Record, bool)> {
        let sorted = by_age(over);
        let too_many = self.keep.map_or(0, |keep| sorted.len().saturating_sub(keep));
        let is_due = |(number, record): (usize, &'a Record)| {
            let is_old = self.older_than.is_some_and(|limit| age(record, now) >= limit);
            match is_old || number < too_many {
                true => Some((record, false)),
                false => self.free_bytes_min.map(|_| (record, true)),
            }
        };
        sorted.into_iter().enumerate().filter_map(is_due).collect()
    }

    pub(crate) fn is_none(&self) -> bool {
        *self == Policy::default()
    }
}

fn by_age(records: &[Record]) -> Vec<&Record> {
    let mut sorted: Vec<&Record> = records.iter().collect();
    sorted.sort_by_key(|record| (ended(record), record.instance_id));
    sorted
}

/// One that was killed has ended when it began, as far as is known.
fn ended(record: &Record) -> DateTime<Utc> {
    record.ended_at.unwrap_or(record.created_at)
}

fn age(record: &Record, now: DateTime<Utc>) -> Duration {
    (now - ended(record)).to_std().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::super::record::Phase;
    use super::*;
    use crate::ids::InstanceId;

    /// Ended so many hours ago.
    fn records(now: DateTime<Utc>, hours: &[i64]) -> Vec<Record> {
        let record = |hours: &i64| Record {
            run_id: "r".parse().unwrap(),
            attempt: i32::try_from(*hours).unwrap(),
            instance_id: InstanceId::fresh(),
            executor_id: "1@here".to_owned(),
            repository: "/r".into(),
            path: "/w".into(),
            git_dir: None,
            base: String::new(),
            branch: None,
            created_at: now - TimeDelta::days(9),
            ended_at: Some(now - TimeDelta::hours(*hours)),
            snapshot: None,
            phase: Phase::Kept,
        };
        hours.iter().map(record).collect()
    }

    fn hours(records: Vec<&Record>) -> Vec<i32> {
        records.into_iter().map(|record| record.attempt).collect()
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn clean_removes_what_every_bound_lets_go() {
        let now = Utc::now();
        let all = records(now, &[1, 5, 3]);
        assert_eq!(hours(Policy::default().chosen(&all, now)), [5, 3, 1]);
        assert_eq!(hours(Policy { keep: Some(1), ..Policy::default() }.chosen(&all, now)), [5, 3]);
        assert_eq!(hours(Policy { keep: Some(9), ..Policy::default() }.chosen(&all, now)), [0; 0]);
        let old = Policy { older_than: Some(HOUR * 4), keep: Some(1), free_bytes_min: None };
        assert_eq!(hours(old.chosen(&all, now)), [5]);
    }

    #[test]
    fn a_node_removes_what_any_bound_wants_gone() {
        let now = Utc::now();
        let all = records(now, &[1, 5, 3]);
        let due = |policy: Policy| {
            policy.overdue(&all, now).into_iter().map(|(record, disk)| (record.attempt, disk)).collect::<Vec<_>>()
        };
        assert_eq!(due(Policy::default()), []);
        assert_eq!(
            due(Policy { older_than: Some(HOUR * 4), keep: Some(1), free_bytes_min: None }),
            [(5, false), (3, false)]
        );
        let disk = Policy { older_than: Some(HOUR * 4), keep: None, free_bytes_min: Some(1) };
        assert_eq!(due(disk), [(5, false), (3, true), (1, true)]);
    }
}
