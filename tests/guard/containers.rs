//! What containers take away: capabilities, cgroups, system calls, a proper /proc; and what they ask of a PID 1.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::SOON;
use super::levels::{Level, can_be_had};
use super::support::process::{children, guard_of};
use super::support::{Database, Running, Systole, cgroup, eventually};
use super::trees::{Mark, ends, start_tree};

/// As PID 1 of a PID namespace with a /proc of its own, behind a script that takes away what it likes.
const CONTAINER: [&str; 6] = ["unshare", "--pid", "--mount-proc", "--fork", "--kill-child", "--propagation=private"];

/// As root without the capability that mounts and makes namespaces, as containers are by default.
const WITHOUT_SYS_ADMIN: [&str; 3] = ["setpriv", "--bounding-set", "-sys_admin"];

fn container(database: &Database, script: &str) -> Systole {
    let script = format!("{script}\nexec \"$@\"");
    Systole::on(&database.over_tcp()).through(&CONTAINER).through(&["sh", "-ec", &script, "sh"])
}

/// A script that makes the cgroups what `option` says.
fn remount_cgroups(option: &str) -> String {
    let mounts = "awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts";
    format!("for mount in $({mounts}); do mount -o remount,bind,{option} $mount; done")
}

/// A script that hides the cgroups.
const UMOUNT_CGROUPS: &str =
    "for mount in $(awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts); do umount $mount; done";

/// The level in force, what the doctor finds, and that a run ends as it should.
#[track_caller]
fn level_of(host: &Systole, database: &Database) -> (String, String, bool) {
    let ran = host.output(&["run", "r", "--", "sh", "-c", "(setsid sleep 1000 &); exit 3"]);
    assert_eq!(ran.status.code(), Some(3), "{}", String::from_utf8_lossy(&ran.stderr));
    let found = host.containment();
    let level = database.value("SELECT containment FROM systole.executor_instances WHERE run_id = 'r'");
    assert_eq!(found["level"], level.as_str());
    if found["ok"] == false {
        assert!(found["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{found:#}");
    }
    let text = found["found"].as_str().expect("a sentence").to_owned();
    (level, text, found["freezer"] == true)
}

fn can_make_containers() -> bool {
    can_be_had(Level::PidNamespace) && can_be_had(Level::Cgroup)
}

#[test]
fn the_strongest_level_that_a_container_leaves_is_in_force_and_the_doctor_says_why_not_more() {
    if !can_make_containers() {
        return;
    }
    type Case<'a> = (&'a str, &'a [&'a str], &'a str, bool, &'a [&'a str]);
    let cases: [Case<'_>; 6] = [
        ("", &[], "pid_namespace+cgroup", true, &[]),
        ("", &WITHOUT_SYS_ADMIN, "cgroup", true, &["CAP_SYS_ADMIN"]),
        (&remount_cgroups("ro"), &[], "pid_namespace", false, &["is mounted read-only"]),
        (&remount_cgroups("ro"), &WITHOUT_SYS_ADMIN, "subreaper", false, &["CAP_SYS_ADMIN", "is mounted read-only"]),
        // Root may mount what is not mounted.
        (UMOUNT_CGROUPS, &[], "pid_namespace+cgroup", true, &[]),
        (UMOUNT_CGROUPS, &WITHOUT_SYS_ADMIN, "subreaper", false, &["CAP_SYS_ADMIN", "no cgroup v2 is mounted"]),
    ];
    for (script, launcher, wanted, freezes, words) in cases {
        let database = Database::new();
        let host = container(&database, script).through(launcher);
        let (level, found, freezer) = level_of(&host, &database);
        assert_eq!((&*level, freezer), (wanted, freezes), "{script}, {launcher:?}: {found}");
        for word in words {
            assert!(found.contains(word), "{word:?} is not in {found:?}");
        }
    }
}

#[test]
fn root_without_rights_to_its_cgroup_is_told_so() {
    if !can_make_containers() {
        return;
    }
    let database = Database::new();
    let host = Systole::on(&database.over_tcp()).within(cgroup::Cgroup::delegated_service(1)).through(&[
        "setpriv",
        "--bounding-set",
        "-dac_override,-dac_read_search",
    ]);
    let (level, found, _) = level_of(&host, &database);
    assert_eq!(level, "pid_namespace");
    assert!(found.contains("nightly.service is not delegated to user 0"), "{found}");
}

/// The filter of docker answers clone3 with ENOSYS, because it cannot look at its arguments.
#[test]
fn where_clone3_is_filtered_init_is_born_the_old_way() {
    if !can_make_containers() {
        return;
    }
    let filter = "
        use strict; my %prctl = (x86_64 => 157, aarch64 => 167); chomp(my $machine = `uname -m`);
        my $code = pack('SCCL' x 4, 0x20, 0, 0, 0, 0x15, 0, 1, 435, 0x06, 0, 0, 0x00050026, 0x06, 0, 0, 0x7fff0000);
        my $number = $prctl{$machine} or die; my $program = pack('SxxxxxxP', 4, $code);
        syscall($number, 38, 1, 0, 0, 0) == 0 or die; syscall($number, 22, 2, unpack('L!', pack('P', $program))) == 0 or die;
        exec @ARGV";
    for (launcher, wanted) in [(&[][..], "cgroup"), (&WITHOUT_SYS_ADMIN, "cgroup")] {
        let database = Database::new();
        let host = container(&database, "").through(launcher).through(&["perl", "-e", filter]);
        let (level, found, freezer) = level_of(&host, &database);
        assert_eq!((&*level, freezer), (wanted, true), "{found}");
    }
}

#[test]
fn without_a_proc_of_its_own_nothing_is_started() {
    if !can_make_containers() {
        return;
    }
    let database = Database::new();
    for launcher in
        [&["unshare", "--pid", "--fork"][..], &["unshare", "--mount", "sh", "-c", "umount -l /proc; exec \"$@\"", "sh"]]
    {
        let host = Systole::on(&database).through(launcher);
        let ran = host.output(&["run", "r", "--", "echo", "never"]);
        let errors = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(78), "{errors}");
        assert!(errors.contains("mount -t proc proc /proc"), "{errors}");
        assert!(ran.stdout.is_empty(), "it was started");
        assert_eq!(host.containment()["ok"], false);
    }
}

