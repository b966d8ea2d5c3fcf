//! `systole audit`: whether the history alone proves that no run ever had two executors at once.

use chrono::{DateTime, Utc};
use clap::Args;

use super::context;
use super::exit::{Failure, code};
use super::print;
use super::settings::Settings;
use crate::db::Link;
use crate::elapsed::parse_duration;
use crate::run::audit::{Evidence, Judge, Side, Takeover, Verdict, Violation};
use crate::run::history;
use crate::run::tally::Tally;

/// In a table; --json has more.
const SHOWN_MAX: usize = 50;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only runs to which something has happened since: a duration such as 24h, or a moment such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "DURATION|RFC 3339")]
    since: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Judges each run by its events, and prints what came of it. Reads only.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let since = arguments.since.as_deref().map(Since::read).transpose()?;
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let since = match since {
            None => None,
            Some(Since::Moment(moment)) => Some(moment),
            Some(Since::Ago(ago)) => Some(link.call(async |session| history::moment(session, ago).await).await?),
        };
        let mut tally = Tally::since(since);
        audit(&mut link, &mut tally).await?;
        if arguments.json {
            print::json(&tally);
        } else {
            show(&tally);
        }
        Ok(if tally.clean { code::OK } else { code::FINDINGS })
    })
}

enum Since {
    Ago(std::time::Duration),
    Moment(DateTime<Utc>),
}

impl Since {
    fn read(text: &str) -> Result<Since, Failure> {
        let moment = || DateTime::parse_from_rfc3339(text).ok().map(|moment| Since::Moment(moment.to_utc()));
        parse_duration(text).map(Since::Ago).or_else(moment).ok_or_else(|| {
            Failure::new(
                code::USAGE,
                format!("--since is {text:?}, but should be a duration such as 24h, or a moment such as 2026-01-31T12:00:00Z"),
            )
        })
    }
}

/// Goes through all runs, in stretches of neighbours that are asked for.
async fn audit(link: &mut Link, tally: &mut Tally) -> Result<(), Failure> {
    let mut after = String::new();
    loop {
        let runs = link.call(async |session| history::runs(session, &after).await).await?;
        let Some(last) = runs.last() else { return Ok(()) };
        after.clone_from(&last.run_id);
        let is_asked_for = |run: &history::Named| run.last_event_at.is_some_and(|at| tally.covers(at));
        let stretches: Vec<(String, String)> = runs
            .chunk_by(|one, next| is_asked_for(one) && is_asked_for(next))
            .filter(|stretch| is_asked_for(&stretch[0]))
            .map(|stretch| (stretch[0].run_id.clone(), stretch[stretch.len() - 1].run_id.clone()))
            .collect();
        for (first, last) in stretches {
            judge(link, &first, &last, tally).await?;
        }
        // Nobody knows when it was, so it is always asked for.
        for run in runs.into_iter().filter(|run| run.last_event_at.is_none() && run.attempt > 0) {
            let message = format!("the tables know {} attempts, and there is no event at all", run.attempt);
            let violations = vec![Violation::missing(run.run_id, message)];
            tally.add_run(Verdict { tenures: 0, is_running: false, violations, violations_total: 1 });
        }
    }
}

/// Judges the runs from the first to the last.
async fn judge(link: &mut Link, first: &str, last: &str, tally: &mut Tally) -> Result<(), Failure> {
    let mut suspects = Vec::new();
    let mut current: Option<Judge> = None;
    let mut close = |judge: Judge, tally: &mut Tally| {
        let (run_id, verdict) = (judge.run_id().to_owned(), judge.close());
        if verdict.violations_total > 0 { suspects.push(run_id) } else { tally.add_run(verdict) }
    };
    read(link, first, last, |evidence| {
        let event = &evidence.event;
        if let Some(before) = current.take_if(|judge| judge.run_id() != event.run_id) {
            close(before, tally);
        }
        let takeover = current.get_or_insert_with(|| Judge::of(&event.run_id)).hear(&evidence);
        takeover.into_iter().for_each(|takeover| tally.add_takeover(takeover));
        if event.kind == "refused" {
            tally.add_refusal(event.at, event.detail["reason"].as_str().unwrap_or("unknown"));
        }
    })
    .await?;
    current.into_iter().for_each(|judge| close(judge, tally));
    // A run that was pruned between two pages looks as if something were missing. That is not so twice.
    for run_id in suspects {
        let mut judge = Judge::of(&run_id);
        read(link, &run_id, &run_id, |evidence| drop(judge.hear(&evidence))).await?;
        tally.add_run(judge.close());
    }
    Ok(())
}

