//! What runs write: where it can be read, how much of it is kept, and what it can not do to its node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Database, Running, Systole, eventually, is_root, throughout};
use crate::{SOON, becomes, node, submit};

/// Waits in a command until the test says go, by a file in the node's folder.
const WAIT: &str = "wait_for() { while [ ! -e $1 ]; do sleep 0.02; done; };";

fn go(host: &Systole, name: &str) {
    fs::write(host.state.path().join(name), "").unwrap();
}

/// What `logs` prints, and what it says beside it.
fn logs(host: &Systole, arguments: &[&str]) -> (String, String) {
    let output = host.output(&[&["logs"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The files of all logs of this host.
fn files(host: &Systole) -> Vec<PathBuf> {
    let list = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = list(&host.state.path().join("state/runs")).flat_map(|folder| list(&folder).collect::<Vec<_>>());
    all.filter(|path| !path.ends_with("run_id")).collect()
}

fn kept_text(host: &Systole) -> String {
    let texts = files(host).into_iter().filter_map(|path| fs::read(path).ok());
    texts.map(|text| String::from_utf8_lossy(&text).into_owned()).collect()
}

fn kept(host: &Systole) -> u64 {
    files(host).iter().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
}

#[test]
fn every_byte_is_kept_with_its_moment_and_its_stream() {
    let database = Database::new();
    let host = Systole::on(&database);
    let _node = node(&host, &[]);
    let script = "printf 'a\\377\\000b\\n'; printf 'no end'; wait_for out; echo err >&2; wait_for err; printf ' of it'";
    submit(&host, "r", &[], &format!("{WAIT} {script}"));
    // Nothing is held back until its line ends.
    for (words, next) in [("out no end", "out"), ("err err\n", "err")] {
        eventually(words, SOON, || kept_text(&host).contains(words).then_some(()));
        go(&host, next);
    }
    becomes(&database, "r", "COMPLETED");
    let log = host.output(&["logs", "r"]).stdout;
    let lines: Vec<&[u8]> = log.split(|byte| *byte == b'\n').collect();
    let moments: Vec<_> = lines
        .iter()
        .filter_map(|line| std::str::from_utf8(line.get(..24)?).ok()?.parse::<chrono::DateTime<chrono::Utc>>().ok())
        .collect();
    assert!(moments.len() == 4 && moments.is_sorted(), "{}", String::from_utf8_lossy(&log));
    assert!(lines[0].ends_with(b"Z out a\xff\0b"));
    for (line, end) in lines[1..].iter().zip(["Z out no end", "Z err err", "Z out+  of it"]) {
        assert!(line.ends_with(end.as_bytes()), "{}", String::from_utf8_lossy(line));
    }
    assert_eq!(host.output(&["logs", "r", "--no-timestamps"]).stdout, b"a\xff\0b\nno end\nerr\n of it\n");
}

#[test]
fn a_flood_fills_neither_disk_nor_memory_and_its_newest_is_kept() {
    let database = Database::new();
    let (host, elsewhere) = (Systole::on(&database), Systole::on(&database));
    let node = node(&host, &["--log-bytes-max", "256KiB", "--slots", "2"]);
    submit(&host, "lines", &[], "seq 1 300000");
    submit(&host, "line", &[], "head -c 30000000 /dev/zero | tr '\\0' x");
    eventually("the end of both", SOON * 3, || {
        assert!(kept(&host) <= 2 * 256 * 1024, "{} bytes", kept(&host));
        (database.value("SELECT count(*) FROM systole.runs WHERE status = 'COMPLETED'") == "2").then_some(())
    });
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid().as_raw_pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 100_000, "{peak} kB of memory");
    let (text, _) = logs(&host, &["lines"]);
    assert!(text.ends_with(" out 300000\n") && text.len() > 128 * 1024, "{}", text.len());
    let numbers: Vec<u32> = text.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|two| two[0] + 1 == two[1]), "a hole");
    // From anywhere else the newest of it.
    let (text, beside) = logs(&elsewhere, &["lines"]);
    assert!(text.ends_with(" out 300000\n") && text.len() > 60_000 && text.len() <= 65_536, "{}", text.len());
    assert!(beside.contains("the newest 64 kB of") && beside.contains("its file is on host"), "{beside}");
}

#[test]
fn a_follower_sees_every_line_over_changes_of_files_and_ends_with_the_attempt() {
    let database = Database::new();
    let host = Systole::on(&database);
    let _node = node(&host, &["--log-bytes-max", "160KiB"]);
    submit(
        &host,
        "r",
        &[],
        &format!("{WAIT} for n in 1 2 3 4 5 6 7 8; do wait_for go$n; seq ${{n}}000 ${{n}}799; done"),
    );
    becomes(&database, "r", "RUNNING");
    let mut follower = host.start(&["logs", "r", "-f", "--no-timestamps"]);
    for n in 1..=8 {
        go(&host, &format!("go{n}"));
        follower.wait_for_output(&format!("{n}799\n"));
    }
    assert_eq!(follower.code(SOON), 0, "{}", follower.errors());
    let expected: Vec<String> = (1..=8).flat_map(|n| (0..800).map(move |m| format!("{n}{m:03}"))).collect();
    assert_eq!(follower.output().lines().collect::<Vec<_>>(), expected);
    assert!(follower.errors().is_empty() && files(&host).len() == 2, "{}", follower.errors());
}

#[test]
fn from_elsewhere_one_can_follow_what_gets_into_the_database() {
    let database = Database::new();
    let (host, elsewhere) = (Systole::on(&database), Systole::on(&database));
    submit(&host, "r", &[], &format!("echo first; {WAIT} wait_for go; echo second"));
    let mut follower = elsewhere.start(&["logs", "r", "-f"]);
    follower.wait_for_errors("not attempted yet", SOON);
    let _node = node(&host, &[]);
    follower.wait_for_output(" out first\n");
    go(&host, "go");
    assert_eq!(follower.code(SOON), 0, "{}", follower.errors());
    let lines: Vec<String> = follower.output().lines().map(|line| line[25..].to_owned()).collect();
    assert_eq!(lines, ["out first", "out second"]);
}

#[test]
fn what_a_crash_wrote_can_be_read_anywhere() {
    let database = Database::new();
    let (host, elsewhere) = (Systole::on(&database), Systole::on(&database));
    let sweepers: [&dyn Fn() -> Option<Running>; 2] = [&|| Some(node(&host, &["--queue", "none"])), &|| {
        assert_eq!(host.output(&["run", "other", "--", "true"]).status.code(), Some(0));
        None
    }];
    for (n, sweep) in sweepers.iter().enumerate() {
        let run_id = format!("r{n}");
        let victim = node(&host, &[]);
        submit(&host, &run_id, &[], "echo famous last words; sleep 1000");
        eventually("the words", SOON, || (kept_text(&host).matches("famous").count() == n + 1).then_some(()));
        victim.signal(Signal::KILL);
        drop(victim);
        let _sweeper = sweep();
        eventually("them elsewhere", SOON, || {
            let output = elsewhere.output(&["logs", &run_id]);
            String::from_utf8_lossy(&output.stdout).contains("out famous last words\n").then_some(())
        });
        let last = format!(
            "SELECT is_last FROM systole.run_output JOIN systole.executor_instances USING (instance_id)
                             WHERE run_id = '{run_id}'"
        );
        assert_eq!(database.value(&last), "t");
        assert_eq!(host.output(&["cancel", &run_id]).status.code(), Some(0));
    }
}

#[test]
fn what_is_left_behind_with_the_pipe_open_holds_nothing_up() {
    let database = Database::new();
    let (host, elsewhere) = (Systole::on(&database), Systole::on(&database));
    submit(
        &host,
        "r",
        &[],
        &format!(
            "{WAIT} setsid sh -c 'echo from below; touch below; exec sleep 1000' & wait_for below; echo done; exit 3"
        ),
    );
    let mut node = host.start(&["node", "--once", "--allow-submitted-commands"]);
    becomes(&database, "r", "FAILED");
    assert_eq!(node.code(SOON), 0, "{}", node.errors());
    let (text, beside) = logs(&elsewhere, &["r", "--no-timestamps"]);
    assert!(text == "from below\ndone\n" && beside.contains("all of attempt 1"), "{text}{beside}");
}

/// A bound on the size of files stands for a full disk: that takes no rights.
#[test]
fn a_disk_that_takes_no_more_costs_output_and_never_the_run() {
    let database = Database::new();
    let host = Systole::on(&database);
    let elsewhere = Systole::on(&database);
    let narrow = host.clone().through(&["prlimit", "--fsize=100000"]);
    let node = node(&narrow, &["--slots", "2"]);
    for run_id in ["a", "b"] {
        submit(&host, run_id, &[], "seq 1 20000");
    }
    for run_id in ["a", "b"] {
        becomes(&database, run_id, "COMPLETED");
        let (text, _) = logs(&elsewhere, &[run_id]);
        assert!(text.ends_with(" out 20000\n"), "the newest is not in the database");
        let (text, beside) = logs(&host, &[run_id]);
        assert!(text.len() <= 100_000 && beside.contains("the disk of host"), "{beside}");
        let status = String::from_utf8(host.output(&["status", run_id]).stdout).unwrap();
        assert!(status.contains("the disk did not take them"), "{status}");
    }
    assert_eq!(node.errors().matches("cannot be written").count(), 1, "{}", node.errors());
}

/// A file system that is full from the start, and has room again later. Takes root to mount it.
#[test]
fn output_is_kept_again_when_there_is_room() {
    if !is_root() {
        return;
    }
    let database = Database::new();
    let host = Systole::on(&database);
    let disk = Mounted::tmpfs(&host.state.path().join("disk"), "size=64k,mode=700");
    let filler = disk.0.join("filler");
    Command::new("dd")
        .args(["if=/dev/zero", "bs=64k", "count=2"])
        .arg(format!("of={}", filler.display()))
        .output()
        .unwrap();
    let node = node(&host, &["--runs-dir", &disk.0.display().to_string()]);
    submit(
        &host,
        "r",
        &[],
        &format!("echo lost; {WAIT} wait_for room; until [ -e end ]; do echo kept; sleep 0.1; done"),
    );
    node.wait_for_errors("cannot be written", SOON);
    fs::remove_file(filler).unwrap();
    go(&host, "room");
    let reader = host.clone().with("SYSTOLE_RUNS_DIR", &disk.0.display().to_string());
    eventually("what comes later", SOON, || {
        logs(&reader, &["r", "--no-timestamps"]).0.contains("kept\n").then_some(())
    });
    assert!(!logs(&reader, &["r"]).0.contains("lost"));
    go(&host, "end");
    becomes(&database, "r", "COMPLETED");
}

/// A disk that hangs: the log is replaced by a pipe that nobody reads, so that to open it takes for ever.
#[test]
fn a_disk_that_hangs_stops_the_writer_and_nobody_else() {
    let database = Database::new();
    let host = Systole::on(&database).fast();
    let node = node(&host, &["--slots", "2", "--poll-interval", "100ms"]);
    submit(&host, "r", &[], &format!("echo first; {WAIT} wait_for go; while :; do seq 1 1000; touch written; done"));
    eventually("its first words", SOON, || kept_text(&host).contains("first").then_some(()));
    let log = files(&host).remove(0);
    fs::remove_file(&log).unwrap();
    assert!(Command::new("mkfifo").arg(&log).status().unwrap().success());
    go(&host, "go");
    eventually("a full pipe", SOON, || {
        let written = host.state.path().join("written");
        let age = fs::metadata(written).ok()?.modified().ok()?.elapsed().ok()?;
        (age > Duration::from_millis(300)).then_some(())
    });
    // Longer than a holder that does not beat may work.
    let beats = "SELECT bool_and(last_heartbeat > clock_timestamp() - interval '1.4 s') FROM systole.executor_instances
                  WHERE run_id = 'r'";
    throughout("it beats", Duration::from_secs(3), || database.value(beats) == "t");
    submit(&host, "other", &[], "true");
    becomes(&database, "other", "COMPLETED");
    assert_eq!(host.output(&["cancel", "r"]).status.code(), Some(0));
    becomes(&database, "r", "CANCELLED");
    assert!(!node.errors().contains("frozen"), "{}", node.errors());
    submit(&host, "later", &[], "true");
    becomes(&database, "later", "COMPLETED");
}

struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(path: &Path, options: &str) -> Mounted {
        fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).status().unwrap();
        assert!(mounted.success());
        Mounted(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_run_by_hand_keeps_its_output_and_the_database_has_none() {
    let database = Database::new();
    let host = Systole::on(&database);
    let output = host.output(&["run", "r", "-q", "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(database.value("SELECT count(*) FROM systole.run_output"), "0");
    let (text, beside) = logs(&host, &["r"]);
    assert!(text.is_empty() && beside.contains("keeps its own output"), "{beside}");
}

#[test]
fn only_the_newest_of_an_attempt_gets_in_and_it_goes_with_it() {
    let database = Database::new();
    let host = Systole::on(&database);
    let _node = node(&host, &[]);
    submit(&host, "r", &[], "echo words");
    becomes(&database, "r", "COMPLETED");
    let rows = "SELECT count(*) FROM systole.run_output WHERE is_last";
    eventually("the last words", SOON, || (database.value(rows) == "1").then_some(()));
    let put = |fence: &str, last: bool| {
        database.value(&format!(
            "SELECT systole.put_output(ARRAY[instance_id], ARRAY[{fence}], ARRAY['x'::bytea], ARRAY[1], ARRAY[0], ARRAY['p'], ARRAY[{last}])
               FROM systole.executor_instances"
        ))
    };
    assert_eq!(put("fence + 1", true), "0", "with a fence that is not its own");
    assert_eq!(put("fence", false), "0", "behind the last words");
    assert_eq!(put("fence", true), "1");
    database.sql("UPDATE systole.executor_instances SET ended_at = ended_at - interval '25 hours'");
    assert_eq!(put("fence", true), "0", "a day later");
    assert_eq!(host.output(&["prune", "--older-than", "0s"]).status.code(), Some(0));
    assert_eq!(database.value("SELECT count(*) FROM systole.run_output"), "0");
}

#[test]
fn what_a_command_says_of_its_progress_is_shown_and_its_last_word_stays() {
    let database = Database::new();
    let host = Systole::on(&database);
    let _node = node(&host, &[]);
    let tell = format!("{} progress", env!("CARGO_BIN_EXE_systole"));
    let script = format!(
        "{WAIT} {tell} 2 --message \"$(printf 'a\\033b')\"; {tell} 3; wait_for go; {tell} 4 -m \"$(seq -s x 100)\" 2>/dev/null; echo $?; {tell} 5 -m done"
    );
    submit(&host, "r", &[], &script);
    let says =
        |arguments: &[&str]| serde_json::from_slice::<serde_json::Value>(&host.output(arguments).stdout).unwrap();
    eventually("the word", SOON, || {
        let running = says(&["ps", "--json"]);
        (running[0]["message"] == "a b" && running[0]["phases_executed"] == 3).then_some(())
    });
    let text = |arguments: &[&str]| String::from_utf8(host.output(arguments).stdout).unwrap();
    assert!(
        text(&["status", "r"]).contains("says: a b") && text(&["ps"]).contains("a b"),
        "{}",
        text(&["status", "r"])
    );
    go(&host, "go");
    becomes(&database, "r", "COMPLETED");
    // One that is too long is refused whole. What was said right before the end comes with it.
    assert_eq!(logs(&host, &["r", "--no-timestamps"]).0.lines().next_back(), Some("64"));
    let attempt = &says(&["status", "r", "--json"])["attempts"][0];
    assert!(attempt["message"] == "done" && attempt["phases_executed"] == 5, "{attempt}");
    assert!(text(&["status", "r"]).contains("last said: done"));
}

/// Whoever tells waits for nobody, and no heartbeat waits for it.
#[test]
fn a_word_that_does_not_get_through_goes_behind_a_later_heartbeat() {
    let database = Database::new();
    let host = Systole::on(&database).fast();
    let tell = format!("{} progress 1 --message word", env!("CARGO_BIN_EXE_systole"));
    let run = host.start_run("r", &format!("{WAIT} wait_for go; {tell} && echo told; exec sleep 1000"));
    let message = "SELECT coalesce(message, '-') FROM systole.executor_instances";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = database.connect().await;
        client.batch_execute("BEGIN; SELECT FROM systole.executor_instances FOR UPDATE").await.unwrap();
        go(&host, "go");
        run.wait_for_output("told");
        // Two heartbeats long its row is locked.
        throughout("nobody can know", Duration::from_millis(900), || database.value(message) == "-");
        client.batch_execute("ROLLBACK").await.unwrap();
    });
    eventually("the word", SOON, || (database.value(message) == "word").then_some(()));
}

#[test]
fn a_node_says_when_it_has_more_slots_than_descriptors() {
    let database = Database::new();
    let host = Systole::on(&database);
    let narrow = node(&host.clone().through(&["prlimit", "--nofile=256"]), &["--slots", "100"]);
    assert!(narrow.errors().contains("864 file descriptors, and this process may have 256"), "{}", narrow.errors());
    let enough = node(&host.through(&["prlimit", "--nofile=864"]), &["--slots", "100"]);
    assert!(!enough.errors().contains("descriptors"), "{}", enough.errors());
}

#[test]
fn logs_go_as_long_after_their_end_as_runs_do() {
    let database = Database::new();
    let host = Systole::on(&database);
    let folder = host.state.path().join("state/runs").join("r");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("run_id"), "r\n").unwrap();
    for (name, days) in [("attempt-1.log", 31), ("attempt-1.log.1", 31), ("attempt-2.log", 29)] {
        let file = fs::File::create(folder.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(days * 86_400)).unwrap();
    }
    let _node = node(&host, &[]);
    eventually("only the new one is left", SOON, || (files(&host) == [folder.join("attempt-2.log")]).then_some(()));
}
