//! Every metric there is: the one table from which they are registered, documented and checked.
//!
//! Label values come from closed sets, and each combination is there from the start, at 0: a rate does not see a series that
//! is born at 1. The few labels without a set are names that people have given, and a bounded number of them.

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// Where a metric is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// `/metrics` of a node: what this process counts.
    Node,
    /// The same, from the kernel's account of the process.
    Process,
    /// `/metrics/fleet`: what the database knows of all.
    Fleet,
}

/// A label and its values; none if they are names that people have given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) name: &'static str,
    pub(crate) values: &'static [&'static str],
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) family: Family,
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) scope: Scope,
    pub(crate) labels: &'static [Label],
    pub(crate) help: &'static str,
}

impl Family {
    /// Its row: they stand in the same order.
    pub(crate) fn entry(self) -> &'static Entry {
        let entry = &CATALOGUE[self as usize];
        debug_assert!(entry.family == self);
        entry
    }
}

const fn closed(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values }
}

const fn open(name: &'static str) -> Label {
    Label { name, values: &[] }
}

const QUEUE: Label = open("queue");
const CAUSE: Label = closed("cause", &["proof", "stale", "forced", "guard_lost"]);
const LOOP: Label = closed("loop", &["heartbeat", "node", "sweep", "claim"]);
/// What is asked for over HTTP, by its path.
const ROUTE: Label = closed("route", &["/livez", "/readyz", "/metrics", "/metrics/fleet", "/sd", "other"]);
const NODE_STATE: Label = closed("state", &["live", "stale", "crashed", "draining"]);
const NODE: Label = open("node");
const HOST: Label = open("host");
const TABLE: Label = open("table");

/// The statements of a node by the name in their first line; `other` are those that are rare.
const STATEMENT: Label = closed(
    "statement",
    &[
        "instance.beat",
        "instance.finish_all",
        "instance.file_certificate",
        "node.beat",
        "node.claim_queued",
        "node.reap",
        "output.put",
        "session.schema",
        "other",
    ],
);

const BEAT_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 4.0];
const DELAY_SECONDS: &[f64] = &[0.01, 0.1, 0.5, 1.0, 5.0];
const LEASE_RATIOS: &[f64] = &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5];
const TAKEOVER_SECONDS: &[f64] = &[1.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0];
const FREEZE_SECONDS: &[f64] = &[1.0, 15.0, 60.0, 300.0];
const KILL_SECONDS: &[f64] = &[0.1, 1.0, 3.0, 10.0];
const STOP_SECONDS: &[f64] = &[0.1, 1.0, 10.0, 30.0];
const RUN_SECONDS: &[f64] = &[1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0];
const WAIT_SECONDS: &[f64] = &[1.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0];
const ATTEMPTS: &[f64] = &[1.0, 2.0, 3.0, 5.0, 10.0];
const STATEMENT_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 1.0];
const LOOP_SECONDS: &[f64] = &[0.05, 0.5, 5.0];
const HTTP_SECONDS: &[f64] = &[0.05, 1.0];

/// The label of a path.
pub(crate) fn route_label(path: &str) -> &'static str {
    one_of(ROUTE, path)
}

/// The label of a statement of ours.
pub(crate) fn statement_label(statement: &str) -> &'static str {
    let name = statement.strip_prefix("-- ").and_then(|rest| rest.split_whitespace().next());
    one_of(STATEMENT, name.unwrap_or_default())
}

fn one_of(label: Label, value: &str) -> &'static str {
    label.values.iter().find(|known| **known == value).unwrap_or(&"other")
}

macro_rules! catalogue {
    ($($scope:ident { $($family:ident = $name:literal, $kind:expr, [$($label:expr),*], $help:literal;)* })*) => {
        /// The rows by their names in code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Family {
            $($($family),*),*
        }

        /// All rows, in the order of [`Family`].
        pub(crate) const CATALOGUE: &[Entry] = &[$($(Entry {
            family: Family::$family,
            name: $name,
            kind: $kind,
            scope: Scope::$scope,
            labels: &[$($label),*],
            help: $help,
        }),*),*];
    };
}

use Kind::{Counter, Gauge, Histogram};

