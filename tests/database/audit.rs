//! `systole audit`: what really happened passes, and whoever changes the history is found.

use rustix::process::Signal;
use serde_json::Value;

use super::support::{Database, Systole};
use super::{SOON, expect};

/// A fleet of its own schema and roles, and one who may only look.
struct Fleet {
    database: Database,
    host: Systole,
    viewer: Systole,
}

impl Fleet {
    fn new(schema: &str) -> Fleet {
        let database = Database::empty();
        let host = Systole::on(&database).with("SYSTOLE_SCHEMA", schema);
        expect(&host.output(&["migrate", "--roles"]), 0, &[]);
        let viewer = database.create_role(&format!("{schema}_1"), &format!("IN ROLE {schema}_viewer"));
        Fleet { viewer: Systole::on(&viewer).with("SYSTOLE_SCHEMA", schema), database, host }
    }

    #[track_caller]
    fn audit(&self, code: i32, flags: &[&str]) -> Value {
        let output = self.viewer.output(&[&["audit", "--json"], flags].concat());
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[track_caller]
    fn run(&self, run_id: &str) {
        expect(&self.host.output(&["run", run_id, "--", "true"]), 0, &[]);
    }
}

/// The runs of which a violation is told, each with its rule.
fn violations(report: &Value) -> Vec<(&str, &str)> {
    let word = |violation: &'_ Value, key| violation[key].as_str().unwrap().to_owned().leak() as &str;
    report["violations"].as_array().unwrap().iter().map(|it| (word(it, "run_id"), word(it, "rule"))).collect()
}

#[test]
fn a_history_that_happened_is_sound_and_one_that_was_changed_is_not() {
    let fleet = Fleet::new("audits");
    let (database, host) = (&fleet.database, &fleet.host);
    fleet.run("plain");
    fleet.run("plain");
    // Dead, with a certificate.
    let mut holder = host.start_run("proven", "exec sleep 1000");
    expect(&host.output(&["run", "proven", "--", "true"]), 75, &[]);
    holder.signal(Signal::KILL);
    holder.wait(SOON);
    expect(&host.output(&["run", "proven", "--wait", "--", "true"]), 0, &[]);
    // Taken away, and followed when its executor has said that it is over; and without waiting for that.
    for (run, flags) in [("forced", &[] as &[&str]), ("unsafe", &["--unsafe-now"])] {
        let mut holder = host.start_run(run, "exec sleep 1000");
        expect(&host.output(&[&["takeover", run, "--force"], flags].concat()), 0, &[]);
        assert_eq!(holder.code(SOON), 76);
        expect(&host.output(&["run", run, "--wait", "--", "true"]), 0, &[]);
    }
    let _live = host.start_run("live", "exec sleep 1000");
    expect(&host.output(&["run", "live", "--", "true"]), 75, &[]);

    let said = expect(
        &fleet.viewer.output(&["audit"]),
        0,
        &["5 runs, 9 tenures, 3 takeovers: no overlap\n", "2 duplicates refused: fresh 2\n", "proof", "forced, then "],
    );
    assert!(said.contains("unsafe: 1 takeover with --unsafe-now, in which two may have worked at once\n"), "{said}");
    assert!(said.contains("forced (unsafe: two may have worked)"), "{said}");
    let report = fleet.audit(0, &[]);
    assert_eq!((&report["clean"], &report["running"], &report["unsafe_total"]), (&true.into(), &1.into(), &1.into()));
    let takeovers = report["takeovers"].as_array().unwrap();
    let causes: Vec<_> =
        takeovers.iter().map(|it| (it["run_id"].as_str().unwrap(), it["cause"].as_str().unwrap())).collect();
    assert_eq!(causes, [("proven", "proof"), ("forced", "forced"), ("unsafe", "forced")]);
    for takeover in takeovers {
        assert_eq!((&takeover["from"]["attempt"], &takeover["to"]["attempt"]), (&1.into(), &2.into()), "{takeover}");
        assert!(takeover["delay_seconds"].as_f64().unwrap() >= 0.0, "{takeover}");
        assert_eq!(takeover["two_may_have_worked"], takeover["run_id"] == "unsafe", "{takeover}");
    }

    // Each change is found, and named with its run; the ones before it still are.
    let changes = [
        ("DELETE FROM audits.run_events WHERE run_id = 'proven' AND kind = 'crashed'", "proven", "overlap"),
        ("DELETE FROM audits.run_events WHERE run_id = 'forced' AND kind = 'unbarred'", "forced", "barred_claim"),
        ("DELETE FROM audits.executor_instances WHERE run_id = 'unsafe' AND attempt = 1", "unsafe", "rows"),
        (
            "UPDATE audits.run_events SET fence = 1 WHERE run_id = 'plain' AND kind = 'claimed' AND detail @> '{\"attempt\": 2}'",
            "plain",
            "fences",
        ),
        ("DELETE FROM audits.run_events WHERE run_id = 'live'", "live", "rows"),
    ];
    let mut runs = Vec::new();
    for (sql, run, rule) in changes {
        database.sql(sql);
        runs.push(run);
        let report = fleet.audit(1, &[]);
        let found = violations(&report);
        assert!(found.contains(&(run, rule)), "{sql}: {found:?}");
        assert!(runs.iter().all(|run| found.iter().any(|(named, _)| named == run)), "{sql}: {found:?}");
        assert!(found.iter().all(|(named, _)| runs.contains(named)), "{sql}: {found:?}");
        assert_eq!(report["clean"], false);
    }
    let words = ["VIOLATION (overlap) run \"proven\": attempt 2 by ", "had not ended; event ", "does not prove"];
    let said = expect(&fleet.viewer.output(&["audit"]), 1, &words);
    assert!(said.find("VIOLATION").unwrap() < said.find("5 runs").unwrap(), "{said}");
}

/// More runs than a page of them has, and one with more events than a page of those.
#[test]
fn a_long_history_is_read_to_its_end() {
    let fleet = Fleet::new("long_audits");
    for run in ["a-first", "m", "zz-last"] {
        fleet.run(run);
    }
    let queued = "SELECT count(long_audits.submit('q' || n, argv => ARRAY['true'])) FROM generate_series(1, 1200) n";
    assert_eq!(fleet.database.value(queued), "1200");
    fleet.database.sql(
        "INSERT INTO long_audits.run_events (run_id, kind, detail)
         SELECT 'm', 'refused', jsonb_build_object('reason', CASE WHEN n % 5 = 0 THEN 'revoked' ELSE 'fresh' END)
           FROM generate_series(1, 2500) n",
    );
    fleet.run("m");
    let report = fleet.audit(0, &[]);
    assert_eq!((&report["runs"], &report["tenures"]), (&1203.into(), &4.into()));
    assert_eq!(report["refused"], serde_json::json!({"fresh": 2000, "revoked": 500}));

    // Only what has been of late, and of that the whole.
    fleet.database.sql(
        "UPDATE long_audits.run_events SET at = at - interval '3 days'
          WHERE run_id IN ('a-first', 'q7', 'q8', 'q1200') OR run_id = 'm' AND kind = 'claimed' AND detail @> '{\"attempt\": 1}'
             OR run_id = 'm' AND kind = 'refused' AND detail @> '{\"reason\": \"revoked\"}'",
    );
    let report = fleet.audit(0, &["--since", "2days"]);
    assert_eq!((&report["runs"], &report["tenures"]), (&1199.into(), &3.into()));
    assert_eq!(report["refused"], serde_json::json!({"fresh": 2000}));
    let nothing = fleet.audit(0, &["--since", "2100-01-01T00:00:00Z"]);
    assert_eq!((&nothing["runs"], &nothing["since"]), (&0.into(), &"2100-01-01T00:00:00Z".into()));
    let wrong = fleet.viewer.output(&["audit", "--since", "yesterday"]);
    expect(&wrong, 64, &["--since is \"yesterday\"", "24h", "2026-01-31T12:00:00Z"]);

    // In the very last run, and in one whose history began long ago.
    fleet.database.sql("DELETE FROM long_audits.run_events WHERE run_id = 'zz-last' AND kind = 'completed'");
    fleet.database.sql(
        "DELETE FROM long_audits.run_events WHERE run_id = 'm' AND kind = 'claimed' AND at < now() - interval '1 day'",
    );
    let report = fleet.audit(1, &["--since", "2days"]);
    let mut runs: Vec<&str> = violations(&report).into_iter().map(|(run, _)| run).collect();
    runs.dedup();
    assert_eq!(runs, ["m", "zz-last"]);
}
