//! A command that tells when it ran, marked so that its processes are found wherever they hide.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use super::process::{guard_of, marked};
use super::{Database, Running, Systole, boottime_ms, eventually};

/// On a machine that is busy with other things.
const SOON: Duration = Duration::from_secs(20);

/// A name for the processes of one tree, by which they are found wherever they hide. Whatever is left of them when
/// this is dropped is killed.
#[derive(Debug)]
pub struct Mark(String);

impl Mark {
    pub fn new() -> Mark {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Mark(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The variable that marks.
    pub fn variable(&self) -> String {
        format!("SYSTOLE_TEST_TREE={}", self.0)
    }

    /// Those that live.
    pub fn living(&self) -> Vec<i32> {
        marked(&self.0)
    }

    /// Waits for the death of all, and returns when that was at the latest.
    #[track_caller]
    pub fn wait_for_death(&self, limit: Duration) -> u64 {
        eventually("the death of the whole tree", limit, || {
            let living = self.living();
            living.is_empty().then(boottime_ms)
        })
    }

    /// Kills all of them.
    pub fn kill(&self) {
        for pid in self.living() {
            let _ = kill_process(Pid::from_raw(pid).expect("a pid is positive"), Signal::KILL);
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command that writes down when it ran, every 10 ms.
#[derive(Debug)]
pub struct Probe {
    file: PathBuf,
    pub mark: Mark,
}

impl Probe {
    /// One that writes to a file of this name.
    pub fn new(host: &Systole, name: &str) -> Probe {
        Probe { file: host.state.path().join(name), mark: Mark::new() }
    }

    /// The arguments of `systole` by which it is run.
    pub fn arguments(&self, run_id: &str, flags: &[&str]) -> Vec<String> {
        self.told("run", run_id, flags)
    }

    /// Puts it into the queue.
    #[track_caller]
    pub fn submit(&self, host: &Systole, run_id: &str) {
        let arguments = self.told("submit", run_id, &[]);
        let output = host.output(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(output.status.success(), "{output:?}");
        eventually("the first stamp of the probe", SOON, || (!self.stamps().is_empty()).then_some(()));
    }

    fn told(&self, verb: &str, run_id: &str, flags: &[&str]) -> Vec<String> {
        // /proc/uptime is CLOCK_BOOTTIME in hundredths of a second, read by the probe itself.
        let script =
            format!("while read -r up idle </proc/uptime; do echo $up; sleep 0.01; done >>'{}'", self.file.display());
        let mark = self.mark.variable();
        let words = [&[verb], flags, &[run_id, "--", "env", &mark, "sh", "-c", &script]].concat();
        words.into_iter().map(str::to_owned).collect()
    }

    /// Starts a run of it, and waits for its first stamp.
    pub fn start(&self, host: &Systole, run_id: &str) -> Running {
        let running = self.start_waiting(host, run_id, &[]);
        eventually("the first stamp of the probe", SOON, || (!self.stamps().is_empty()).then_some(()));
        running
    }

    /// The same, started by another program that becomes it.
    pub fn start_behind(&self, host: &Systole, run_id: &str, launcher: &[&str]) -> Running {
        let mut arguments = self.arguments(run_id, &[]);
        let command = arguments.iter().position(|argument| argument == "--").expect("it is there") + 1;
        arguments.splice(command..command, launcher.iter().map(|&part| part.to_owned()));
        let running = host.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        eventually("the first stamp of the probe", SOON, || (!self.stamps().is_empty()).then_some(()));
        running
    }

    /// Starts a run of it with these flags.
    pub fn start_waiting(&self, host: &Systole, run_id: &str, flags: &[&str]) -> Running {
        let arguments = self.arguments(run_id, flags);
        host.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// When it ran, in milliseconds of CLOCK_BOOTTIME, rounded down to tens.
    pub fn stamps(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| line.trim().replace('.', "").parse::<u64>().expect("hundredths") * 10).collect()
    }

    pub fn last_stamp(&self) -> u64 {
        self.stamps().last().copied().unwrap_or(0)
    }

    /// Waits until it has run after this moment.
    #[track_caller]
    pub fn wait_for_stamp_after(&self, moment: u64, limit: Duration) {
        eventually("a stamp of the probe", limit, || (self.last_stamp() > moment).then_some(()));
    }
}

/// When the newest heartbeat of an attempt was seen by the database, on the clock of the probes. It was sent before.
#[track_caller]
pub fn last_heartbeat_ms(database: &Database, run_id: &str, attempt: u32) -> u64 {
    let seen: i64 = database
        .value(&format!(
            "SELECT (extract(epoch FROM last_heartbeat) * 1000)::bigint FROM systole.executor_instances
              WHERE run_id = '{run_id}' AND attempt = {attempt}"
        ))
        .parse()
        .expect("milliseconds");
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    (boottime_ms() as i64 - wall + seen) as u64
}

/// All attempts of a run, as `STATUS cause exit_code`.
#[track_caller]
pub fn ends(database: &Database, run_id: &str) -> Vec<String> {
    let rows = database.sql(&format!(
        "SELECT concat_ws(' ', status, cause, exit_code) FROM systole.executor_instances
          WHERE run_id = '{run_id}' ORDER BY attempt"
    ));
    rows.concat()
}

/// A host that is asleep: supervisor, guard and command. It goes on when dropped.
#[derive(Debug)]
pub struct Asleep(Vec<Pid>);

impl Asleep {
    pub fn now(supervisor: Pid, mark: &Mark) -> Asleep {
        let mut pids = vec![supervisor, guard_of(supervisor)];
        pids.extend(mark.living().into_iter().filter_map(Pid::from_raw));
        for pid in &pids {
            // Their children come and go.
            let _ = kill_process(*pid, Signal::STOP);
        }
        Asleep(pids)
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}
