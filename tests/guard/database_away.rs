//! The server hangs, dies and comes back under a running command, with somebody waiting for its run.

use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal};

use super::SOON;
use super::death::kill_both;
use super::levels::{Level, had};
use super::support::process::state;
use super::support::{Database, Running, Systole, boottime_ms, eventually, throughout};
use super::trees::{Mark, Probe, ends, start_tree};

/// F, L and half of K of `Systole::fast`, in milliseconds.
const FENCE_AFTER: u64 = 1500;
const STALE_AFTER: u64 = 4000;

/// From the passing of a deadline to the last line of a probe that was frozen by it, on a busy machine.
const FREEZE_SLACK: u64 = 150;

/// A holder at one level, and a waiter on another host who may only go by the age of its heartbeats.
struct Pair {
    level: Level,
    first: Probe,
    second: Probe,
    holder: Running,
    waiter: Running,
    _hosts: [Systole; 2],
}

fn pairs(database: &Database) -> Vec<Pair> {
    let start = |level: Level| {
        // K is as long as F and L let it be: whose supervisor gets no processor for half of that is killed while it is frozen.
        let host = || level.host(database).fast().with("SYSTOLE_KILL_GRACE", "1300ms");
        let (here, there) = (host(), host());
        let (first, second) = (Probe::new(&here, "first"), Probe::new(&there, "second"));
        let holder = first.start(&here, level.name());
        let waiter = second.start_waiting(&there, level.name(), &["--wait"]);
        waiter.wait_for_errors("waiting for run", SOON);
        Pair { level, first, second, holder, waiter, _hosts: [here, there] }
    };
    had().into_iter().map(start).collect()
}

impl Pair {
    fn run_id(&self) -> &'static str {
        self.level.name()
    }

    /// The command ran up to the end of trust in an answer of before `away`, and no longer.
    #[track_caller]
    fn assert_frozen_since(&self, away: u64) {
        let ran = self.first.last_stamp();
        assert!(ran <= away + FENCE_AFTER + FREEZE_SLACK, "{}: it ran for {} ms", self.run_id(), ran - away);
        assert!(
            !self.first.mark.living().is_empty(),
            "{}: killed, not frozen: {}",
            self.run_id(),
            self.holder.errors()
        );
    }

    /// The command goes on, and nobody else has started.
    #[track_caller]
    fn assert_going_on_after(&self, back: u64) {
        let ran = || (self.first.last_stamp() > back).then_some(());
        eventually(self, SOON, ran);
        assert_eq!(self.second.stamps().len(), 0, "{}: taken over: {}", self.run_id(), self.waiter.errors());
    }
}

/// What both have said so far.
impl fmt::Display for Pair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}\n---- waiter: {}", self.run_id(), self.holder.errors(), self.waiter.errors())
    }
}

/// No process of the first ever ran after one of the second.
#[track_caller]
fn assert_no_overlap(first: &Probe, second: &Probe) {
    if let (Some(ended), Some(began)) = (first.stamps().last(), second.stamps().first()) {
        assert!(ended < began, "the first ran until {ended}, the second from {began}");
    }
}

#[test]
fn a_hung_server_freezes_and_kills_nobody_who_has_a_freezer_and_is_no_reason_to_take_over() {
    let (database, server) = Database::on_own_server();
    // So that nothing but their heartbeats protects the holders.
    database.pretend_old_server();
    let started = boottime_ms();
    let mut pairs = pairs(&database);
    // From here on the waiters could conclude a death from the age of a heartbeat.
    eventually("waiters that know the clock", SOON, || (boottime_ms() > started + STALE_AFTER + 1500).then_some(()));
    // Once past F, so that answers come late; once past L, so that the holders look dead.
    for outage in [FENCE_AFTER + 600, STALE_AFTER + 2000] {
        let hung = server.hang();
        let away = boottime_ms();
        for pair in pairs.iter().filter(|pair| pair.level.freezes()) {
            pair.holder.wait_for_errors("The command is frozen", SOON);
            pair.assert_frozen_since(away);
        }
        let left = Duration::from_millis((away + outage).saturating_sub(boottime_ms()));
        throughout("frozen commands", left, || {
            pairs.iter().filter(|pair| pair.level.freezes()).for_each(|pair| pair.assert_frozen_since(away));
            true
        });
        // Without a freezer it was killed before anybody may take over, K and clock errors included.
        for pair in pairs.iter().filter(|pair| !pair.level.freezes() && outage > STALE_AFTER) {
            assert!(pair.first.mark.living().is_empty(), "it lives");
        }
        let back = boottime_ms();
        drop(hung);
        for pair in pairs.iter().filter(|pair| pair.level.freezes()) {
            pair.assert_going_on_after(back);
            pair.holder.wait_for_errors("the command goes on", SOON);
        }
        // Without a freezer a slow answer costs it its life at any moment. Whoever follows has begun before the next outage: one that
        // met him between claim and first heartbeat would make him give the run back.
        for pair in pairs.iter().filter(|pair| !pair.level.freezes()) {
            let goes_on = || (pair.first.last_stamp() > back || !pair.second.stamps().is_empty()).then_some(());
            eventually(pair, SOON, goes_on);
        }
    }
    for pair in &mut pairs {
        if pair.level.freezes() {
            assert_eq!(ends(&database, pair.run_id()), ["RUNNING"]);
        } else {
            assert_eq!(pair.holder.code(SOON), 76, "{}", pair.holder.errors());
            assert!(pair.holder.errors().contains("away for too long"), "{}", pair.holder.errors());
            let follows = || (!pair.second.stamps().is_empty()).then_some(());
            eventually(&*pair, SOON, follows);
            assert_no_overlap(&pair.first, &pair.second);
            assert_eq!(ends(&database, pair.run_id())[0], "CRASHED proof 137");
        }
    }
}

