//! The server's clock is set, forward, back and a day off, while holders beat, a waiter waits, and a node looks for the dead.

use std::time::Duration;

use super::SOON;
use super::death::kill_both;
use super::support::{Database, Running, ServerClock, Systole, boottime_ms, eventually, throughout};
use super::trees::{Probe, ends};

/// h and L of `Systole::fast`, and how often a waiter and a node look, in milliseconds.
const HEARTBEAT: u64 = 400;
const STALE_AFTER: u64 = 4000;
const POLL: u64 = 1000;

/// From a takeover to the first stamp of the next command on a busy machine, where a heartbeat of a watcher may fail as well: then it
/// has to watch the clock for another L.
const SLACK: u64 = 2000 + STALE_AFTER;

/// Longer than L, in seconds.
const STEP: i64 = STALE_AFTER as i64 / 1000 + 2;
const DAY: i64 = 24 * 3600;

/// A run by hand with a waiter on another host, and a queued run of a node, with a node of another host that would have it.
struct Watched {
    database: Database,
    by_hand: Running,
    waiter: Running,
    node: Running,
    watcher: Running,
    /// Of the run by hand, of its waiter, and of the queued run on whatever node.
    first: Probe,
    second: Probe,
    queued: Probe,
    hosts: [Systole; 4],
}

impl Watched {
    /// All of it, for so long that the watchers may conclude a death from the age of a heartbeat.
    fn start(database: &Database) -> Watched {
        let hosts: [Systole; 4] = std::array::from_fn(|_| Systole::on(database).fast());
        let (first, second) = (Probe::new(&hosts[0], "first"), Probe::new(&hosts[1], "second"));
        let queued = Probe::new(&hosts[2], "queued");
        let by_hand = first.start(&hosts[0], "by-hand");
        let start_node = |host: &Systole| {
            let node = host.start(&["node", "--allow-submitted-commands", "--poll-interval", "200ms"]);
            node.wait_for_errors("ready: ", SOON);
            node
        };
        let node = start_node(&hosts[2]);
        queued.submit(&hosts[2], "queued");
        let waiter = second.start_waiting(&hosts[1], "by-hand", &["--wait"]);
        waiter.wait_for_errors("waiting for run", SOON);
        let watcher = start_node(&hosts[3]);
        let warm = boottime_ms() + STALE_AFTER + 1500;
        eventually("watchers that know the clock", SOON, || (boottime_ms() > warm).then_some(()));
        Watched { database: database.clone(), by_hand, waiter, node, watcher, first, second, queued, hosts }
    }

    /// For this long nobody is taken over, frozen or killed.
    #[track_caller]
    fn go_on_for(&self, milliseconds: u64) {
        let since = boottime_ms();
        throughout("one holder each", Duration::from_millis(milliseconds), || {
            ["by-hand", "queued"].iter().all(|run| ends(&self.database, run) == ["RUNNING"])
        });
        for (probe, running) in [(&self.first, &self.by_hand), (&self.queued, &self.node)] {
            assert!(!running.errors().contains("The command is"), "{}", running.errors());
            probe.wait_for_stamp_after(boottime_ms(), SOON);
            let stamps = probe.stamps();
            let pauses = stamps.windows(2).filter(|pair| pair[1] >= since).map(|pair| pair[1] - pair[0]);
            assert!(pauses.max().unwrap_or(0) < 1000, "it paused: {}", running.errors());
        }
        assert_eq!(self.second.stamps().len(), 0, "taken over: {}", self.waiter.errors());
    }

    /// The holders die with their guards, and nobody on their hosts knows.
    fn die(&mut self) -> u64 {
        kill_both(&mut self.by_hand);
        kill_both(&mut self.node);
        // What is no PID namespace may have left some of it.
        [&self.first, &self.queued].iter().for_each(|probe| probe.mark.kill());
        boottime_ms()
    }

    /// Both runs have new holders, no later than `limit` milliseconds after this moment.
    #[track_caller]
    fn are_followed(&self, since: u64, limit: u64) {
        self.second.wait_for_stamp_after(since, SOON);
        self.queued.wait_for_stamp_after(since, SOON);
        let queued = self.queued.stamps().into_iter().find(|stamp| *stamp > since).expect("just waited for");
        for (run, began) in [("by-hand", self.second.stamps()[0]), ("queued", queued)] {
            assert!(
                began <= since + limit,
                "{run}: taken over only {} ms later: {}",
                began - since,
                self.watcher.errors()
            );
            assert_eq!(ends(&self.database, run), ["CRASHED stale", "RUNNING"]);
        }
        // The history is sound, whatever its times are.
        let audit = self.hosts[1].output(&["audit"]);
        assert_eq!(audit.status.code(), Some(0), "{}", String::from_utf8_lossy(&audit.stdout));
    }
}

#[test]
fn a_clock_that_is_set_costs_nobody_his_run_and_the_dead_are_still_found() {
    let (database, mut server) = Database::on_own_server();
    let clock = ServerClock::of(&database, &mut server, 0);
    // So that nothing but what its watchers know of the clock protects a holder.
    database.pretend_old_server();
    let mut watched = Watched::start(&database);
    // Often, because it matters how soon behind a step a watcher looks.
    for n in 1..=8 {
        clock.set(n * STEP);
        watched.go_on_for(POLL + 100);
    }
    watched.go_on_for(STALE_AFTER);
    for ahead in [0, DAY, 0, -DAY, 0] {
        clock.set(ahead);
        watched.go_on_for(POLL + 500);
    }
    clock.set(STEP);
    let dead = watched.die();
    watched.are_followed(dead, HEARTBEAT + STALE_AFTER + POLL + SLACK);
}

#[test]
fn heartbeats_from_the_future_keep_no_dead_run() {
    let (database, mut server) = Database::on_own_server();
    let clock = ServerClock::of(&database, &mut server, 0);
    let mut watched = Watched::start(&database);
    clock.set(DAY);
    watched.go_on_for(2 * HEARTBEAT);
    watched.die();
    clock.set(0);
    // They begin to age with the first look at them.
    watched.are_followed(boottime_ms(), POLL + STALE_AFTER + POLL + SLACK);
}

/// When it began to accept writes cannot be told any more, so that nobody is taken over by age. The doctor sees why.
#[test]
fn a_server_that_was_started_with_a_clock_ahead_is_seen_by_the_doctor() {
    let (database, mut server) = Database::on_own_server();
    let clock = ServerClock::of(&database, &mut server, DAY);
    let seen = || {
        let output = Systole::on(&database).output(&["doctor", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
        let checks = report["checks"].as_array().expect("checks");
        checks.iter().find(|check| check["name"] == "rw_since").expect("it is checked").clone()
    };
    assert_eq!(seen()["ok"], true, "{}", seen());
    clock.set(0);
    assert_eq!(seen()["ok"], false, "{}", seen());
    assert!(seen()["remedy"].as_str().expect("a remedy").contains("restart PostgreSQL"), "{}", seen());
}
