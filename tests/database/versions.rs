//! Two builds side by side on one database: this one, and one that is made of this source with a later version, functions
//! of that version, and a migration more.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::process::Signal;

use super::support::probe::ends;
use super::support::{Database, Running, Systole, eventually};
use super::{SOON, assert_sound, expect, until};

/// Its migration.
const TOMORROW: &str = "V99__tomorrow.sql";

/// The next version's program. Its dependencies are those that are there, so it takes seconds.
fn next() -> &'static Path {
    static NEXT: OnceLock<PathBuf> = OnceLock::new();
    NEXT.get_or_init(|| {
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (target, source) = (temporary.parent().unwrap(), temporary.join("next"));
        for part in ["Cargo.lock", "build.rs", "src", "migrations", "deploy", "benches"] {
            copy(Path::new(part), &source.join(part));
        }
        let change = |file: &str, changes: &[(&str, &str)]| {
            let mut text = std::fs::read_to_string(file).unwrap();
            for (from, to) in changes {
                assert!(text.contains(from), "{file} no longer says {from:?}");
                text = text.replacen(from, to, 1);
            }
            write(&source.join(file), text.as_bytes());
        };
        let program = "autobins = false\ndefault-run = \"systole-next\"\n\n\
                       [[bin]]\nname = \"systole-next\"\npath = \"src/main.rs\"\n";
        change(
            "Cargo.toml",
            &[("version = \"0.1.0\"", "version = \"0.2.0\""), ("default-run = \"systole\"\n", program)],
        );
        change("src/db/migrate.rs", &[("FUNCTIONS_PIN: (i32, &str) = (", "FUNCTIONS_PIN: (i32, &str) = (1 + ")]);
        change("migrations/functions/beat.sql", &[("BEGIN", "-- Tomorrow's words.\nBEGIN")]);
        write(&source.join("migrations").join(TOMORROW), b"ALTER TABLE runs ADD COLUMN tomorrow text;\n");

        let mut command = Command::new("nice");
        command.args(["-n", "10", env!("CARGO"), "build", "--offline", "--bin", "systole-next", "--target-dir"]);
        command.arg(target).current_dir(&source);
        // What cargo tells this test of this package would make it build the dependencies anew, there and back.
        let told = |name: &str| (name.starts_with("CARGO") && name != "CARGO_HOME") || name == "OUT_DIR";
        for (name, _) in std::env::vars().filter(|(name, _)| told(name)) {
            command.env_remove(name);
        }
        let built = command.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        target.join("debug/systole-next")
    })
}

/// A file or a folder, without files that are gone. What has not changed is not written, so that it is not built again.
fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        return write(to, &std::fs::read(from).unwrap());
    }
    std::fs::create_dir_all(to).unwrap();
    for there in std::fs::read_dir(to).unwrap().flatten() {
        if !from.join(there.file_name()).exists() && there.file_name() != TOMORROW {
            let _ = std::fs::remove_file(there.path());
        }
    }
    for entry in std::fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        copy(&from.join(&name), &to.join(&name));
    }
}

fn write(to: &Path, content: &[u8]) {
    if std::fs::read(to).is_ok_and(|there| there == content) {
        return;
    }
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::write(to, content).unwrap();
}

/// The next version on the same host.
fn next_of(host: &Systole) -> Systole {
    host.clone().program(next())
}

fn functions_version(database: &Database) -> i32 {
    database.value("SELECT functions_version FROM systole.settings").parse().unwrap()
}

/// A run of either version, whose command works until it is killed.
fn hold(host: &Systole, run_id: &str) -> Running {
    host.start_run(run_id, "exec sleep 1000")
}

