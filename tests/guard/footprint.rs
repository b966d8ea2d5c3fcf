//! What it costs to have a command supervised.

use rustix::process::Pid;

use super::levels::at_every_level;
use super::support::Database;
use super::support::process::guard_of;

/// Private pages of a process, in bytes.
fn private_bytes(pid: Pid) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", pid.as_raw_pid());
    let text = std::fs::read_to_string(path).expect("Linux since 4.14");
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("kB")
    };
    (field("Private_Clean:") + field("Private_Dirty:")) * 1024
}

#[test]
fn supervisor_and_guard_are_small() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        let run = host.start_run(level.name(), "exec sleep 1000");
        let (supervisor, guard) = (private_bytes(run.pid()), private_bytes(guard_of(run.pid())));
        eprintln!("{}: supervisor {} kB, guard {} kB private", level.name(), supervisor / 1024, guard / 1024);
        assert!(guard < 3 << 20, "the guard has {guard} bytes of its own");
        assert!(supervisor < 15 << 20, "the supervisor has {supervisor} bytes of its own");
    });
}
