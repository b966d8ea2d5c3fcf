//! JUnit XML, as pytest, cargo-nextest, Maven and others write it. Pure.
//!
//! There is no standard; what they share is `testcase` with `failure`, `error` or `skipped` in it. Who tries again says so
//! with `flakyFailure` or `flakyError` in a test that passed, and `rerunFailure` or `rerunError` in one that did not. pytest's plugin for
//! reruns lists the test once for each try, and says nothing of the failures.

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::results::{Outcome, Results, Test};

/// Of a failure this much is kept, in characters.
const MESSAGE_MAX: usize = 200;

/// A test whose end has not been read yet.
struct Case {
    name: String,
    test: Test,
    is_pytest: bool,
}

/// Reads one report, or says where it goes wrong.
pub(super) fn parse(text: &str) -> Result<Results, String> {
    let mut reader = Reader::from_str(text);
    let mut results = Results::default();
    let mut suites: Vec<String> = Vec::new();
    let mut case: Option<Case> = None;
    let mut depth = 0_usize;
    let mut is_junit = false;
    loop {
        let event = reader.read_event().map_err(|error| format!("{error}, at byte {}", reader.error_position()))?;
        let (element, is_whole) = match &event {
            Event::Start(element) => (element, false),
            Event::Empty(element) => (element, true),
            Event::End(element) => {
                depth = depth.saturating_sub(1);
                match element.local_name().as_ref() {
                    "testsuite" => drop(suites.pop()),
                    "testcase" => case.take().into_iter().for_each(|case| case.end(&mut results)),
                    _ => {}
                }
                continue;
            }
            Event::Eof if depth > 0 => return Err("it is cut off in the middle".to_owned()),
            Event::Eof if is_junit => return Ok(results),
            Event::Eof => return Err("it has neither testsuites nor a testsuite in it".to_owned()),
            _ => continue,
        };
        let tag = element.local_name();
        let tag = tag.as_ref();
        if depth == 0 && !["testsuites", "testsuite"].contains(&tag) {
            return Err(format!("it begins with {tag:.40}, and not with testsuites or testsuite"));
        }
        is_junit = true;
        depth += usize::from(!is_whole);
        match tag {
            "testsuite" if !is_whole => suites.push(attribute(element, "name")?.unwrap_or_default()),
            "testcase" => {
                let begun = Case::begin(element, suites.last().map_or("", String::as_str))?;
                if is_whole {
                    begun.end(&mut results);
                } else {
                    case = Some(begun);
                }
            }
            _ => {
                if let Some(case) = &mut case {
                    case.hear(tag, element)?;
                }
            }
        }
    }
}

impl Case {
    fn begin(element: &BytesStart<'_>, suite: &str) -> Result<Case, String> {
        let name = attribute(element, "name")?.ok_or("a testcase has no name")?;
        let class = attribute(element, "classname")?.unwrap_or_else(|| suite.to_owned());
        let name = if class.is_empty() { name } else { format!("{class}::{name}") };
        Ok(Case { name, test: Test::of(Outcome::Passed), is_pytest: suite == "pytest" })
    }

    /// What stands in it. Its first failure speaks for it.
    fn hear(&mut self, tag: &str, element: &BytesStart<'_>) -> Result<(), String> {
        let outcome = match tag {
            "failure" | "error" => Outcome::Failed,
            "flakyFailure" | "flakyError" => Outcome::Flaky,
            "skipped" => Outcome::Skipped,
            _ => return Ok(()),
        };
        if matches!(self.test.outcome, Outcome::Passed) || outcome == Outcome::Failed {
            self.test.outcome = outcome;
        }
        if self.test.message.is_none() && outcome != Outcome::Skipped {
            let said = match attribute(element, "message")? {
                None => attribute(element, "type")?,
                message => message,
            };
            let line = said.as_deref().unwrap_or_default().lines().next().unwrap_or_default().trim();
            self.test.message = Some(line.chars().take(MESSAGE_MAX).collect()).filter(|line: &String| !line.is_empty());
        }
        Ok(())
    }

