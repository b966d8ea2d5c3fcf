//! A password on all its ways to the server: it appears nowhere but where its user has put it.

use std::path::Path;
use std::process::Output;

use super::support::process::{children, guard_of};
use super::support::{Database, Running, Systole, is_root};
use super::{SOON, expect};

/// Looked for everywhere.
const CANARY: &str = "canary-4711-hunter2";

#[track_caller]
fn assert_clean(what: &str, text: &[u8]) {
    let found = text.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
    assert!(!found, "the password is in {what}: {}", String::from_utf8_lossy(text));
}

#[track_caller]
fn assert_says_nothing(output: &Output) {
    assert_clean("the output", &output.stdout);
    assert_clean("the errors", &output.stderr);
}

/// A database with a role whose password is the canary, and the URL of both without it.
fn with_a_secret() -> (Database, String) {
    let database = Database::new();
    let role = format!("keeper_{}", database.name);
    database.sql(&format!("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{CANARY}'"));
    let url = format!("postgresql://{role}@127.0.0.1:{}/{}", database.socket().1, database.name);
    (database, url)
}

fn with_password(url: &str) -> String {
    url.replacen('@', &format!(":{CANARY}@"), 1)
}

/// The arguments of every process of this machine.
fn assert_no_argument_tells() {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(line) = std::fs::read(entry.path().join("cmdline")) {
            assert_clean(&format!("the arguments of {:?}", entry.file_name()), &line);
        }
    }
}

/// Every file below a folder; what goes while one looks, has gone.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let below = |path: std::path::PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.path())).collect()
}

fn assert_nothing_is_stored(database: &Database, host: &Systole) {
    for path in files(&host.state.path().join("state")) {
        // A socket cannot be read.
        assert_clean(&path.display().to_string(), &std::fs::read(&path).unwrap_or_default());
    }
    let tables = "SELECT format('SELECT t::text FROM systole.%I t', relname) FROM pg_class
                   WHERE relnamespace = 'systole'::regnamespace AND relkind = 'r'";
    for table in database.sql(tables).concat() {
        assert_clean(&table, database.sql(&table).concat().concat().as_bytes());
    }
}

/// A run that prints its surroundings: its own environment, and that of the first process it can see.
fn start_curious_run(host: &Systole) -> Running {
    let script = "env; tr '\\0' '\\n' </proc/1/environ; echo ready; exec sleep 1000";
    let run = host.start(&["run", "r", "--purpose", "to look around", "--", "sh", "-c", script]);
    run.wait_for_output("ready");
    run
}

/// All that can be asked while it runs, and how it ends.
fn live_a_day(database: &Database, host: &Systole) -> Running {
    let mut run = start_curious_run(host);
    assert_no_argument_tells();
    assert_nothing_is_stored(database, host);
    for arguments in [
        &["run", "r", "--", "true"] as &[&str],
        &["status", "--json"],
        &["status", "r", "--json"],
        &["ps", "--json"],
        &["check", "r", "--json"],
        &["events", "r", "--json"],
        &["doctor"],
        &["doctor", "--json"],
        &["migrate", "--dry-run"],
        &["stop", "r", "--wait"],
        &["takeover", "r", "--force"],
    ] {
        let output = host.output(arguments);
        assert!([0, 1, 64, 75].contains(&output.status.code().unwrap()), "{output:?}");
        assert_says_nothing(&output);
    }
    assert_eq!(run.code(SOON), 143, "{}", run.errors());
    assert_clean("what it says of the run", run.errors().as_bytes());
    assert_nothing_is_stored(database, host);
    run
}

#[test]
fn a_password_in_the_url_is_for_systole_alone() {
    let (database, url) = with_a_secret();
    let host = Systole::on(&database)
        .with("SYSTOLE_DATABASE_URL", &with_password(&url))
        .with("SYSTOLE_DIRECT_URL", &with_password(&url));
    let run = live_a_day(&database, &host);
    assert_clean("the environment of the command", run.output().as_bytes());
    assert!(run.output().contains("SYSTOLE_RUN_ID=r\n"), "{}", run.output());
}

#[test]
fn a_passfile_is_read_and_never_repeated() {
    let (database, url) = with_a_secret();
    let host = Systole::on(&database).with("SYSTOLE_DATABASE_URL", &url);
    let passfile = host.state.path().join("passfile");
    std::fs::write(&passfile, format!("127.0.0.1:*:*:*:{CANARY}\n")).unwrap();
    std::fs::set_permissions(&passfile, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let host = host.with("PGPASSFILE", &passfile.display().to_string());
    let run = live_a_day(&database, &host);
    assert_clean("the environment of the command", run.output().as_bytes());
}

/// PGPASSWORD belongs to the user's own programs as well, and is handed down on purpose.
#[test]
fn pgpassword_is_handed_down_to_the_command_and_told_to_nobody_else() {
    let (database, url) = with_a_secret();
    let host = Systole::on(&database).with("SYSTOLE_DATABASE_URL", &url).with("PGPASSWORD", CANARY);
    let run = live_a_day(&database, &host);
    assert!(run.output().contains(&format!("PGPASSWORD={CANARY}\n")), "{}", run.output());
}

/// Who looks at a running guard sees what the command may see, and no more.
#[test]
fn guard_and_init_do_not_carry_it_along() {
    let (database, url) = with_a_secret();
    let host = Systole::on(&database).with("SYSTOLE_DATABASE_URL", &with_password(&url));
    let run = start_curious_run(&host);
    let mut looked_at = 0;
    let mut pids = vec![guard_of(run.pid())];
    while let Some(pid) = pids.pop() {
        pids.extend(children(pid));
        let environment = std::fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).unwrap_or_default();
        assert_clean(&format!("the environment of process {}", pid.as_raw_pid()), &environment);
        looked_at += 1;
    }
    // Without a PID namespace there is no init.
    let least = if is_root() { 3 } else { 2 };
    assert!(looked_at >= least, "guard, init and command, but {looked_at}");
}

