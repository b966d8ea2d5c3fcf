use super::*;

const SECOND: u64 = 1_000_000_000;

fn sighting(run_id: &str, fence: i64, role: &str, first: u64, last: u64) -> Sighting {
    Sighting { run_id: run_id.to_owned(), fence, role: role.to_owned(), first, last }
}

/// On host `h`, from second 10 to 12.
fn attempt(attempt: i32, status: &str, cause: Option<&str>) -> Attempt {
    Attempt {
        run_id: "r".to_owned(),
        attempt,
        host: "h".to_owned(),
        instance_id: format!("i{attempt}"),
        has_freezer: true,
        status: status.to_owned(),
        cause: cause.map(str::to_owned),
        exit_code: None,
        claimed_at: 10.0,
        ended_at: Some(12.0),
    }
}

fn fault(kind: Kind, host: Option<&str>, at: f64, until: f64) -> Fault {
    Fault { kind, host: host.map(str::to_owned), instance_id: None, at, until }
}

/// The first attempt ends like this, and the second one, claimed two seconds later, completes.
fn repeated(first: Attempt, faults: Vec<Fault>) -> Verdict {
    let second = Attempt { claimed_at: 14.0, ended_at: Some(20.0), ..attempt(2, "COMPLETED", None) };
    let runs = BTreeMap::from([("r".to_owned(), "COMPLETED".to_owned())]);
    Verdict::of(&Evidence { attempts: vec![first, second], runs, faults, ..Evidence::default() })
}

#[test]
fn nothing_is_wrong_where_nothing_happened() {
    let verdict = Verdict::of(&Evidence::default());
    assert!(verdict.clean && verdict.told.is_empty());
}

#[test]
fn attempts_that_follow_each_other_do_not_overlap() {
    let seen = [
        sighting("r", 1, "work", 5 * SECOND, 6 * SECOND),
        sighting("r", 1, "straggle", 5 * SECOND, 7 * SECOND),
        // In the very nanosecond is still behind.
        sighting("r", 2, "work", 7 * SECOND, 8 * SECOND),
        sighting("s", 1, "work", 5 * SECOND, 9 * SECOND),
    ];
    assert_eq!(overlaps(&seen), [""; 0]);
}

#[test]
fn a_line_behind_the_first_of_a_later_attempt_is_an_overlap() {
    let later = sighting("r", 2, "work", 7 * SECOND, 8 * SECOND);
    let earlier = |role| sighting("r", 1, role, 5 * SECOND, 7 * SECOND + 1);
    let interleaved = [earlier("work"), earlier("straggle"), later.clone()];
    assert_eq!(overlaps(&interleaved), ["run \"r\": fence 1 was at work 1ns after fence 2 had begun"]);
    // Also if the later one has ended by then: its successor in time is still the older attempt.
    assert_eq!(overlaps(&[sighting("r", 1, "straggle", 5 * SECOND, 60 * SECOND), later.clone()]).len(), 1);
    // Attempts that do not follow each other directly are two as well, and two at once of one attempt are one too many.
    assert_eq!(overlaps(&[later.clone(), sighting("r", 9, "work", 6 * SECOND, 7 * SECOND)]).len(), 1);
    let twice = [later.clone(), later];
    assert_eq!(overlaps(&twice), ["run \"r\": the attempt with fence 2 was started twice"]);
}

#[test]
fn a_takeover_behind_a_fault_of_its_host_is_explained() {
    for (kind, cause) in [
        (Kind::NodeKilled, "proof"),
        (Kind::HostLost, "stale"),
        (Kind::GuardKilled, "guard_lost"),
        (Kind::GuardStopped, "guard_lost"),
        (Kind::NodeStopped, "proof"),
        (Kind::CutOff, "stale"),
    ] {
        let verdict = repeated(attempt(1, "CRASHED", Some(cause)), vec![fault(kind, Some("h"), 11.0, 11.5)]);
        assert!(verdict.clean, "{kind:?}: {:?}", verdict.told);
    }
}

#[test]
fn a_takeover_is_false_without_a_fault_that_explains_it() {
    let crashed = || attempt(1, "CRASHED", Some("stale"));
    let unexplained = [
        vec![],
        // Of another host, later, long before, too small, none that ends anything.
        vec![fault(Kind::HostLost, Some("other"), 11.0, 11.5)],
        vec![fault(Kind::HostLost, Some("h"), 12.5, 13.0)],
        vec![fault(Kind::HostLost, Some("h"), 1.0, 2.0)],
        vec![fault(Kind::NodePaused, Some("h"), 11.0, 11.5)],
        vec![fault(Kind::CutOffBriefly, Some("h"), 11.0, 11.5)],
        vec![fault(Kind::PostmasterKilled, None, 11.0, 11.5)],
        vec![fault(Kind::RowsLocked, None, 11.0, 11.5)],
        vec![fault(Kind::GuardKilled, Some("h"), 11.0, 11.5)],
    ];
    for faults in unexplained {
        let verdict = repeated(crashed(), faults.clone());
        assert_eq!(verdict.violations, Violations { false_takeovers: 1, ..Violations::default() }, "{faults:?}");
        assert!(
            !verdict.clean && verdict.told[0].contains("run \"r\" attempt 1 on h: CRASHED, stale"),
            "{:?}",
            verdict.told
        );
    }
}