/// Reads all events of the runs from the first to the last, a page at a time.
async fn read(link: &mut Link, first: &str, last: &str, mut hear: impl FnMut(Evidence)) -> Result<(), Failure> {
    let (mut run_id, mut event_id) = (first.to_owned(), 0);
    loop {
        let page = link.call(async |session| history::events(session, (&run_id, event_id), last).await).await?;
        if let Some(newest) = page.evidence.last() {
            (run_id, event_id) = (newest.event.run_id.clone(), newest.event.id);
        }
        page.evidence.into_iter().for_each(&mut hear);
        if !page.is_full {
            return Ok(());
        }
    }
}

fn show(tally: &Tally) {
    let Tally { runs, tenures, takeovers_total, violations_total, .. } = tally;
    for violation in tally.violations.iter().take(SHOWN_MAX) {
        print::text(&print::plain(&described(violation)));
    }
    if *violations_total > SHOWN_MAX as u64 {
        print::text(&format!("... and {} more violations: --json has more", violations_total - SHOWN_MAX as u64));
    }
    let counts =
        format!("{}, {}, {}", count(*runs, "run"), count(*tenures, "tenure"), count(*takeovers_total, "takeover"));
    print::text(&if tally.clean {
        format!("{counts}: no overlap")
    } else {
        format!(
            "{counts}: {}. This history does not prove that nothing overlapped",
            count(*violations_total, "violation")
        )
    });
    if tally.unsafe_total > 0 {
        let unsafely = count(tally.unsafe_total, "takeover");
        print::text(&format!("unsafe: {unsafely} with --unsafe-now, in which two may have worked at once"));
    }
    let reasons = tally.refused.iter().map(|(reason, times)| format!("{} {times}", print::plain(reason)));
    let reasons: Vec<String> = reasons.collect();
    print::text(&match tally.refused_total {
        0 => "no duplicate was refused".to_owned(),
        some => format!("{} refused: {}", count(some, "duplicate"), reasons.join(", ")),
    });
    if tally.takeovers.is_empty() {
        return;
    }
    let headers = ["TAKEN OVER", "RUN", "FROM", "TO", "CAUSE", "MARGIN", "DELAY"];
    print::table(&headers, tally.takeovers.values().rev().take(SHOWN_MAX).map(row).collect(), "");
    if *takeovers_total > SHOWN_MAX as u64 {
        print::text(&format!("... and {} earlier takeovers: --json has more", takeovers_total - SHOWN_MAX as u64));
    }
}

fn described(violation: &Violation) -> String {
    let rule = serde_json::to_value(violation.rule).expect("a word");
    let mut text = format!(
        "VIOLATION ({}) run \"{}\": {}",
        rule.as_str().unwrap_or_default(),
        violation.run_id,
        violation.message
    );
    if let (Some(id), Some(at)) = (violation.event_id, violation.at) {
        text.push_str(&format!("; event {id} at {}", at.format("%Y-%m-%d %H:%M:%S%.6fZ")));
    }
    for id in &violation.instance_ids {
        text.push_str(&format!("; instance {id}"));
    }
    text
}

fn row(takeover: &Takeover) -> Vec<String> {
    let cause = match takeover.cleared_by {
        _ if takeover.two_may_have_worked => format!("{} (unsafe: two may have worked)", takeover.cause),
        Some(cleared_by) => format!("{}, then {cleared_by}", takeover.cause),
        None => takeover.cause.clone(),
    };
    let side = |side: &Side| format!("{} ({})", side.executor_id, side.attempt);
    vec![
        print::moment(takeover.at),
        takeover.run_id.clone(),
        side(&takeover.from),
        side(&takeover.to),
        cause,
        print::or_dash(takeover.margin_seconds.map(|margin| format!("{margin:.1} s"))),
        format!("{:.1} s", takeover.delay_seconds),
    ]
}

/// `1 run`, `12,403 runs`.
fn count(number: u64, noun: &str) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    format!("{} {noun}{}", groups.join(","), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(count(1, "run"), "1 run");
        assert_eq!(count(0, "run"), "0 runs");
        assert_eq!(count(12_403, "run"), "12,403 runs");
        assert_eq!(count(1_000_000, "run"), "1,000,000 runs");
    }

    #[test]
    fn since_is_a_duration_or_a_moment() {
        assert!(matches!(Since::read("24h"), Ok(Since::Ago(ago)) if ago.as_secs() == 86_400));
        assert!(
            matches!(Since::read("2026-01-31T13:00:00+01:00"), Ok(Since::Moment(at)) if at.to_rfc3339() == "2026-01-31T12:00:00+00:00")
        );
        assert!(Since::read("yesterday").is_err_and(|refused| refused.message.contains("\"yesterday\"")));
    }
}