#[test]
fn a_configuration_file_keeps_its_password_to_itself() {
    let (database, url) = with_a_secret();
    let host = Systole::on(&database).with("SYSTOLE_DATABASE_URL", "");
    let file = host.state.path().join("systole.toml");
    std::fs::write(&file, format!("database_url = \"{}\"\n", with_password(&url))).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let run = live_a_day(&database, &host);
    assert_clean("the environment of the command", run.output().as_bytes());
    // Nor does a mistake in it.
    for wrong in
        ["database_url = [\"URL\"]", "database_url = \"URL", "databse_url = \"URL\"", "x = 1\ndatabase_url = 'URL"]
    {
        std::fs::write(&file, wrong.replace("URL", &with_password(&url))).unwrap();
        let output = host.output(&["status"]);
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        assert_says_nothing(&output);
        assert_says_nothing(&host.output(&["doctor", "--json"]));
    }
}

#[test]
fn no_error_repeats_it() {
    let (database, url) = with_a_secret();
    let right = with_password(&url);
    let port = database.socket().1;
    let wrong = [
        // A password that is none; a role, a database and a server that are none.
        (78, format!("postgresql://systole:{CANARY}@127.0.0.1:{port}/{}", database.name)),
        (78, format!("postgresql://nobody:{CANARY}@127.0.0.1:{port}/{}", database.name)),
        (78, right.replace(&database.name, "no_such_database").replace("keeper_no_such_database", "systole")),
        (69, format!("postgresql://u:{CANARY}@127.0.0.1:1/x")),
        (69, format!("postgresql://u:{CANARY}@no-such-host.invalid/x")),
        (78, format!("postgresql://u:{CANARY}@127.0.0.1:{port}/x?sslmode=verify-full")),
        // Strings with a mistake in them, of which some make the password look like something else.
        (78, format!("{right}?nonsense=1")),
        (78, format!("{right}?sslmode=nonsense")),
        (78, format!("{right}?sslpassword={CANARY}")),
        (78, format!("{right}?{CANARY}")),
        (78, format!("postgresql://u:{CANARY}%zz@127.0.0.1/x")),
        (78, format!("postgresql://u:{CANARY}@[::1/x")),
        (78, format!("postgresql://u:{CANARY}@127.0.0.1:port/x")),
        (78, format!("postgresql://u:{CANARY}/more@127.0.0.1/x")),
        (78, format!("postgresql://u:17/{CANARY}@127.0.0.1/x")),
        (78, format!("postgresql://u:{CANARY}?more@127.0.0.1/x")),
        (69, format!("postgresql://u:{CANARY}#more@127.0.0.1:1/x")),
        (78, format!("mysql://u:{CANARY}@127.0.0.1/x")),
        (78, format!("host=127.0.0.1 password='{CANARY}")),
        (78, format!("host=127.0.0.1 password={CANARY} nonsense=1")),
        (78, format!("host=127.0.0.1 pasword={CANARY}")),
        (78, format!("host=127.0.0.1 password = {CANARY} {CANARY}")),
        (78, CANARY.to_owned()),
    ];
    for (code, url) in &wrong {
        for variable in ["SYSTOLE_DATABASE_URL", "SYSTOLE_DIRECT_URL"] {
            let host = Systole::on(&database).with("SYSTOLE_ATTEMPT_TIMEOUT", "3s").with(variable, url);
            for arguments in
                [&["run", "r", "--", "true"] as &[&str], &["status"], &["migrate"], &["doctor"], &["doctor", "--json"]]
            {
                let output = host.output(arguments);
                assert_says_nothing(&output);
                if variable == "SYSTOLE_DATABASE_URL" && arguments == ["status"] {
                    let text = String::from_utf8_lossy(&output.stderr).into_owned();
                    assert_eq!(output.status.code(), Some(*code), "{url}: {text}");
                }
            }
        }
    }
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated() {
    // Another one: for a moment it does stand in the arguments of a process.
    const TYPED: &str = "typed-4711-hunter2";
    let database = Database::new();
    let host = Systole::on(&database);
    for secret in [
        format!("postgresql://u:{TYPED}@127.0.0.1/x"),
        format!("host=127.0.0.1 user=u password={TYPED}"),
        format!("postgresql://u@127.0.0.1/x?password={TYPED}"),
        format!("postgresql://u@127.0.0.1/x?sslpassword={TYPED}"),
        format!("postgresql://u:{TYPED}@[::1"),
    ] {
        for flag in ["--database-url", "--direct-url"] {
            let variable = if flag == "--database-url" { "SYSTOLE_DATABASE_URL" } else { "SYSTOLE_DIRECT_URL" };
            let refused = host.output(&[flag, &secret, "run", "r", "--", "true"]);
            let text = expect(&refused, 78, &["everybody on this machine can read it", variable]);
            assert!(!text.contains(TYPED), "{text}");
            let found = expect(&host.output(&[flag, &secret, "doctor"]), 1, &["can read it"]);
            assert!(!found.contains(TYPED), "{found}");
        }
    }
    assert!(database.sql("SELECT FROM systole.runs").is_empty());
    // By the ways that are named, it goes.
    let (database, url) = with_a_secret();
    let other = Systole::on(&database).with("PGPASSWORD", CANARY).with("SYSTOLE_DATABASE_URL", "");
    expect(&other.output(&["--database-url", &url, "run", "r", "--", "true"]), 0, &[]);
    assert_eq!(database.value("SELECT status FROM systole.runs"), "COMPLETED");
}