/// A container with a tree in it, and its PID 1 as the host sees it.
fn start_container(host: &Systole, run_id: &str, mark: &Mark) -> (Running, Pid) {
    let run = start_tree(host, run_id, mark);
    let pid_1 = children(run.pid()).first().copied().expect("unshare has one child");
    (run, pid_1)
}

#[test]
fn as_pid_1_it_reaps_what_others_leave_to_it() {
    if !can_make_containers() {
        return;
    }
    let database = Database::new();
    let (mark, orphan) = (Mark::new(), Mark::new());
    let (mut run, pid_1) = start_container(&container(&database, ""), "r", &mark);
    // As `docker exec` does.
    let target = pid_1.as_raw_pid().to_string();
    let script = format!("({} sleep 1000 &)", orphan.variable());
    let entered = std::process::Command::new("nsenter").args(["-t", &target, "-p", "-m", "sh", "-c", &script]).status();
    assert!(entered.expect("nsenter(1)").success());
    let orphan = eventually("a process", SOON, || orphan.living().first().copied().and_then(Pid::from_raw));
    eventually("an orphan", SOON, || children(pid_1).contains(&orphan).then_some(()));
    kill_process(orphan, Signal::TERM).expect("it lives");
    eventually("a reaped orphan", Duration::from_secs(3), || (!children(pid_1).contains(&orphan)).then_some(()));
    assert!(!mark.living().is_empty(), "{}", run.errors());
    // Killed from outside, the whole container goes at once, and its cgroup is left to the next systole of the host.
    kill_process(pid_1, Signal::TERM).expect("it lives");
    run.wait(SOON);
}

#[test]
fn as_pid_1_it_leaves_nothing_behind() {
    if !can_make_containers() {
        return;
    }
    let database = Database::new();
    let host = container(&database, "");
    // A tree that is slow to be taken down.
    let script =
        "own=$(awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts | head -1)$(sed -n s/^0:://p /proc/self/cgroup)
        for n in $(seq 100); do mkdir \"$own/$n\"; done";
    for attempt in 0..3 {
        let ran = host.output(&["run", "r", "--", "sh", "-ec", script]);
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let instance =
            database.value("SELECT instance_id FROM systole.executor_instances ORDER BY attempt DESC LIMIT 1");
        let left = cgroup::own().expect("a cgroup").join(format!("systole-{instance}"));
        assert!(!left.exists(), "attempt {attempt} left {}", left.display());
    }
    assert_eq!(std::fs::read_dir(host.instances()).expect("a folder").count(), 0);
}

#[test]
fn as_pid_1_a_stop_and_a_lost_guard_are_what_they_are_elsewhere() {
    if !can_make_containers() {
        return;
    }
    let database = Database::new();
    for (launcher, run_id) in [(&[][..], "namespace"), (&WITHOUT_SYS_ADMIN, "cgroup")] {
        let host = container(&database, "").through(launcher);
        let mark = Mark::new();
        let (mut run, pid_1) = start_container(&host, run_id, &mark);
        // As `docker stop` does.
        kill_process(pid_1, Signal::TERM).expect("it lives");
        run.wait(SOON);
        assert!(mark.living().is_empty(), "it lives on");
        assert_eq!(ends(&database, run_id), ["CANCELLED 143"]);

        let mark = Mark::new();
        let (mut run, pid_1) = start_container(&host, run_id, &mark);
        kill_process(guard_of(pid_1), Signal::KILL).expect("the guard lives");
        assert_eq!(run.code(SOON), 76, "{}", run.errors());
        assert!(mark.living().is_empty(), "it lives on");
        assert_eq!(ends(&database, run_id)[1], "CRASHED guard_lost");
    }
}
