//! A command under systole reads, writes and inherits as it would without.

use std::io::{ErrorKind, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::SOON;
use super::levels::at_every_level;
use super::support::process::{Piped, through};
use super::support::{Database, Running};
use super::trees::Mark;

#[test]
fn what_is_piped_in_arrives_whole_and_ends() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        let mut run = host.command(&["run", level.name(), "--", "cat"]);
        let mut child = Piped::start(run.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut stdin = child.0.stdin.take().expect("piped");
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let copy = sent.clone();
        let writer = std::thread::spawn(move || stdin.write_all(&copy));
        let mut received = Vec::new();
        child.0.stdout.take().expect("piped").read_to_end(&mut received).expect("it can be read");
        writer.join().expect("no panic").expect("it can be written");
        assert!(child.0.wait().expect("it is ours").success());
        assert!(received == sent, "{} bytes instead of {}", received.len(), sent.len());
    });
}

#[test]
fn closed_descriptors_are_survived() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        let file = host.state.path().join("ran");
        let script = format!("cat; echo ran >'{}'", file.display());
        let run = host.command(&["run", level.name(), "--", "sh", "-c", &script]);
        for closed in ["<&-", "<&- >&-", "<&- >&- 2>&-"] {
            let mut shell = through("sh", &["-c", &format!("exec \"$@\" {closed}"), "sh"], &run);
            let status = shell.stderr(Stdio::null()).status().expect("it starts");
            assert!(status.success(), "{closed}: {status}");
            std::fs::remove_file(&file).expect("the command has run");
        }
    });
}

#[test]
fn two_hundred_megabytes_are_no_burden() {
    const BYTES: u64 = 200_000_000;
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        let bytes = BYTES.to_string();
        let mut run = host.command(&["run", level.name(), "--", "head", "-c", &bytes, "/dev/zero"]);
        let begun = Instant::now();
        let mut child = Piped::start(run.stdout(Stdio::piped()));
        let read =
            std::io::copy(&mut child.0.stdout.take().expect("piped"), &mut std::io::sink()).expect("it can be read");
        assert!(child.0.wait().expect("it is ours").success());
        assert_eq!(read, BYTES);
        assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    });
}

/// Nothing of ours keeps a pipe open that the command has closed.
#[test]
fn what_the_command_closes_is_closed() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        let mark = Mark::new();
        let script = "echo last words; exec <&- >&-; while :; do sleep 0.1; done";
        let mut run = host.command(&["run", level.name(), "--", "env", &mark.variable(), "sh", "-c", script]);
        let mut child = Piped::start(run.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let (mut stdin, mut stdout) = (child.0.stdin.take().expect("piped"), child.0.stdout.take().expect("piped"));
        let (sender, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut words = String::new();
            let _ = stdout.read_to_string(&mut words);
            let _ = sender.send((words, stdin.write_all(&[0; 1 << 20]).map_err(|error| error.kind())));
        });
        let (words, written) = told.recv_timeout(SOON).expect("both ends are closed");
        assert_eq!(words, "last words\n");
        assert_eq!(written, Err(ErrorKind::BrokenPipe));
        assert!(!mark.living().is_empty() && child.0.try_wait().expect("it is ours").is_none(), "it has ended");
    });
}

#[test]
fn the_environment_is_handed_down_but_for_our_secrets() {
    let database = Database::new();
    at_every_level(|level| {
        let theirs = "postgresql://theirs/";
        let host = level.host(&database).with("DATABASE_URL", theirs).with("EMPTY", "").with("TRACEPARENT", "00-1-2-3");
        let seen = host.output(&["run", level.name(), "--", "env"]);
        let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
        let value = |name: &str| seen.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let row = &database.sql(&format!(
            "SELECT instance_id, fence, attempt, executor_id FROM systole.executor_instances WHERE run_id = '{}'",
            level.name()
        ))[0];
        assert_eq!(value("SYSTOLE_RUN_ID"), Some(level.name()));
        assert_eq!(value("SYSTOLE_INSTANCE_ID"), Some(row[0].as_str()));
        assert_eq!(value("SYSTOLE_FENCE"), Some(row[1].as_str()));
        assert_eq!(value("SYSTOLE_ATTEMPT"), Some(row[2].as_str()));
        assert_eq!(value("SYSTOLE_EXECUTOR_ID"), Some(row[3].as_str()));
        assert!(value("SYSTOLE_SOCKET").is_some_and(|path| path.ends_with(".sock")), "{seen}");
        assert_eq!(value("SYSTOLE_DATABASE_URL"), None);
        assert_eq!(
            (value("DATABASE_URL"), value("EMPTY"), value("TRACEPARENT")),
            (Some(theirs), Some(""), Some("00-1-2-3"))
        );
        assert!(!seen.contains(&database.url), "our database is in there: {seen}");
    });
}

#[test]
fn no_descriptor_of_ours_leaks_into_the_command() {
    let database = Database::new();
    // ls has one of its own, on the folder it lists.
    let list = ["ls", "/proc/self/fd"];
    let usual = Command::new(list[0]).arg(list[1]).stdin(Stdio::null()).output().expect("ls is everywhere").stdout;
    at_every_level(|level| {
        let host = level.host(&database);
        let seen = host.output(&[&["run", level.name(), "--"], &list[..]].concat());
        assert_eq!(String::from_utf8_lossy(&seen.stdout), String::from_utf8_lossy(&usual));
    });
}

/// As systemd's socket activation and make's job server do.
#[test]
fn descriptors_that_were_meant_for_the_command_reach_it() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        let file = host.state.path().join("nine");
        let run = host.command(&["run", level.name(), "--", "sh", "-c", "echo through >&9"]);
        let shell = through("sh", &["-c", &format!("exec \"$@\" 9>'{}'", file.display()), "sh"], &run);
        let mut run = Running::start(shell);
        assert_eq!(run.code(SOON), 0, "{}", run.errors());
        assert_eq!(std::fs::read_to_string(file).expect("it is there"), "through\n");
    });
}

#[test]
fn words_with_anything_in_them_arrive_as_they_are() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        let mut run = host.command(&["run", level.name(), "--", "printf", "%s|"]);
        run.args([
            OsStr::from_bytes(b"a b"),
            OsStr::from_bytes(b""),
            OsStr::from_bytes(b"\xff\n\"'$x"),
            OsStr::new("--"),
        ]);
        let seen = run.output().expect("it starts");
        assert_eq!(seen.stdout, b"a b||\xff\n\"'$x|--|");
    });
}