    fn end(self, results: &mut Results) {
        if self.is_pytest {
            results.add_try(self.name, self.test);
        } else {
            results.add(self.name, self.test);
        }
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    let found = element.try_get_attribute(name).map_err(|error| error.to_string())?;
    let value = found.map(|found| found.normalized_value(XmlVersion::Implicit1_0)).transpose();
    value
        .map(|value| value.map(|value| value.into_owned()))
        .map_err(|error| format!("its {name} cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(text: &str) -> Vec<(String, Outcome)> {
        parse(text).unwrap().0.into_iter().map(|(name, test)| (name, test.outcome)).collect()
    }

    fn named(expected: &[(&str, Outcome)]) -> Vec<(String, Outcome)> {
        expected.iter().map(|(name, outcome)| ((*name).to_owned(), *outcome)).collect()
    }

    #[test]
    fn what_pytest_writes_is_understood() {
        let text = include_str!("../../tests/baseline/fixtures/pytest.xml");
        let expected = named(&[
            ("tests.test_shop.TestCart::test_adds", Outcome::Passed),
            ("tests.test_shop.TestCart::test_removes", Outcome::Failed),
            ("tests.test_shop::test_closes", Outcome::Failed),
            ("tests.test_shop::test_known", Outcome::Skipped),
            ("tests.test_shop::test_known_no_more", Outcome::Failed),
            ("tests.test_shop::test_later", Outcome::Skipped),
            ("tests.test_shop::test_pays[1]", Outcome::Passed),
            ("tests.test_shop::test_pays[2]", Outcome::Failed),
            ("tests.test_shop::test_pays[a/b::c]", Outcome::Passed),
            ("tests.test_shop::test_said", Outcome::Passed),
            ("tests.test_shop::test_ships", Outcome::Failed),
            ("tests.test_shop::test_sometimes", Outcome::Flaky),
            ("tests.test_unreadable", Outcome::Failed),
        ]);
        assert_eq!(outcomes(text), expected);
        let results = parse(text).unwrap();
        let message = results.0["tests.test_shop.TestCart::test_removes"].message.as_deref().unwrap();
        assert!(message.starts_with("AssertionError: the <cart> & its \"total\""), "{message}");
    }

    #[test]
    fn what_nextest_writes_is_understood() {
        let text = include_str!("../../tests/baseline/fixtures/nextest.xml");
        let expected = named(&[
            ("shop::orders::adds", Outcome::Passed),
            ("shop::orders::dies", Outcome::Failed),
            ("shop::orders::hangs", Outcome::Failed),
            ("shop::orders::sometimes", Outcome::Flaky),
            ("shop::tests::adds", Outcome::Passed),
            ("shop::tests::removes", Outcome::Failed),
        ]);
        assert_eq!(outcomes(text), expected);
        assert_eq!(parse(text).unwrap().0["shop::orders::hangs"].message.as_deref(), Some("test timeout"));
    }

    /// `<rerunFailure>` in a test that has none of its own, a suite without classes, two tests of one name.
    #[test]
    fn others_write_it_a_little_differently() {
        let suite = |cases: &str| outcomes(&format!("<testsuite name='s'>{cases}</testsuite>"));
        assert_eq!(suite("<testcase name='a'/>"), named(&[("s::a", Outcome::Passed)]));
        let twice = "<testcase name='a'><failure/></testcase><testcase name='a'/>";
        assert_eq!(suite(twice), named(&[("s::a", Outcome::Failed)]), "a failure is hidden");
        let both = "<testcase name='a'><flakyFailure/><error message='x'/></testcase>";
        assert_eq!(suite(both), named(&[("s::a", Outcome::Failed)]));
        assert_eq!(outcomes("<testsuites/>"), []);
        let nested =
            "<testsuites><testsuite name='o'><testsuite name='i'><testcase name='a'/></testsuite><testcase name='b'/>";
        let nested = outcomes(&format!("{nested}</testsuite></testsuites>"));
        assert_eq!(nested, named(&[("i::a", Outcome::Passed), ("o::b", Outcome::Passed)]));
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let deep = "<testsuite>".repeat(100_000);
        for (text, word) in [
            ("", "neither"),
            ("words", "neither"),
            ("<html><testcase name='a'/></html>", "begins with html"),
            ("<testsuite><testcase name='a'>", "cut off"),
            ("<testsuite><testcase name='a'></testsuite>", "testcase"),
            ("<testsuite><testcase/></testsuite>", "no name"),
            ("<testsuite><testcase name='&bomb;'/></testsuite>", "bomb"),
            ("<!DOCTYPE x [<!ENTITY bomb 'b'>]><testsuite><testcase name='&bomb;'/></testsuite>", "bomb"),
            (deep.as_str(), "cut off"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text:.60}: {error}");
        }
    }
}