#[test]
fn a_server_that_was_down_for_longer_than_a_lease_finds_its_holders_alive() {
    let (database, mut server) = Database::on_own_server();
    let pairs: Vec<Pair> = pairs(&database).into_iter().filter(|pair| pair.level.freezes()).collect();
    server.crash();
    let away = boottime_ms();
    pairs.iter().for_each(|pair| pair.holder.wait_for_errors("The command is frozen", SOON));
    let left = Duration::from_millis((away + STALE_AFTER + 500).saturating_sub(boottime_ms()));
    throughout("frozen commands", left, || {
        pairs.iter().for_each(|pair| pair.assert_frozen_since(away));
        true
    });
    let back = boottime_ms();
    server.start();
    for pair in &pairs {
        pair.assert_going_on_after(back);
        assert_eq!(ends(&database, pair.run_id()), ["RUNNING"]);
    }
}

#[test]
fn a_short_restart_of_the_server_goes_unnoticed_by_the_command() {
    let (database, mut server) = Database::on_own_server();
    let start = |level: Level| {
        // F is 15 s, as by default; only the heartbeats come more often, so that one of after the restart is soon there.
        let host = level.host(&database).with("SYSTOLE_HEARTBEAT_INTERVAL", "300ms");
        let probe = Probe::new(&host, "probe");
        let holder = probe.start(&host, level.name());
        (level, probe, holder, host)
    };
    let runs: Vec<(Level, Probe, Running, Systole)> = had().into_iter().map(start).collect();
    server.crash();
    server.start();
    for (level, probe, holder, _) in &runs {
        let heard = format!(
            "SELECT last_heartbeat > pg_postmaster_start_time() FROM systole.executor_instances
              WHERE run_id = '{}'",
            level.name()
        );
        eventually("a heartbeat", SOON, || (database.value(&heard) == "t").then_some(()));
        probe.wait_for_stamp_after(boottime_ms(), SOON);
        assert!(!holder.errors().contains("The command is"), "{}", holder.errors());
        let stamps = probe.stamps();
        let pause = stamps.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        assert!(pause < 1000, "{}: it paused for {pause} ms", level.name());
        assert_eq!(ends(&database, level.name()), ["RUNNING"]);
    }
}

#[test]
fn a_frozen_command_that_is_told_to_end_ends_at_once() {
    let (database, server) = Database::on_own_server();
    let start = |level: Level| {
        let host = level.host(&database).fast().with("SYSTOLE_STOP_GRACE", "1m");
        let probe = Probe::new(&host, "probe");
        let holder = probe.start(&host, level.name());
        (level, probe, holder, host)
    };
    let mut runs: Vec<_> = had().into_iter().filter(|level| level.freezes()).map(start).collect();
    let hung = server.hang();
    for (_, probe, holder, _) in &runs {
        holder.wait_for_errors("The command is frozen", SOON);
        holder.signal(Signal::TERM);
        probe.mark.wait_for_death(Duration::from_secs(1));
    }
    drop(hung);
    for (level, _, holder, _) in &mut runs {
        assert_eq!(holder.code(SOON), 137, "{}", holder.errors());
        assert_eq!(ends(&database, level.name()), ["CANCELLED 137"]);
    }
}