/// Only what cannot be frozen is killed when its database is away, and even that is no age.
#[test]
fn a_database_that_was_away_explains_the_end_of_what_has_no_freezer() {
    let away = || vec![fault(Kind::PostmasterKilled, None, 10.5, 13.0)];
    let ended = |cause, has_freezer| Attempt { has_freezer, ..attempt(1, "CRASHED", Some(cause)) };
    assert!(repeated(ended("proof", false), away()).clean);
    assert!(!repeated(ended("proof", true), away()).clean);
    assert!(!repeated(ended("stale", false), away()).clean);
}

#[test]
fn a_short_pause_explains_the_end_of_what_was_frozen() {
    let pause = || fault(Kind::NodePaused, Some("h"), 11.5, 12.0);
    let killed = |faults| repeated(attempt(1, "CRASHED", Some("proof")), faults).clean;
    assert!(killed(vec![fault(Kind::BackendKilled, None, 10.0, 11.0), pause()]));
    assert!(killed(vec![fault(Kind::CutOffBriefly, Some("h"), 10.0, 11.0), pause()]));
    assert!(!killed(vec![pause()]));
    assert!(!killed(vec![fault(Kind::CutOffBriefly, Some("other"), 10.0, 11.0), pause()]));
    assert!(!killed(vec![fault(Kind::BackendKilled, None, 5.0, 6.0), pause()]));
}

#[test]
fn a_killed_command_explains_its_own_attempt_alone() {
    let killed = || Attempt { exit_code: Some(137), ..attempt(1, "FAILED", None) };
    let of = |id: &str| Fault { instance_id: Some(id.to_owned()), ..fault(Kind::ProbeKilled, Some("h"), 11.9, 11.9) };
    assert!(repeated(killed(), vec![of("i1")]).clean);
    let repeats = |verdict: Verdict| verdict.violations.unexplained_repeats;
    assert_eq!(repeats(repeated(killed(), vec![of("i7")])), 1);
    assert_eq!(repeats(repeated(Attempt { exit_code: Some(1), ..killed() }, vec![of("i1")])), 1);
    // Given back without a reason.
    assert_eq!(repeats(repeated(attempt(1, "RELEASED", None), vec![])), 1);
    assert!(repeated(attempt(1, "RELEASED", None), vec![fault(Kind::DiskFull, Some("h"), 11.0, 13.0)]).clean);
}

#[test]
fn what_has_completed_is_never_repeated_nor_lost() {
    let verdict = repeated(attempt(1, "COMPLETED", None), vec![fault(Kind::NodeKilled, Some("h"), 11.0, 11.0)]);
    assert_eq!(verdict.violations, Violations { unexplained_repeats: 1, ..Violations::default() });

    let acknowledged = BTreeSet::from([("r".to_owned(), 1)]);
    let judged = |run: &str, attempt: Attempt| {
        let runs = BTreeMap::from([("r".to_owned(), run.to_owned())]);
        let evidence =
            Evidence { acknowledged: acknowledged.clone(), attempts: vec![attempt], runs, ..Evidence::default() };
        Verdict::of(&evidence).violations.lost_completions
    };
    assert_eq!(judged("COMPLETED", attempt(1, "COMPLETED", None)), 0);
    assert_eq!(judged("QUEUED", attempt(1, "COMPLETED", None)), 1);
    assert_eq!(judged("COMPLETED", attempt(1, "CRASHED", Some("stale"))), 1);
    // A failover may forget it altogether.
    assert_eq!(Verdict::of(&Evidence { acknowledged, ..Evidence::default() }).violations.lost_completions, 1);
}

#[test]
fn each_promise_has_a_count_of_its_own() {
    let one = || vec!["something".to_owned()];
    let evidence = Evidence {
        orphans: one(),
        ledger_errors: one(),
        audit_violations: one(),
        stuck_nodes: one(),
        runs: BTreeMap::from([("r".to_owned(), "RUNNING".to_owned())]),
        ..Evidence::default()
    };
    let expected =
        Violations { orphans: 1, ledger_errors: 1, audit_violations: 1, unfinished_runs: 2, ..Violations::default() };
    let verdict = Verdict::of(&evidence);
    assert_eq!(verdict.violations, expected);
    assert!(!verdict.clean);
}

#[test]
fn hand_overs_are_told_apart_by_what_they_waited_for() {
    let killed = || fault(Kind::NodeKilled, Some("h"), 11.0, 11.0);
    let certified = repeated(attempt(1, "CRASHED", Some("proof")), vec![killed()]).handover;
    assert_eq!((certified.certified.count, certified.silent.count), (1, 0));
    // From the fault at 11 to the claim at 14.
    assert_eq!((certified.certified.p99, certified.certified.is_slow()), (3.0, true));
    // Killed before there was a guard to certify.
    let silent = repeated(attempt(1, "CRASHED", Some("stale")), vec![killed()]).handover;
    assert_eq!((silent.certified.count, silent.silent.count, silent.silent.is_slow()), (0, 1, false));
    let faults = vec![fault(Kind::PostmasterKilled, None, 11.2, 13.0), killed()];
    let away = repeated(attempt(1, "CRASHED", Some("proof")), faults).handover;
    assert_eq!((away.certified.count, away.without_database.count), (0, 1));
}

#[test]
fn percentiles_are_of_what_there_was() {
    assert_eq!(Delays::of(vec![], None), Delays::default());
    let delays = Delays::of((1..=200).rev().map(f64::from).collect(), None);
    assert_eq!((delays.count, delays.p50, delays.p99, delays.max), (200, 100.0, 198.0, 200.0));
    let delays = Delays::of(vec![7.0], Some(1.0));
    assert_eq!((delays.p50, delays.p99, delays.max, delays.is_slow()), (7.0, 7.0, 7.0, true));
}
