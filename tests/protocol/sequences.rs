//! Whatever is called in whatever order: the rows stay within the rules, and every verdict is the one of this model.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use uuid::Uuid;

use crate::asking::{Ask, Session, Tenure, database};

const SECRET: &[u8] = b"known to the guard alone";
const ENDS: [(&str, Option<i32>); 6] = [
    ("COMPLETED", Some(0)),
    ("FAILED", Some(3)),
    ("TIMED_OUT", None),
    ("CANCELLED", None),
    ("RELEASED", None),
    ("CRASHED", None),
];

/// A step of `None` is one of the newest instance.
#[derive(Debug, Clone, Copy)]
enum Step {
    Claim { who: usize, once: bool },
    Beat { of: Option<usize> },
    Finish { of: Option<usize>, end: usize, right_fence: bool },
    File { of: Option<usize>, end: usize, right_secret: bool },
    RequestStop,
    FallSilent,
    Fence { of: Option<usize> },
}

/// Weighted so that most steps do something: a sequence of refusals proves little.
fn step() -> impl Strategy<Value = Step> {
    let of = || prop_oneof![2 => Just(None), 1 => (0..3usize).prop_map(Some)];
    let end = || prop_oneof![1 => Just(0), 2 => 0..ENDS.len()];
    prop_oneof![
        6 => (0..3usize, any::<bool>()).prop_map(|(who, once)| Step::Claim { who, once }),
        2 => of().prop_map(|of| Step::Beat { of }),
        4 => (of(), end(), prop::bool::weighted(0.8))
            .prop_map(|(of, end, right_fence)| Step::Finish { of, end, right_fence }),
        2 => (of(), end(), prop::bool::weighted(0.7))
            .prop_map(|(of, end, right_secret)| Step::File { of, end, right_secret }),
        1 => Just(Step::RequestStop),
        2 => Just(Step::FallSilent),
        1 => of().prop_map(|of| Step::Fence { of }),
    ]
}

/// What the rules say, in as few words as possible.
#[derive(Debug, Default)]
struct Model {
    tenures: [Option<(Tenure, Option<Ended>)>; 3],
    attempt: i32,
    silent: bool,
    stop_requested: bool,
    completed: bool,
}

/// As which status, with which exit code and cause.
type Ended = (&'static str, Option<i32>, Option<&'static str>);

impl Model {
    fn holder(&self) -> Option<usize> {
        self.tenures.iter().position(|tenure| matches!(tenure, Some((_, None))))
    }

    fn newest(&self) -> Option<usize> {
        (0..3).filter(|n| self.tenures[*n].is_some()).max_by_key(|n| self.tenures[*n].map(|(tenure, _)| tenure.attempt))
    }

    fn end(&mut self, who: usize, ended: Ended) {
        self.tenures[who].as_mut().unwrap().1 = Some(ended);
        self.completed = ended.0 == "COMPLETED";
    }

    fn claim(&mut self, who: usize, once: bool) -> &'static str {
        match (self.tenures[who], self.holder()) {
            (Some((_, None)), _) => "mine",
            (Some((_, Some(_))), _) => "not_runnable/ended",
            (None, _) if once && self.completed => "not_runnable/completed",
            (None, Some(_)) if !self.silent => "held/fresh",
            (None, holder) => {
                if let Some(holder) = holder {
                    self.end(holder, ("CRASHED", None, Some("stale")));
                }
                (self.silent, self.stop_requested, self.completed) = (false, false, false);
                "ok"
            }
        }
    }

    fn finish(&mut self, who: usize, said: Ended, right_fence: bool) -> &'static str {
        match self.tenures[who] {
            Some((_, None)) if right_fence => {
                self.end(who, said);
                "ok"
            }
            Some((_, Some(ended))) if right_fence && ended == said => "ok",
            _ => "lost",
        }
    }

    fn file(&mut self, who: usize, said: Ended, right_secret: bool) -> &'static str {
        match self.tenures[who] {
            None => "unknown",
            Some(_) if !right_secret => "forged",
            Some((_, Some(_))) => "already",
            Some((_, None)) => {
                self.end(who, said);
                "ok"
            }
        }
    }
}

#[test]
fn no_sequence_of_calls_breaks_the_rules() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = database();
    let session = runtime.block_on(Session::on(&database));
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let sequence = prop::collection::vec(step(), 4..=12);
    runner.run(&sequence, |steps| runtime.block_on(walk(&session, &steps))).unwrap();
}

async fn walk(session: &Arc<Session>, steps: &[Step]) -> Result<(), TestCaseError> {
    let run = format!("run-{}", Uuid::now_v7());
    let ids: [Uuid; 3] = std::array::from_fn(|_| Uuid::now_v7());
    let mut model = Model::default();
    for (n, step) in steps.iter().enumerate() {
        let (said, expected) = one(session, &run, ids, &mut model, *step).await;
        prop_assert_eq!(said, expected, "step {}, {:?}", n, step);
        let violations = violations(session, &run).await;
        prop_assert_eq!(violations, "", "after step {}, {:?}", n, step);
    }
    Ok(())
}

