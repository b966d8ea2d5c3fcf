//! A machine that is paused as a whole, and goes on when its run is another's: what does the command do before it is stopped?

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::SOON;
use super::levels::{Level, can_be_had, had};
use super::support::process::guard_of;
use super::support::{Cgroup, Database, Running, Systole, boottime_ms, eventually};
use super::trees::{Mark, Probe, ends};

/// How long it may run on a machine that is busy with other things, in microseconds. It is mostly none of these.
const LEAK_MAX: u64 = 150_000;

/// A command of processes, twice as many as can run at once, each of which looks at CLOCK_BOOTTIME as fast as it can. Whatever it
/// sees after a pause it writes down.
struct Spinners {
    file: PathBuf,
    mark: Mark,
}

impl Spinners {
    fn new(host: &Systole) -> Spinners {
        Spinners { file: host.state.path().join("spinners"), mark: Mark::new() }
    }

    fn start(&self, host: &Systole, run_id: &str) -> Running {
        let many = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        let look = format!(
            "open F, '>>', '{}' or die; $| = 1; my $now = ' ' x 16; my ($last, $woke) = (0, 0); print 'ready';
             while (1) {{
                 syscall({}, 7, $now); my ($s, $ns) = unpack('q q', $now); my $us = $s * 1000000 + int($ns / 1000);
                 $woke = 1 if $last and $us > $last + 1000000; $last = $us; syswrite(F, \"$$ $us\\n\") if $woke;
             }}",
            self.file.display(),
            libc::SYS_clock_gettime
        );
        let script = format!("for n in $(seq {many}); do perl -e \"$LOOK\" & done; wait");
        let look = format!("LOOK={look}");
        let running = host.start(&["run", run_id, "--", "env", &self.mark.variable(), &look, "sh", "-c", &script]);
        eventually("all of them", SOON, || (running.output().matches("ready").count() == many).then_some(()));
        running
    }

    /// For how long each of them has run after the pause, in microseconds; who has not even looked is none of them.
    fn ran(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let mut looks = BTreeMap::<&str, (u64, u64)>::new();
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let (pid, moment) = line.trim().split_once(' ').expect("two words");
            let moment = moment.parse().expect("microseconds");
            looks.entry(pid).or_insert((moment, moment)).1 = moment;
        }
        looks.values().map(|(first, last)| last - first).collect()
    }
}

/// How a machine is paused here: all that runs on it for us.
#[derive(Debug, Clone, Copy)]
enum Pause {
    /// By the freezer of a cgroup that has all of it: at once, and so it goes on.
    Freezer,
    /// By SIGSTOP and SIGCONT, the command before those that watch it.
    Signals,
}

impl Pause {
    /// A host that can be paused so.
    fn host(self, database: &Database, level: Level) -> Systole {
        match self {
            Pause::Freezer => level.host(database).within(Cgroup::service()),
            Pause::Signals => level.host(database),
        }
    }

    /// Returns what lets it go on.
    fn now(self, host: &Systole, holder: &Running, command: &Mark) -> impl FnOnce() {
        let pids = command.living().into_iter().filter_map(Pid::from_raw);
        let all: Vec<Pid> = pids.chain([guard_of(holder.pid()), holder.pid()]).collect();
        // One that has ended by itself is not missed.
        let send = move |signal| {
            for pid in &all {
                let _ = kill_process(*pid, signal);
            }
        };
        let cgroup = host.cgroup();
        match cgroup {
            Some(cgroup) => cgroup.freeze(),
            None => send(Signal::STOP),
        }
        move || match cgroup {
            Some(cgroup) => cgroup.thaw(),
            None => send(Signal::CONT),
        }
    }
}

/// All that can be had here.
fn pauses() -> Vec<Pause> {
    let by_freezer = can_be_had(Level::Cgroup).then_some(Pause::Freezer);
    by_freezer.into_iter().chain([Pause::Signals]).collect()
}

#[test]
fn a_machine_that_goes_on_into_a_run_of_anothers_does_next_to_nothing() {
    let database = Database::new();
    database.pretend_old_server();
    let other = Systole::on(&database).fast();
    for (level, pause) in had().into_iter().flat_map(|level| pauses().into_iter().map(move |pause| (level, pause))) {
        let run_id = format!("{}-{pause:?}", level.name());
        let host = pause.host(&database, level).fast();
        let (first, second) = (Spinners::new(&host), Probe::new(&other, &run_id));
        let mut holder = first.start(&host, &run_id);
        let go_on = pause.now(&host, &holder, &first.mark);
        let _successor = second.start_waiting(&other, &run_id, &["--wait"]);
        second.wait_for_stamp_after(0, SOON);
        go_on();
        let ran = {
            first.mark.wait_for_death(SOON);
            first.ran()
        };
        eprintln!("{run_id}: ran on for {ran:?} us");
        assert!(ran.iter().all(|ran| *ran <= LEAK_MAX), "{run_id}: ran on for {ran:?} us: {}", holder.errors());
        assert_eq!(holder.code(SOON), 76, "{}", holder.errors());
        second.wait_for_stamp_after(boottime_ms(), SOON);
        assert_eq!(ends(&database, &run_id), ["CRASHED stale", "RUNNING"]);
    }
}

#[test]
fn a_pause_between_fence_and_kill_costs_the_command_nothing_but_its_time() {
    let database = Database::new();
    for (level, pause) in had().into_iter().flat_map(|level| pauses().into_iter().map(move |pause| (level, pause))) {
        if !level.freezes() {
            continue;
        }
        let run_id = format!("{}-{pause:?}", level.name());
        let timing = [("SYSTOLE_KILL_GRACE", "4s"), ("SYSTOLE_STALE_AFTER", "8s")];
        let host =
            timing.iter().fold(pause.host(&database, level).fast(), |host, (name, value)| host.with(name, value));
        let probe = Probe::new(&host, &run_id);
        let holder = probe.start(&host, &run_id);
        let go_on = pause.now(&host, &holder, &probe.mark);
        // F is 1.5 s, and its silence would cost it the command after half of K more.
        let enough = boottime_ms() + 2000;
        eventually("the end of trust", SOON, || (boottime_ms() > enough).then_some(()));
        go_on();
        holder.wait_for_errors("The command is frozen", SOON);
        holder.wait_for_errors("the command goes on", SOON);
        probe.wait_for_stamp_after(boottime_ms(), SOON);
        assert_eq!(ends(&database, &run_id), ["RUNNING"]);
    }
}

/// The 41st field of its stat, of which the name may hold spaces: 0 is the usual one, 1 is SCHED_FIFO.
fn scheduling_policy(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    stat.rsplit_once(") ").expect("a name").1.split(' ').nth(38).expect("the field").parse().expect("a number")
}

#[test]
fn a_guard_comes_first_where_it_may_and_its_command_does_not() {
    let database = Database::new();
    let tried = Command::new("chrt").args(["--fifo", "1", "true"]).stderr(Stdio::null()).status();
    let allowed = i32::from(tried.is_ok_and(|status| status.success()));
    for level in had() {
        let host = level.host(&database);
        let probe = Probe::new(&host, level.name());
        let holder = probe.start(&host, level.name());
        assert_eq!(scheduling_policy(guard_of(holder.pid()).as_raw_pid()), allowed, "{}", level.name());
        // The oldest of them is the command; the others come and go.
        let command = probe.mark.living().into_iter().min().expect("it lives");
        assert_eq!(scheduling_policy(command), 0, "{}", level.name());
    }
}
