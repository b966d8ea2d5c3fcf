//! What has become better and worse between two results. Pure.

use serde::Serialize;

use super::results::{Outcome, Results, Test};

/// One test in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    pub(crate) test: String,
    /// `None` if it was not there.
    pub(crate) before: Option<Outcome>,
    pub(crate) now: Option<Outcome>,
    /// What its failure said, now or before.
    pub(crate) message: Option<String>,
}

/// All that is worth telling.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// It fails, and did not: it passed, was skipped, or was not there.
    pub(crate) newly_failing: Vec<Change>,
    /// It passed, and now is skipped or not there.
    pub(crate) missing: Vec<Change>,
    /// It failed, and passed when it was tried again.
    pub(crate) flaky: Vec<Change>,
    pub(crate) fixed: Vec<Change>,
    pub(crate) still_failing: Vec<Change>,
}

impl Difference {
    pub(crate) fn between(before: &Results, now: &Results) -> Difference {
        let mut difference = Difference::default();
        let gone = before.0.keys().filter(|name| !now.0.contains_key(*name));
        for name in now.0.keys().chain(gone) {
            let (was, is) = (before.0.get(name), now.0.get(name));
            let outcome = |test: Option<&Test>| test.map(|test| test.outcome);
            let list = match (outcome(was), outcome(is)) {
                (Some(Outcome::Failed), Some(Outcome::Failed)) => &mut difference.still_failing,
                (_, Some(Outcome::Failed)) => &mut difference.newly_failing,
                (_, Some(Outcome::Flaky)) => &mut difference.flaky,
                (Some(Outcome::Failed), Some(Outcome::Passed)) => &mut difference.fixed,
                (Some(Outcome::Passed | Outcome::Flaky), None | Some(Outcome::Skipped)) => &mut difference.missing,
                // Whatever failed and is not tried any more is no news, nor is what passes as it did.
                (_, None | Some(Outcome::Passed | Outcome::Skipped)) => continue,
            };
            let message = [is, was].into_iter().flatten().find_map(|test| test.message.clone());
            list.push(Change { test: name.clone(), before: outcome(was), now: outcome(is), message });
        }
        difference
    }

    /// Something works no longer, or, unless that is allowed, nobody can tell any more whether it does.
    pub(crate) fn is_regression(&self, allow_missing: bool) -> bool {
        !self.newly_failing.is_empty() || (!allow_missing && !self.missing.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(tests: &[(&str, Outcome)]) -> Results {
        Results(tests.iter().map(|(name, outcome)| ((*name).to_owned(), Test::of(*outcome))).collect())
    }

    /// Every pair of outcomes, and where it is told.
    #[test]
    fn each_change_is_told_once_and_where_it_belongs() {
        let all = [None, Some(Outcome::Passed), Some(Outcome::Flaky), Some(Outcome::Failed), Some(Outcome::Skipped)];
        // Before: not there, passed, flaky, failed, skipped. Now, in each row: the same.
        let expected = [
            ["", "", "flaky", "new", ""],
            ["missing", "", "flaky", "new", "missing"],
            ["missing", "", "flaky", "new", "missing"],
            ["", "fixed", "flaky", "still", ""],
            ["", "", "flaky", "new", ""],
        ];
        for (row, before) in all.into_iter().enumerate() {
            for (column, now) in all.into_iter().enumerate() {
                let side = |outcome: Option<Outcome>| {
                    results(&outcome.map(|outcome| ("t", outcome)).into_iter().collect::<Vec<_>>())
                };
                let told = Difference::between(&side(before), &side(now));
                let lists = [
                    ("new", &told.newly_failing),
                    ("missing", &told.missing),
                    ("flaky", &told.flaky),
                    ("fixed", &told.fixed),
                    ("still", &told.still_failing),
                ];
                let found: String = lists.iter().filter(|(_, list)| !list.is_empty()).map(|(name, _)| *name).collect();
                assert_eq!(found, expected[row][column], "{before:?} → {now:?}");
                assert_eq!(told.is_regression(false), ["new", "missing"].contains(&found.as_str()));
                assert_eq!(told.is_regression(true), found == "new");
            }
        }
    }

    #[test]
    fn a_later_report_is_a_retry() {
        let mut tried = results(&[("a", Outcome::Failed), ("b", Outcome::Failed), ("c", Outcome::Passed)]);
        tried.then(results(&[("a", Outcome::Passed), ("b", Outcome::Failed), ("c", Outcome::Skipped)]));
        assert_eq!(tried, results(&[("a", Outcome::Flaky), ("b", Outcome::Failed), ("c", Outcome::Passed)]));
    }
}