catalogue! {
    Node {
        BuildInfo = "systole_build_info", Gauge, [open("version")], "1, with the version of this process.";
        OwnState = "systole_node_state", Gauge, [closed("state", &["starting", "ready", "draining", "gone"])], "1 for the state that this node is in by its own view, else 0.";
        Heartbeats = "systole_heartbeats_total", Counter, [closed("result", &["ok", "error", "timeout"])], "Heartbeat statements, each for up to 100 instances.";
        HeartbeatVerdicts = "systole_heartbeat_verdicts_total", Counter, [closed("verdict", &["ok", "busy", "lost", "other"])], "What heartbeats were told of single instances. `busy` is a locked row, `other` an `ok` that renews nothing behind a failover.";
        HeartbeatDuration = "systole_heartbeat_duration_seconds", Histogram(BEAT_SECONDS), [], "From sending a heartbeat statement to its answer.";
        HeartbeatScheduleDelay = "systole_heartbeat_schedule_delay_seconds", Histogram(DELAY_SECONDS), [], "How late a heartbeat was sent: a stalled process, a busy or paused machine.";
        LeaseUsed = "systole_heartbeat_lease_used_ratio", Histogram(LEASE_RATIOS), [], "At each acknowledged heartbeat of an instance, the time since the one before was sent, as a share of fence_after. At 1 the command is frozen.";
        HeartbeatLastSuccess = "systole_heartbeat_last_success_timestamp_seconds", Gauge, [], "When a heartbeat was last acknowledged, by this host's clock.";
        HeartbeatInterval = "systole_heartbeat_interval_seconds", Gauge, [], "Configured heartbeat_interval.";
        AttemptTimeout = "systole_attempt_timeout_seconds", Gauge, [], "Configured attempt_timeout.";
        FenceAfter = "systole_fence_after_seconds", Gauge, [], "Configured fence_after.";
        KillGrace = "systole_kill_grace_seconds", Gauge, [], "Configured kill_grace.";
        StaleAfter = "systole_stale_after_seconds", Gauge, [], "Configured stale_after.";
        RunsRunning = "systole_runs_running", Gauge, [QUEUE], "Attempts that this node is making now.";
        RunSlots = "systole_run_slots", Gauge, [], "How many it makes at once at most.";
        RunsClaimed = "systole_runs_claimed_total", Counter, [QUEUE, closed("kind", &["fresh", "retry", "takeover"])], "Runs granted to this node: a first attempt, a further one, or one whose last holder has crashed without anybody having queued it anew since.";
        ClaimAttempts = "systole_claim_attempts_total", Counter, [closed("result", &["claimed", "empty", "error"])], "Looks into the queues.";
        Takeovers = "systole_takeovers_total", Counter, [CAUSE], "Runs claimed from a holder that had crashed, by how that was known. One that somebody has queued anew since is none.";
        TakeoverDelay = "systole_takeover_delay_seconds", Histogram(TAKEOVER_SECONDS), [], "From the last heartbeat of a crashed holder to the claim that took over, by the database's clock.";
        SweepCrashes = "systole_sweep_crashes_total", Counter, [closed("cause", &["stale", "proof"])], "Executors that this node's sweep declared dead: silent ones of anywhere, certified ones of this host.";
        CertificatesFiled = "systole_certificates_filed_total", Counter, [], "Certificates of death of this host that told the database something new.";
        Freezes = "systole_freezes_total", Counter, [closed("reason", &["deadline"])], "Commands frozen because no heartbeat was acknowledged in time.";
        FreezeDuration = "systole_freeze_duration_seconds", Histogram(FREEZE_SECONDS), [], "How long a command was frozen, until it went on or ended.";
        FrozenInstances = "systole_frozen_instances", Gauge, [], "Commands that are frozen now.";
        Fences = "systole_fences_total", Counter, [closed("reason", &["lease_expired", "superseded"])], "Commands that this node stopped because their run may be another's.";
        FenceKillDuration = "systole_fence_kill_duration_seconds", Histogram(KILL_SECONDS), [], "From the decision to fence a command until nothing was left of its tree. Must stay below kill_grace.";
        RunsFinished = "systole_runs_finished_total", Counter, [QUEUE, closed("outcome", &["completed", "failed", "timed_out", "cancelled", "released", "crashed", "lost"])], "Attempts of this node that ended. `lost` is what was superseded, fenced, or could not be recorded.";
        RunDuration = "systole_run_duration_seconds", Histogram(RUN_SECONDS), [QUEUE], "From the claim of an attempt to its end.";
        RunQueueWait = "systole_run_queue_wait_seconds", Histogram(WAIT_SECONDS), [QUEUE], "From the moment a run was due to its claim, by the database's clock.";
        RunAttempts = "systole_run_attempts", Histogram(ATTEMPTS), [QUEUE], "The number of each attempt within its run, when it ended.";
        ChildStarts = "systole_child_starts_total", Counter, [], "Commands started.";
        ChildExits = "systole_child_exits_total", Counter, [closed("cause", &["exit_zero", "exit_nonzero", "signal", "fence_kill", "stop_timeout"])], "Commands that ended: by themselves, by a signal (the kernel's for want of memory too), killed because their run may be another's, or killed because they did not stop in time.";
        ChildStopDuration = "systole_child_stop_duration_seconds", Histogram(STOP_SECONDS), [], "From a command's SIGTERM until nothing was left of its tree.";
        DbUp = "systole_db_up", Gauge, [], "1 if the database answered when it was last asked, else 0.";
        DbQueryDuration = "systole_db_query_duration_seconds", Histogram(STATEMENT_SECONDS), [STATEMENT], "From sending a statement to its last row.";
        DbErrors = "systole_db_errors_total", Counter, [closed("class", &["connection", "timeout", "serialization", "constraint", "other"])], "Calls of the database that failed.";
        DbConnections = "systole_db_connections", Gauge, [], "Connections that are open now.";
        DbDials = "systole_db_dials_total", Counter, [closed("result", &["ok", "error"])], "Connections that were tried, over all servers of a list.";
        DbClockOffset = "systole_db_clock_offset_seconds", Gauge, [], "This host's clock minus the database's, as of the last heartbeat.";
        ListenReconnects = "systole_listen_reconnects_total", Counter, [], "Connections that began to listen after the first one.";
        Notifications = "systole_notifications_total", Counter, [], "Hints heard by NOTIFY.";
        LoopLastSuccess = "systole_loop_last_success_timestamp_seconds", Gauge, [LOOP], "When a loop of this node last did its work without trouble, by this host's clock. To have nothing to claim is no trouble.";
        LoopDuration = "systole_loop_duration_seconds", Histogram(LOOP_SECONDS), [LOOP], "How long one round of a loop took.";
        HttpRequests = "systole_http_requests_total", Counter, [ROUTE, closed("code", &["2xx", "4xx", "5xx"])], "Requests answered.";
        HttpRequestDuration = "systole_http_request_duration_seconds", Histogram(HTTP_SECONDS), [ROUTE], "From a request to its answer.";
    }
    Process {
        ProcessCpu = "process_cpu_seconds_total", Counter, [], "User and system time of this process.";
        ProcessOpenFds = "process_open_fds", Gauge, [], "Open file descriptors.";
        ProcessMaxFds = "process_max_fds", Gauge, [], "How many file descriptors may be open.";
        ProcessVirtualMemory = "process_virtual_memory_bytes", Gauge, [], "Size of the address space.";
        ProcessResidentMemory = "process_resident_memory_bytes", Gauge, [], "Size of what is in memory.";
        ProcessStartTime = "process_start_time_seconds", Gauge, [], "When this process was started.";
        ProcessThreads = "process_threads", Gauge, [], "Threads of this process.";
    }
    Fleet {
        FleetNodes = "systole_fleet_nodes", Gauge, [NODE_STATE], "Nodes by their state: live is silent for less than half its stale_after, stale for up to it, crashed for longer until it is forgotten or an hour has passed. Those that said goodbye are not shown.";
        FleetNodeState = "systole_fleet_node_state", Gauge, [NODE, NODE_STATE], "1 for the state that a node is in, else 0. Of several of one name the worst.";
        FleetNodeHeartbeatAge = "systole_fleet_node_heartbeat_age_seconds", Gauge, [NODE], "Since the last heartbeat of a node, by the database's clock.";
        FleetNodeInfo = "systole_fleet_node_info", Gauge, [NODE, HOST, open("version")], "1, with the host and the version of a node.";
        FleetNodeSlots = "systole_fleet_node_slots", Gauge, [NODE], "How many runs a node works on at once at most; 0 of one that has crashed.";
        FleetNodeRunning = "systole_fleet_node_running", Gauge, [NODE], "How many it works on now; 0 of one that has crashed.";
        FleetInstances = "systole_fleet_instances", Gauge, [closed("state", &["live", "stale"])], "Executors' RUNNING tenures, those of `systole run` too.";
        FleetInstanceCrashes = "systole_fleet_instance_crashes_total", Counter, [HOST, CAUSE], "Crashes by the host of what crashed, counted in the transaction that declared them. At most 1,000 hosts, those of the newest crashes first; one on which nothing has crashed for 30 days begins anew.";
        FleetTakeovers = "systole_fleet_takeovers_total", Counter, [CAUSE], "Runs claimed from a holder that had crashed, counted in the transaction of the claim. One that somebody has queued anew since is none, nor one by hand that nobody has waited for.";
        FleetDuplicatesRefused = "systole_fleet_duplicates_refused_total", Counter, [], "Claims refused because somebody held the run, counted in their transactions. One that waits for the run is not refused.";
        FleetCrashesRinging = "systole_fleet_crashes_ringing", Gauge, [HOST], "Executors, however many runs they held, declared dead in the last 15 minutes without anybody having acknowledged it by `systole forget`. Forced deaths do not ring.";
        FleetRecentCrashes = "systole_fleet_recent_crashes", Gauge, [HOST], "Executors declared dead in the last 30 minutes, acknowledged or not, however many runs they held; one that dies again under the same PID is counted again from the next minute on. Without forced deaths.";
        FleetRuns = "systole_fleet_runs", Gauge, [QUEUE, closed("state", &["queued", "delayed", "running", "stale", "poison"])], "Runs that have not ended, and those given up as poison until somebody retries or forgets them. `stale` are those whose holder has been silent for its stale_after, and `running` all others that run; `_by_hand` are those of no queue. Counting stops: of 100,000 that wait each lane (a queue and what its runs require) has its equal share; of delayed and of poisoned runs 10,000 are looked at.";
        FleetQueueOldestAge = "systole_fleet_queue_oldest_age_seconds", Gauge, [QUEUE], "How long the run that is first in line has been due; 0 if none waits. With priorities another one may have waited longer.";
        FleetQueuePaused = "systole_fleet_queue_paused", Gauge, [QUEUE], "1 if nothing of the queue is started.";
        FleetStaleRunAge = "systole_fleet_stale_run_age_seconds", Gauge, [open("run"), QUEUE, HOST], "Since the last heartbeat of a stale run's holder: the worst 20 only.";
        FleetRecentEnds = "systole_fleet_recent_ends", Gauge, [closed("status", &["completed", "failed", "timed_out", "cancelled", "released", "crashed"])], "Attempts that ended in the last 5 minutes, those of `systole run` too; only among the newest 2,000 events of the fleet.";
        FleetRecentRunSeconds = "systole_fleet_recent_run_seconds", Gauge, [closed("quantile", &["0.5", "0.95", "1"])], "How long they had taken. Absent when nothing has ended.";
        FleetInvariantViolations = "systole_fleet_invariant_violations", Gauge, [closed("invariant", &["one_running_per_run", "running_has_instance", "fence_monotonic"])], "Rows that contradict a promise, of what runs now and of the newest events. Must be 0. `systole audit` judges the whole history.";
        FleetBrakeEngaged = "systole_fleet_brake_engaged", Gauge, [], "1 while takeovers by age are delayed because many hosts fell silent at once.";
        FleetQuarantineRemaining = "systole_fleet_quarantine_remaining_seconds", Gauge, [], "For how long nothing is granted behind a failover; 0 if there is no quarantine.";
        FleetTableBytes = "systole_fleet_table_bytes", Gauge, [TABLE], "Size of a table with its indexes.";
        FleetTableDeadRows = "systole_fleet_table_dead_rows", Gauge, [TABLE], "Rows that wait for vacuum, as PostgreSQL estimates. Absent on a standby.";
        FleetTableUpdates = "systole_fleet_table_updates_total", Counter, [TABLE, closed("hot", &["true", "false"])], "Updates of a table's rows, and whether they left the indexes alone.";
        FleetOldestTransactionAge = "systole_fleet_oldest_transaction_age_seconds", Gauge, [], "Age of the oldest transaction in the database, which keeps vacuum from its work. Absent on a standby, and where the schema's owner lacks pg_read_all_stats.";
        FleetSnapshotTimestamp = "systole_fleet_snapshot_timestamp_seconds", Gauge, [], "When the database was last asked with success, by the clock of the host that asked.";
        FleetSnapshotDuration = "systole_fleet_snapshot_duration_seconds", Gauge, [], "How long that took.";
        FleetSnapshotErrors = "systole_fleet_snapshot_errors_total", Counter, [], "How often it was asked without success.";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_not_known_is_other() {
        assert_eq!(statement_label("-- node.reap\n    SELECT 1"), "node.reap");
        assert_eq!(statement_label("-- node.reaper\n    SELECT 1"), "other");
        assert_eq!(statement_label("SELECT 1"), "other");
        assert_eq!(route_label("/metrics"), "/metrics");
        assert_eq!(route_label("/metrics/../../etc/passwd"), "other");
    }

    #[test]
    fn every_name_is_unique_and_says_its_kind_and_unit() {
        let names: BTreeSet<_> = CATALOGUE.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), CATALOGUE.len());
        for entry in CATALOGUE {
            let Entry { family, name, kind, scope, labels, help } = entry;
            assert_eq!(family.entry().name, *name);
            assert_eq!(*kind == Counter, name.ends_with("_total"), "{name}");
            assert_eq!(*scope == Scope::Process, name.starts_with("process_"), "{name}");
            assert_eq!(*scope == Scope::Fleet, name.starts_with("systole_fleet_"), "{name}");
            assert!(help.ends_with('.'), "{name}");
            assert!(labels.len() <= 3, "{name}");
            if let Histogram(bounds) = kind {
                assert!(bounds.is_sorted(), "{name}");
                assert!(
                    name.ends_with("_seconds") || name.ends_with("_ratio") || name.ends_with("_attempts"),
                    "{name}"
                );
            }
        }
    }
}
