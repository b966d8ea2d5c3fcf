//! What became of each test, also of those that were tried more than once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How one test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Passed,
    /// It failed, and passed when it was tried again.
    Flaky,
    /// It failed each time, or could not be tried.
    Failed,
    Skipped,
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Flaky => "flaky",
            Outcome::Failed => "failed",
            Outcome::Skipped => "skipped",
        }
    }
}

/// A test, and what its failure said, in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Test {
    pub(crate) outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

/// All tests of a report, or of several, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Results(pub(super) BTreeMap<String, Test>);

impl Test {
    pub(super) fn of(outcome: Outcome) -> Test {
        Test { outcome, message: None }
    }

    fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed | Outcome::Flaky)
    }

    /// The same test, tried again.
    fn again(self, later: Test) -> Test {
        match later.outcome {
            Outcome::Passed if self.has_failed() => Test { outcome: Outcome::Flaky, ..self },
            // Not to be tried any more is no success.
            Outcome::Skipped if self.outcome != Outcome::Skipped => self,
            _ => later,
        }
    }

    /// Another test of the same name: a failure is not hidden behind a success.
    fn beside(self, other: Test) -> Test {
        let rank = |test: &Test| match test.outcome {
            Outcome::Failed => 3,
            Outcome::Flaky => 2,
            Outcome::Passed => 1,
            Outcome::Skipped => 0,
        };
        if rank(&other) > rank(&self) { other } else { self }
    }
}

impl Results {
    /// Within one report.
    pub(super) fn add(&mut self, name: String, test: Test) {
        let merged = match self.0.remove(&name) {
            Some(before) => before.beside(test),
            None => test,
        };
        self.0.insert(name, merged);
    }

    /// Within one report of somebody who tries again, and lists each try.
    pub(super) fn add_try(&mut self, name: String, test: Test) {
        let merged = match self.0.remove(&name) {
            // Of the tries before the last one it does not say that they failed, but for no other reason was there another.
            Some(before) => Test { outcome: Outcome::Failed, ..before }.again(test),
            None => test,
        };
        self.0.insert(name, merged);
    }

    /// A later report: what is in both was tried again.
    pub(crate) fn then(&mut self, later: Results) {
        for (name, test) in later.0 {
            let merged = match self.0.remove(&name) {
                Some(before) => before.again(test),
                None => test,
            };
            self.0.insert(name, merged);
        }
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.0.values().filter(|test| test.outcome == outcome).count()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In words: `12 tests: 10 passed, 1 failed, 1 skipped`.
    pub(crate) fn summary(&self) -> String {
        let all = [Outcome::Passed, Outcome::Flaky, Outcome::Failed, Outcome::Skipped];
        let counts = all.map(|outcome| (self.count(outcome), outcome.as_str()));
        let parts: Vec<String> =
            counts.iter().filter(|it| it.0 > 0).map(|(count, word)| format!("{count} {word}")).collect();
        format!("{} tests: {}", self.0.len(), parts.join(", "))
    }
}