async fn one(session: &Session, run: &str, ids: [Uuid; 3], model: &mut Model, step: Step) -> (String, String) {
    let newest = model.newest().unwrap_or(0);
    let tenure = |model: &Model, who: usize| match model.tenures[who] {
        Some((tenure, _)) => tenure,
        None => Tenure { instance: ids[who], fence: 1, attempt: 0 },
    };
    let (said, expected) = match step {
        Step::Claim { who, once } => {
            let ask = Ask { instance: ids[who], once, secret: Some(SECRET), ..Ask::of(run) };
            let answer = session.claim(&ask).await;
            let expected = model.claim(who, once);
            if expected == "ok" && answer.verdict == "ok" {
                model.attempt += 1;
                assert_eq!(answer.attempt, Some(model.attempt));
                model.tenures[who] = Some((answer.granted(), None));
            }
            (answer.said(), expected)
        }
        Step::Beat { of } => {
            let who = of.unwrap_or(newest);
            let lives = model.holder() == Some(who);
            model.silent &= !lives;
            (session.beat(&[ids[who]]).await.remove(0), if lives { "ok" } else { "lost" })
        }
        Step::Finish { of, end, right_fence } => {
            let who = of.unwrap_or(newest);
            let (status, exit_code) = ENDS[end];
            let mut tenure = tenure(model, who);
            tenure.fence -= i64::from(!right_fence);
            let cause = (status == "CRASHED").then_some("guard_lost");
            let expected = model.finish(who, (status, exit_code, cause), right_fence);
            (session.finish(tenure, status, exit_code).await, expected)
        }
        Step::File { of, end, right_secret } => {
            let who = of.unwrap_or(newest);
            let (status, exit_code) = ENDS[end];
            let secret = if right_secret { SECRET } else { b"guessed" };
            let cause = (status == "CRASHED").then_some("proof");
            let expected = model.file(who, (status, exit_code, cause), right_secret);
            (session.file(ids[who], Some(secret), status, exit_code).await, expected)
        }
        Step::RequestStop => {
            let expected = match model.holder() {
                None => "not_running",
                Some(_) if model.stop_requested => "already",
                Some(_) => "ok",
            };
            model.stop_requested = true;
            (session.request_stop(run).await, expected)
        }
        Step::FallSilent => {
            let age = "UPDATE systole.executor_instances SET last_heartbeat = clock_timestamp() - interval '1 hour'
                        WHERE run_id = $1 AND status = 'RUNNING'";
            session.execute(age, &[&run]).await.unwrap();
            model.silent |= model.holder().is_some();
            (String::new(), "")
        }
        Step::Fence { of } => {
            let tenure = tenure(model, of.unwrap_or(newest));
            let passes = tenure.attempt > 0 && tenure.attempt == model.attempt;
            let said = if session.fence(run, tenure.fence).await.is_ok() { "passes" } else { "raises" };
            (said.to_owned(), if passes { "passes" } else { "raises" })
        }
    };
    (said, expected.to_owned())
}

/// Which of the rules the rows of this run break; empty if none.
async fn violations(session: &Session, run: &str) -> String {
    session
        .text(&format!(
            "WITH i AS (SELECT *, lag(fence) OVER w AS fence_before, row_number() OVER w AS n
                          FROM systole.executor_instances WHERE run_id = '{run}' WINDOW w AS (ORDER BY attempt)),
                  r AS (SELECT * FROM systole.runs WHERE run_id = '{run}'),
                  e AS (SELECT * FROM systole.run_events WHERE run_id = '{run}'),
                  newest AS (SELECT * FROM i ORDER BY attempt DESC LIMIT 1)
             SELECT concat_ws(', ',
               (SELECT 'two are RUNNING' FROM i WHERE status = 'RUNNING' HAVING count(*) > 1),
               (SELECT 'a fence did not grow' FROM i HAVING bool_or(fence <= fence_before)),
               (SELECT 'an attempt is missing' FROM i HAVING bool_or(attempt <> n)),
               (SELECT 'a tenure without one claimed event' FROM i HAVING bool_or(1 <>
                    (SELECT count(*) FROM e WHERE kind = 'claimed' AND e.instance_id = i.instance_id AND e.fence = i.fence))),
               (SELECT 'an end without one event of its name' FROM i HAVING bool_or(
                    CASE status WHEN 'RUNNING' THEN '' ELSE lower(status) END <> coalesce(
                    (SELECT string_agg(kind, ' ') FROM e
                      WHERE kind NOT IN ('claimed', 'stop_requested') AND e.instance_id = i.instance_id), ''))),
               (SELECT 'an event of no instance' FROM e WHERE instance_id IS NULL LIMIT 1),
               (SELECT 'the run does not follow its newest instance'
                  FROM r FULL JOIN newest USING (run_id)
                 WHERE (r.attempt, r.fence, r.status) IS DISTINCT FROM (newest.attempt, newest.fence,
                       CASE newest.status WHEN 'TIMED_OUT' THEN 'FAILED' WHEN 'RELEASED' THEN 'CANCELLED'
                            ELSE newest.status END)))"
        ))
        .await
}