#[test]
fn what_is_frozen_can_be_killed_and_swept_as_anything_else() {
    let (database, server) = Database::on_own_server();
    let start = |level: Level| {
        let host = level.host(&database).fast();
        let (orphan, remains) = (Mark::new(), Mark::new());
        let first = start_tree(&host, &format!("{}-orphan", level.name()), &orphan);
        let second = start_tree(&host, &format!("{}-remains", level.name()), &remains);
        (level, host, (first, orphan), (second, remains))
    };
    let mut runs: Vec<_> = had().into_iter().filter(|level| level.freezes()).map(start).collect();
    let hung = server.hang();
    for (level, _, (first, orphan), (second, remains)) in &mut runs {
        first.wait_for_errors("The command is frozen", SOON);
        first.signal(Signal::KILL);
        orphan.wait_for_death(Duration::from_secs(1));
        second.wait_for_errors("The command is frozen", SOON);
        kill_both(second);
        if *level == Level::PidNamespace {
            remains.wait_for_death(Duration::from_secs(1));
        }
    }
    drop(hung);
    for (level, host, _, (_, remains)) in &runs {
        let next = host.output(&["run", &format!("{}-orphan", level.name()), "--", "true"]);
        assert_eq!(next.status.code(), Some(0), "{}", String::from_utf8_lossy(&next.stderr));
        assert!(remains.living().is_empty(), "{}: not swept", level.name());
        assert_eq!(ends(&database, &format!("{}-orphan", level.name()))[0], "CRASHED proof 137");
        assert_eq!(ends(&database, &format!("{}-remains", level.name())), ["CRASHED proof"]);
    }
}

#[test]
fn a_tree_is_not_kept_frozen_for_longer_than_it_may() {
    let (database, server) = Database::on_own_server();
    let start = |level: Level| {
        let host = level.host(&database).fast().with("SYSTOLE_FREEZE_MAX", "500ms");
        let probe = Probe::new(&host, "probe");
        let holder = probe.start(&host, level.name());
        (level, probe, holder, host)
    };
    let mut runs: Vec<_> = had().into_iter().filter(|level| level.freezes()).map(start).collect();
    let hung = server.hang();
    let away = boottime_ms();
    for (_, probe, holder, _) in &runs {
        holder.wait_for_errors("The command is frozen", SOON);
        let dead = probe.mark.wait_for_death(SOON);
        assert!(dead <= away + FENCE_AFTER + 500 + 1000, "dead only {} ms later", dead - away);
    }
    drop(hung);
    for (level, _, holder, _) in &mut runs {
        assert_eq!(holder.code(SOON), 76, "{}", holder.errors());
        assert_eq!(ends(&database, level.name()), ["CRASHED proof 137"]);
    }
}

/// A mounted folder that never answers, like one of a server that is gone. With this, whoever waits for it gets an error.
struct Silent {
    folder: tempfile::TempDir,
    _answers: File,
}

impl Silent {
    /// `None`, and says so, where it cannot be had.
    fn mounted() -> Option<Silent> {
        let try_it = || {
            let folder = tempfile::tempdir()?;
            let answers = File::options().read(true).write(true).open("/dev/fuse")?;
            let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", answers.as_raw_fd());
            let options = CString::new(options).expect("no zeros in it");
            mount("silent", folder.path(), "fuse", MountFlags::empty(), options.as_c_str())?;
            Ok(Silent { folder, _answers: answers })
        };
        try_it().map_err(|error: std::io::Error| eprintln!("skipped: mounting by /dev/fuse: {error}")).ok()
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = unmount(self.folder.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn what_is_stuck_in_the_kernel_does_not_cost_the_rest_its_freeze() {
    let Some(silent) = Silent::mounted() else { return };
    let (database, server) = Database::on_own_server();
    let script = format!("ls '{}' & wait", silent.folder.path().display());
    let start = |level: Level| {
        let host = level.host(&database).fast();
        let mark = Mark::new();
        let holder = host.start(&["run", level.name(), "--", "env", &mark.variable(), "sh", "-c", &script]);
        let is_stuck = |pid: &i32| state(Pid::from_raw(*pid).expect("a pid is positive")) == Some('D');
        eventually("a process stuck in the kernel", SOON, || mark.living().iter().any(is_stuck).then_some(()));
        (level, mark, holder, host)
    };
    let mut runs: Vec<_> = had().into_iter().filter(|level| level.freezes()).map(start).collect();
    let hung = server.hang();
    for (_, _, holder, _) in &runs {
        holder.wait_for_errors("The command is frozen", SOON);
    }
    throughout("frozen commands", Duration::from_secs(2), || {
        runs.iter().all(|(_, mark, ..)| !mark.living().is_empty())
    });
    drop(hung);
    for (_, _, holder, _) in &runs {
        holder.wait_for_errors("the command goes on", SOON);
    }
    drop(silent);
    for (level, _, holder, _) in &mut runs {
        assert_eq!(holder.code(SOON), 0, "{}", holder.errors());
        assert_eq!(ends(&database, level.name()), ["COMPLETED 0"]);
    }
}
