//! Many runs over several nodes, while those are killed, stopped and drained at random: nobody works twice at once, nothing is
//! lost, and every repeat has its reason.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;

use crate::node;
use crate::support::{Database, Running, Systole, eventually};

const RUNS: usize = 200;
const SEED: u64 = 7;

/// Each attempt writes down when it was at work, by a clock that all share.
const PROBE: &str = "for i in 1 2 3 4 5 6 7 8; do echo $SYSTOLE_RUN_ID $SYSTOLE_ATTEMPT $(cut -d' ' -f1 /proc/uptime) >> $LOG; sleep 0.1; done";

#[test]
fn a_fleet_under_random_faults_overlaps_nowhere_and_loses_nothing() {
    let database = Database::new();
    database.pretend_old_server();
    let hosts = [Systole::on(&database).fast(), Systole::on(&database).fast()];
    let log = hosts[0].state.path().join("probe.log");
    let lines: String = (0..RUNS)
        .map(|n| {
            let run = serde_json::json!({ "run_id": format!("r{n}"), "argv": ["sh", "-c", PROBE], "crashes_max": 100,
                                          "env": { "LOG": log } });
            format!("{run}\n")
        })
        .collect();
    std::fs::write(hosts[0].state.path().join("runs.jsonl"), lines).unwrap();
    assert_eq!(hosts[0].output(&["submit", "-f", "runs.jsonl"]).status.code(), Some(0));

    let fresh = |n: usize| node(&hosts[n % 2], &["--slots", "4", "--poll-interval", "200ms"]);
    let mut nodes: Vec<Running> = (0..4).map(fresh).collect();
    let mut random = StdRng::seed_from_u64(SEED);
    let mut stopped: Vec<(usize, Instant)> = Vec::new();
    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    let until = Instant::now() + Duration::from_secs(12);
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(random.random_range(200..700))); // between two faults
        stopped.retain(|(n, since)| {
            let goes_on = since.elapsed() > Duration::from_secs(5);
            if goes_on {
                nodes[*n].signal(Signal::CONT);
            }
            !goes_on
        });
        // While all of it goes on, too, it never finds what is not there. (69 is a machine that is busy with other things.)
        let audit = hosts[0].output(&["audit"]);
        assert!(matches!(audit.status.code(), Some(0 | 69)), "{audit:?}");
        let victim = random.random_range(0..nodes.len());
        if stopped.iter().any(|(n, _)| *n == victim) {
            continue;
        }
        match random.random_range(0..4) {
            0 | 1 => {
                *faults.entry("killed").or_default() += 1;
                nodes[victim] = fresh(victim);
            }
            2 if stopped.is_empty() => {
                *faults.entry("stopped").or_default() += 1;
                nodes[victim].signal(Signal::STOP);
                stopped.push((victim, Instant::now()));
            }
            _ => {
                *faults.entry("halted").or_default() += 1;
                nodes[victim].signal(Signal::TERM);
                nodes[victim].wait_for_errors("draining", Duration::from_secs(10));
                nodes[victim].signal(Signal::TERM);
                nodes[victim].wait(Duration::from_secs(20));
                nodes[victim] = fresh(victim);
            }
        }
    }
    for (n, _) in stopped {
        nodes[n].signal(Signal::CONT);
    }
    assert!(faults.len() == 3, "{faults:?}");
    let completed = "SELECT count(*) FROM systole.runs WHERE status = 'COMPLETED'";
    eventually("all runs completed", Duration::from_secs(60), || {
        (database.value(completed) == RUNS.to_string()).then_some(())
    });

    let mut spans: BTreeMap<String, BTreeMap<i32, (f64, f64)>> = BTreeMap::new();
    for line in std::fs::read_to_string(&log).unwrap().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        // A line that a kill has cut short says nothing.
        let [run_id, attempt, at] = words[..] else { continue };
        let (Ok(attempt), Ok(at)) = (attempt.parse(), at.parse::<f64>()) else { continue };
        let span = spans.entry(run_id.to_owned()).or_default().entry(attempt).or_insert((at, at));
        *span = (span.0.min(at), span.1.max(at));
    }
    assert_eq!(spans.len(), RUNS);
    let mut repeats = 0;
    for (run_id, attempts) in &spans {
        let spans: Vec<_> = attempts.values().collect();
        for pair in spans.windows(2) {
            repeats += 1;
            // The clock shows hundredths.
            assert!(pair[0].1 <= pair[1].0 + 0.01, "{run_id} overlaps itself: {attempts:?} ({faults:?})");
        }
    }
    let unexplained = "SELECT count(*) FROM systole.executor_instances i JOIN systole.runs r USING (run_id)
                        WHERE i.attempt < r.attempt AND i.status NOT IN ('CRASHED', 'RELEASED')";
    assert_eq!(database.value(unexplained), "0");
    let once = "SELECT count(*) FROM systole.executor_instances WHERE status = 'COMPLETED'";
    assert_eq!(database.value(once), RUNS.to_string());
    // The history alone proves it as well, and knows each takeover.
    let audit = hosts[0].output(&["audit", "--json"]);
    assert_eq!(audit.status.code(), Some(0), "{audit:?}");
    let report: serde_json::Value = serde_json::from_slice(&audit.stdout).unwrap();
    let crashes = database.value("SELECT count(*) FROM systole.executor_instances WHERE status = 'CRASHED'");
    assert_eq!(report["takeovers_total"].to_string(), crashes);
    assert!(repeats > 5, "hardly anything happened: {repeats} repeats, {faults:?}");
}