#[test]
fn old_and_new_work_side_by_side_while_a_fleet_is_upgraded() {
    let database = Database::new();
    let old = Systole::on(&database).fast();
    let new = next_of(&old);
    expect(&new.output(&["--version"]), 0, &["0.2.0"]);
    let before = functions_version(&database);
    let done = old.state.path().join("done");
    let mut held = old.start_run("r", &until(&done));
    // Not before the database is its own.
    expect(&new.output(&["run", "s", "--", "true"]), 78, &["systole migrate", "functions"]);
    expect(&new.output(&["migrate", "--dry-run"]), 0, &["would apply V99__tomorrow", "would install the functions"]);
    expect(&new.output(&["migrate"]), 0, &["applied V99__tomorrow", "installed the functions"]);
    assert_eq!(functions_version(&database), before + 1);

    // The old one goes on, and takes up work, under the new functions and tables.
    let at = database.value("SELECT clock_timestamp()");
    let beaten = format!("SELECT count(*) FROM systole.executor_instances WHERE last_heartbeat > '{at}'");
    eventually("a heartbeat", SOON, || (database.value(&beaten) == "1").then_some(()));
    expect(&old.output(&["run", "s", "--", "true"]), 0, &[]);
    expect(&old.output(&["status", "s"]), 0, &["COMPLETED"]);
    // What one of them holds is refused to the other.
    expect(&new.output(&["run", "r", "--", "true"]), 75, &["already running"]);
    let mut newer = hold(&new, "n");
    expect(&old.output(&["run", "n", "--", "true"]), 75, &["already running"]);
    expect(&old.output(&["ps"]), 0, &["r ", "n "]);
    expect(&new.output(&["ps"]), 0, &["r ", "n "]);
    // Nothing is taken back.
    expect(&old.output(&["migrate"]), 0, &["nothing to do"]);
    assert_eq!(functions_version(&database), before + 1);
    assert_eq!(database.value("SELECT prosrc LIKE '%Tomorrow%' FROM pg_proc WHERE proname = 'beat'"), "t");
    expect(&old.output(&["doctor"]), 1, &["schema systole is up to date"]);
    // Each stops the other's, and hears it.
    expect(&old.output(&["stop", "n", "--wait"]), 0, &["has ended: CANCELLED"]);
    assert_eq!(newer.code(SOON), 143, "{}", newer.errors());

    // When all are new, the old ones may only end.
    expect(&new.output(&["migrate", "--oldest-allowed", "0.2.0"]), 0, &["systole 0.2.0 is the oldest"]);
    expect(&old.output(&["run", "t", "--", "true"]), 78, &["systole 0.1.0 is too old", "0.2.0"]);
    expect(&old.output(&["migrate", "--oldest-allowed", "0.1.0"]), 0, &[]);
    expect(&new.output(&["migrate", "--oldest-allowed", "0.2.0"]), 0, &[]);
    std::fs::write(&done, "").unwrap();
    assert_eq!(held.code(SOON), 0, "{}", held.errors());
    assert_eq!(ends(&database, "r"), ["COMPLETED 0"]);
    assert_sound(&database);
}

/// By the certificate that the other one's guard has written, and from another host by age.
#[test]
fn each_takes_over_from_the_other() {
    let database = Database::new();
    database.pretend_old_server();
    let old = Systole::on(&database).fast();
    let new = next_of(&old);
    expect(&new.output(&["migrate"]), 0, &["installed the functions"]);
    database.pretend_old_server();
    for (run, holder, taker) in [("forward", &old, &new), ("back", &new, &old)] {
        let held = hold(holder, run);
        held.signal(Signal::KILL);
        let mut waiter = taker.start(&["run", run, "--wait", "--", "true"]);
        assert_eq!(waiter.code(SOON), 0, "{}", waiter.errors());
        assert_eq!(ends(&database, run), ["CRASHED proof 137", "COMPLETED 0"]);
    }
    // Four hosts: whoever starts on the host of a dead one would find its certificate.
    let host = || Systole::on(&database).fast();
    let pairs = [("far-forward", host(), next_of(&host())), ("far-back", next_of(&host()), host())];
    let mut waiters: Vec<_> = pairs
        .iter()
        .map(|(run, holder, taker)| {
            let held = hold(holder, run);
            let waiter = taker.start(&["run", run, "--wait", "--", "true"]);
            waiter.wait_for_errors("waiting for run", SOON);
            held.signal(Signal::KILL);
            (run, waiter)
        })
        .collect();
    for (run, waiter) in &mut waiters {
        assert_eq!(waiter.code(SOON), 0, "{}", waiter.errors());
        assert_eq!(ends(&database, run), ["CRASHED stale", "COMPLETED 0"]);
    }
    assert_sound(&database);
}
