//! What a node tells over HTTP: that it counts what happens, that it answers without its database, and whom it answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Database, Running, Systole, eventually};
use crate::{SOON, becomes, submit};

/// A node that answers at a port of its own.
struct Seen {
    node: Running,
    address: SocketAddr,
}

impl Seen {
    fn start(host: &Systole, arguments: &[&str]) -> Seen {
        let at = ["node", "--allow-submitted-commands", "--http", "127.0.0.1:0"];
        Seen::of(host.start(&[&at, arguments].concat()))
    }

    fn of(node: Running) -> Seen {
        node.wait_for_errors("ready: ", SOON);
        let errors = node.errors();
        let address = errors.split("http://").nth(1).and_then(|rest| rest.split("/metrics").next()).unwrap();
        let port = address.rsplit(':').next().unwrap().parse().unwrap();
        Seen { node, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// Status and body.
    #[track_caller]
    fn get(&self, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let host = if headers.contains("Host: ") { "" } else { "Host: localhost\r\n" };
        write!(stream, "GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// A series, by its name and labels as they are printed.
    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        let (status, text) = self.get("/metrics", "");
        assert_eq!(status, 200, "{text}");
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{series} is not in {text}")).parse().unwrap()
    }

    #[track_caller]
    fn becomes(&self, series: &str, value: f64) {
        eventually(format!("{series} {value}"), SOON, || (self.value(series) == value).then_some(()));
    }
}

#[test]
fn what_a_node_does_is_counted() {
    let database = Database::new();
    let host = Systole::on(&database).fast();
    submit(&host, "good", &[], "exit 0");
    submit(&host, "bad", &[], "exit 3");
    submit(&host, "killed", &["--queue", "q"], "kill -9 $$");
    let seen = Seen::start(&host, &["--slots", "4", "--queue", "default", "--queue", "q"]);
    for (run_id, status) in [("good", "COMPLETED"), ("bad", "FAILED"), ("killed", "FAILED")] {
        becomes(&database, run_id, status);
    }
    for series in [
        "systole_runs_finished_total{outcome=\"completed\",queue=\"default\"}",
        "systole_runs_finished_total{outcome=\"failed\",queue=\"default\"}",
        "systole_runs_finished_total{outcome=\"failed\",queue=\"q\"}",
        "systole_child_exits_total{cause=\"exit_zero\"}",
        "systole_child_exits_total{cause=\"exit_nonzero\"}",
        "systole_child_exits_total{cause=\"signal\"}",
        "systole_runs_claimed_total{kind=\"fresh\",queue=\"q\"}",
        "systole_run_queue_wait_seconds_count{queue=\"q\"}",
        "systole_run_duration_seconds_count{queue=\"q\"}",
        "systole_run_attempts_bucket{queue=\"q\",le=\"1\"}",
        "systole_node_state{state=\"ready\"}",
        "systole_db_up",
        concat!("systole_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"),
    ] {
        seen.becomes(series, 1.0);
    }
    seen.becomes("systole_child_starts_total", 3.0);
    seen.becomes("systole_runs_running{queue=\"default\"}", 0.0);
    assert_eq!(seen.value("systole_run_slots"), 4.0);
    assert_eq!(seen.value("systole_stale_after_seconds"), 4.0);
    assert_eq!(seen.value("systole_http_requests_total{code=\"2xx\",route=\"/livez\"}"), 0.0);
    assert_eq!(database.value("SELECT http_address FROM systole.nodes"), seen.address.to_string());
    assert_eq!((seen.get("/livez", ""), seen.get("/readyz", "").0), ((200, "alive\n".to_owned()), 200));
    assert_eq!(seen.value("systole_http_requests_total{code=\"2xx\",route=\"/livez\"}"), 1.0);

    submit(&host, "long", &[], "trap '' TERM; sleep 600 & wait; wait");
    becomes(&database, "long", "RUNNING");
    seen.becomes("systole_runs_running{queue=\"default\"}", 1.0);
    eventually("a lease that was renewed", SOON, || {
        (seen.value("systole_heartbeat_lease_used_ratio_count") > 1.0).then_some(())
    });
    for series in [
        "systole_heartbeats_total{result=\"ok\"}",
        "systole_heartbeat_verdicts_total{verdict=\"ok\"}",
        "systole_heartbeat_duration_seconds_count",
        "systole_heartbeat_schedule_delay_seconds_count",
        "systole_heartbeat_last_success_timestamp_seconds",
        "systole_db_query_duration_seconds_count{statement=\"instance.beat\"}",
        "systole_db_query_duration_seconds_count{statement=\"instance.finish_all\"}",
        "systole_db_query_duration_seconds_count{statement=\"node.claim_queued\"}",
        "systole_db_query_duration_seconds_count{statement=\"session.schema\"}",
        "systole_db_dials_total{result=\"ok\"}",
        "systole_db_connections",
        "systole_notifications_total",
        "systole_claim_attempts_total{result=\"claimed\"}",
        "systole_claim_attempts_total{result=\"empty\"}",
        "systole_loop_last_success_timestamp_seconds{loop=\"heartbeat\"}",
        "systole_loop_last_success_timestamp_seconds{loop=\"node\"}",
        "systole_loop_last_success_timestamp_seconds{loop=\"sweep\"}",
        "systole_loop_last_success_timestamp_seconds{loop=\"claim\"}",
        "process_resident_memory_bytes",
    ] {
        assert!(seen.value(series) > 0.0, "{series}");
    }
    assert!(seen.value("systole_db_clock_offset_seconds").abs() < 1.0, "it is the same clock");
    // Taken away: its next heartbeat is lost, and it is killed.
    assert_eq!(host.output(&["takeover", "long", "--force"]).status.code(), Some(0));
    seen.becomes("systole_fences_total{reason=\"superseded\"}", 1.0);
    seen.becomes("systole_fence_kill_duration_seconds_count", 1.0);
    seen.becomes("systole_child_exits_total{cause=\"fence_kill\"}", 1.0);
    seen.becomes("systole_runs_finished_total{outcome=\"lost\",queue=\"default\"}", 1.0);
}

#[test]
fn what_another_left_is_counted_by_whoever_takes_it_over() {
    let database = Database::new();
    let host = Systole::on(&database).fast();
    let first = Seen::start(&host, &["--slots", "2"]);
    submit(&host, "r", &[], "test $SYSTOLE_ATTEMPT = 2 || sleep 600");
    submit(&host, "poison", &["--crashes-max", "1"], "test $SYSTOLE_ATTEMPT = 2 || sleep 600");
    first.becomes("systole_child_starts_total", 2.0);
    first.node.signal(Signal::KILL);
    let second = Seen::start(&host, &["--slots", "2"]);
    becomes(&database, "r", "COMPLETED");
    for series in [
        "systole_takeovers_total{cause=\"proof\"}",
        "systole_takeover_delay_seconds_count",
        "systole_runs_claimed_total{kind=\"takeover\",queue=\"default\"}",
        "systole_run_attempts_bucket{queue=\"default\",le=\"2\"}",
    ] {
        second.becomes(series, 1.0);
    }
    for series in ["systole_sweep_crashes_total{cause=\"proof\"}", "systole_certificates_filed_total"] {
        second.becomes(series, 2.0);
    }
    assert_eq!(second.value("systole_takeovers_total{cause=\"stale\"}"), 0.0);
    // What was given up and is wanted again is nobody's any more.
    becomes(&database, "poison", "FAILED");
    assert_eq!(host.output(&["retry", "poison"]).status.code(), Some(0));
    becomes(&database, "poison", "COMPLETED");
    second.becomes("systole_runs_claimed_total{kind=\"retry\",queue=\"default\"}", 1.0);
    for series in ["systole_takeovers_total{cause=\"proof\"}", "systole_takeover_delay_seconds_count"] {
        assert_eq!(second.value(series), 1.0, "{series}");
    }
}

#[test]
fn a_node_without_its_database_lives_and_is_not_ready_and_says_why() {
    let (database, server) = Database::on_own_server();
    let host = Systole::on(&database).fast();
    let seen = Seen::start(&host, &[]);
    submit(&host, "r", &[], "sleep 600");
    seen.becomes("systole_child_starts_total", 1.0);
    assert_eq!(seen.get("/readyz", ""), (200, "ready\n".to_owned()));

    let hung = server.hang();
    seen.becomes("systole_frozen_instances", 1.0);
    assert_eq!(seen.value("systole_freezes_total{reason=\"deadline\"}"), 1.0);
    seen.becomes("systole_db_up", 0.0);
    assert!(seen.value("systole_heartbeats_total{result=\"timeout\"}") > 0.0);
    assert!(seen.value("systole_db_errors_total{class=\"timeout\"}") > 0.0);
    let (status, reason) = seen.get("/readyz", "");
    assert_eq!(status, 503);
    assert!(reason.contains("did not answer within"), "{reason}");
    assert_eq!(seen.get("/livez", "").0, 200);

    drop(hung);
    seen.becomes("systole_frozen_instances", 0.0);
    seen.becomes("systole_freeze_duration_seconds_count", 1.0);
    seen.becomes("systole_db_up", 1.0);
    eventually("it is ready again", SOON, || (seen.get("/readyz", "").0 == 200).then_some(()));
}

#[test]
fn a_taken_port_is_told_before_anything_is_done() {
    let database = Database::new();
    let host = Systole::on(&database);
    submit(&host, "r", &[], "true");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let output = host.output(&["node", "--allow-submitted-commands", "--http", &address]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.contains(&other.local_addr().unwrap().port().to_string()) && told.contains("--http"), "{told}");
    assert_eq!(database.value("SELECT count(*) FROM systole.nodes"), "0");
    assert_eq!(database.value("SELECT status FROM systole.runs"), "QUEUED");
    // Unless it is asked, what is only there for a moment takes no port.
    let output = host.clone().with("SYSTOLE_HTTP", "").output(&["node", "--once", "--allow-submitted-commands"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !told.contains("http://"), "{told}");
}

#[test]
fn only_this_machine_is_answered_without_a_token() {
    let database = Database::new();
    let host = Systole::on(&database);
    let wide = ["node", "--http", "0.0.0.0:0"];
    let output = host.output(&wide);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.contains("SYSTOLE_HTTP_TOKEN") && told.contains("--http-token-file"), "{told}");

    let here = Seen::start(&host, &[]);
    for path in ["/metrics", "/livez", "/"] {
        let (status, told) = here.get(path, "Host: evil.example:7070\r\n");
        assert!(status == 421 && told.contains("localhost"), "{path}: {status} {told}");
    }
    assert_eq!(here.get("/", "").0, 404);

    let guarded = Seen::of(host.with("SYSTOLE_HTTP_TOKEN", "0123456789abcdef").start(&wide));
    let name = "Host: node7.example\r\n";
    let with = |token: &str| format!("{name}Authorization: Bearer {token}\r\n");
    assert_eq!(guarded.get("/metrics", &with("0123456789abcdef")).0, 200);
    for wrong in [name.to_owned(), with("0123456789abcdeX"), with("")] {
        assert_eq!(guarded.get("/metrics", &wrong).0, 401, "{wrong}");
        assert_eq!(guarded.get("/livez", &wrong).0, 200, "{wrong}");
    }
    assert!(!guarded.node.errors().contains("0123456789abcdef"));
}

#[test]
fn those_who_ask_and_say_nothing_hurt_nobody() {
    let database = Database::new();
    let host = Systole::on(&database).fast();
    let seen = Seen::start(&host, &[]);
    let mut silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(seen.address).unwrap()).collect();
    for stream in &mut silent {
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: loc");
    }
    submit(&host, "r", &[], "sleep 2");
    becomes(&database, "r", "COMPLETED");
    let attempts = "SELECT count(*) FROM systole.executor_instances";
    assert_eq!(database.value(attempts), "1", "its heartbeats were late");
    // However long they stay.
    let (status, _) = seen.get("/metrics", "");
    assert_eq!(status, 200);
    drop(silent);
    assert_eq!(seen.value("systole_freezes_total{reason=\"deadline\"}"), 0.0);
    let late = seen.value("systole_heartbeat_schedule_delay_seconds_count")
        - seen.value("systole_heartbeat_schedule_delay_seconds_bucket{le=\"1\"}");
    assert_eq!(late, 0.0);
    let patience = Duration::from_secs(1);
    let begun = std::time::Instant::now();
    seen.get("/livez", "");
    assert!(begun.elapsed() < patience, "nobody is in the way any more");
}
