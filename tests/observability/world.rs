//! Three nodes and an exporter or two, on a good day, on the day of an upgrade, and on a bad one.

use crate::catalogue::{Entry, Kind};
use crate::history::{Labels, STEP, Series, Shape};

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Nothing.
    Healthy,
    /// One node after the other is drained, stopped and started anew; then the exporter.
    Rolling,
    /// The database goes away; a node dies, and comes back; a run dies under cron; work piles up.
    Incident,
}

/// Moments of the incident, in seconds from its start.
pub(crate) mod moment {
    pub(crate) const DATABASE_AWAY: std::ops::Range<f64> = 1800.0..1890.0;
    pub(crate) const NODE_DEAD: std::ops::Range<f64> = 3600.0..4800.0;
    pub(crate) const CRON_CRASHES: f64 = 5700.0;
    pub(crate) const BACKLOG: f64 = 5100.0;
    pub(crate) const END: f64 = 7200.0;
}

const NODES: [&str; 3] = ["atlas", "borea", "corvus"];
/// The node that dies.
const VICTIM: &str = "corvus";
const STALE_AFTER: f64 = 30.0;

pub(crate) struct World {
    pub(crate) plan: Plan,
    /// Unix seconds of its start.
    pub(crate) epoch: f64,
    pub(crate) steps: u32,
    pub(crate) exporters: usize,
    /// When this Prometheus scraped for the first time.
    pub(crate) first_scrape: f64,
}

/// One is full, and claims nothing: that is no fault.
fn slots(node: &str) -> f64 {
    if node == "atlas" { 3.0 } else { 8.0 }
}

/// The values of a series' own labels.
#[derive(Clone, Copy)]
struct Values<'a>(&'a Labels);

impl<'a> Values<'a> {
    /// Of one label; empty if the series does not have it.
    fn of(self, name: &str) -> &'a str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// What is scraped.
pub(crate) struct Target {
    pub(crate) job: &'static str,
    pub(crate) instance: String,
    pub(crate) node: Option<String>,
    down: Vec<std::ops::Range<f64>>,
    draining: Option<std::ops::Range<f64>>,
}

impl Target {
    pub(crate) fn is_exporter(&self) -> bool {
        self.node.is_none()
    }

    pub(crate) fn is_up(&self, t: f64) -> bool {
        !self.down.iter().any(|down| down.contains(&t))
    }

    /// When its process was started.
    fn started(&self, t: f64) -> f64 {
        self.down.iter().map(|down| down.end).filter(|end| *end <= t).fold(-86_400.0, f64::max)
    }

    fn is_draining(&self, t: f64) -> bool {
        self.draining.as_ref().is_some_and(|draining| draining.contains(&t))
    }
}

impl World {
    pub(crate) fn new(plan: Plan, epoch: f64) -> World {
        let seconds = if plan == Plan::Incident { moment::END } else { 3600.0 };
        World { plan, epoch, steps: (seconds / f64::from(STEP)) as u32 + 1, exporters: 1, first_scrape: 0.0 }
    }

    pub(crate) fn is_seen(&self, t: f64) -> bool {
        t >= self.first_scrape
    }

    pub(crate) fn targets(&self) -> Vec<Target> {
        let node = |(n, name): (usize, &&'static str)| {
            let begins = 600.0 * (n + 1) as f64;
            let (down, draining) = match self.plan {
                Plan::Rolling => (vec![begins + 120.0..begins + 150.0], Some(begins..begins + 120.0)),
                Plan::Incident if *name == VICTIM => (vec![moment::NODE_DEAD], None),
                Plan::Incident | Plan::Healthy => (vec![], None),
            };
            Target { job: "systole", instance: format!("{name}:7070"), node: Some((*name).to_owned()), down, draining }
        };
        let exporter = |n: usize| Target {
            job: "systole-fleet",
            instance: format!("exporter{n}:7070"),
            node: None,
            down: if self.plan == Plan::Rolling { vec![2700.0..2745.0] } else { vec![] },
            draining: None,
        };
        NODES.iter().enumerate().map(node).chain((1..=self.exporters).map(exporter)).collect()
    }

    /// The values of a label that people give.
    pub(crate) fn names(&self, label: &str) -> Vec<String> {
        let names: &[&str] = match label {
            "queue" => &["default", "mail"],
            "node" => &NODES,
            "host" => &["atlas", "borea", "corvus", "cron1"],
            "version" => &["0.2.0"],
            "run" => &["train-7"],
            "table" => &["executor_instances", "nodes", "run_events", "runs"],
            other => panic!("what are the values of {other}?"),
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// What Prometheus would have been ringing about: the dashboards show it.
    pub(crate) fn alerts(&self) -> Vec<Series> {
        let labels = [
            ("alertname", "SystoleExecutorCrashed"),
            ("alertstate", "firing"),
            ("severity", "critical"),
            ("host", VICTIM),
        ];
        let values =
            (0..self.steps).map(|step| (self.crashes(VICTIM, 900.0, f64::from(step * STEP)) > 0.0).then_some(1.0));
        vec![Series {
            name: "ALERTS".to_owned(),
            labels: labels.map(|(name, value)| (name, value.to_owned())).into(),
            values: values.collect(),
        }]
    }

    fn is_incident(&self) -> bool {
        self.plan == Plan::Incident
    }

    fn away(&self, t: f64) -> bool {
        self.is_incident() && moment::DATABASE_AWAY.contains(&t)
    }

    fn dead(&self, t: f64) -> bool {
        self.is_incident() && moment::NODE_DEAD.contains(&t)
    }

    /// How long the dead node has been silent.
    fn silent(&self, node: &str, t: f64) -> f64 {
        if self.dead(t) && node == VICTIM { t - moment::NODE_DEAD.start } else { 2.0 }
    }

    /// How many executors of a host were declared dead in this many seconds before.
    fn crashes(&self, host: &str, lasts: f64, t: f64) -> f64 {
        let begins = match host {
            VICTIM => moment::NODE_DEAD.start + STALE_AFTER,
            "cron1" => moment::CRON_CRASHES,
            _ => return 0.0,
        };
        // Executors, of however many runs.
        f64::from(u8::from(self.is_incident() && (begins..begins + lasts).contains(&t)))
    }

    /// In the step right behind this moment a counter has grown by one.
    fn once(&self, at: f64, t: f64) -> f64 {
        if self.is_incident() && (at..at + f64::from(STEP)).contains(&t) { 1.0 / f64::from(STEP) } else { 0.0 }
    }

    /// The state in which the fleet sees a node; none for one that has said goodbye.
    fn seen_as(&self, node: &str, t: f64) -> Option<&'static str> {
        let target = self.targets().into_iter().find(|target| target.node.as_deref() == Some(node))?;
        match self.silent(node, t) {
            _ if target.is_draining(t) => Some("draining"),
            _ if self.plan == Plan::Rolling && !target.is_up(t) => None,
            age if age < STALE_AFTER / 2.0 => Some("live"),
            age if age < STALE_AFTER => Some("stale"),
            _ => Some("crashed"),
        }
    }

    /// What this series does at this moment.
    pub(crate) fn shape(&self, entry: &Entry, labels: &Labels, target: &Target, t: f64) -> Shape {
        let label = Values(labels);
        match entry.kind {
            Kind::Gauge if target.is_exporter() => {
                self.fleet_gauge(entry.name, label, t).map_or(Shape::Absent, Shape::Level)
            }
            Kind::Gauge => Shape::Level(self.node_gauge(entry.name, label, target, t)),
            Kind::Counter => Shape::Rate(self.counter(entry.name, label, target, t)),
            Kind::Histogram(bounds) => self.histogram(entry.name, bounds, t),
        }
    }

    fn fleet_gauge(&self, name: &str, label: Values, t: f64) -> Option<f64> {
        let (node, state, host) = (label.of("node"), label.of("state"), label.of("host"));
        let here = |node: &str| self.seen_as(node, t).is_some();
        let backlog = if self.is_incident() && t > moment::BACKLOG { t - moment::BACKLOG } else { 0.0 };
        let yes = |condition: bool| Some(f64::from(u8::from(condition)));
        let fell_silent = self.is_incident() && self.silent(VICTIM, t) >= STALE_AFTER;
        let (stale, still_stale) = (fell_silent && self.silent(VICTIM, t) < 60.0, fell_silent);
        match name {
            "systole_fleet_nodes" => {
                Some(NODES.iter().filter(|node| self.seen_as(node, t) == Some(state)).count() as f64)
            }
            "systole_fleet_node_info" => here(node).then_some(1.0).filter(|_| node == host),
            _ if !node.is_empty() && !here(node) => None,
            "systole_fleet_node_state" => yes(self.seen_as(node, t) == Some(state)),
            "systole_fleet_node_heartbeat_age_seconds" => Some(self.silent(node, t)),
            "systole_fleet_node_slots" | "systole_fleet_node_running" if self.seen_as(node, t) == Some("crashed") => {
                Some(0.0)
            }
            "systole_fleet_node_slots" => Some(slots(node)),
            "systole_fleet_node_running" => Some(if self.seen_as(node, t) == Some("draining") { 1.0 } else { 3.0 }),
            "systole_fleet_instances" => Some(if state == "live" { 10.0 } else { f64::from(u8::from(stale)) * 3.0 }),
            "systole_fleet_crashes_ringing" => Some(self.crashes(host, 900.0, t)),
            "systole_fleet_recent_crashes" => Some(self.crashes(host, 1800.0, t)),
            "systole_fleet_runs" => Some(match (label.of("queue"), state) {
                ("default", "queued") => 1.0 + backlog / 60.0,
                ("default", "running") if stale => 6.0,
                ("default", "running") => 9.0,
                ("default", "stale") if stale => 3.0,
                ("default", "poison") if self.is_incident() && t > 6000.0 => 1.0,
                (_, "delayed") => 2.0,
                _ => 0.0,
            }),
            "systole_fleet_queue_oldest_age_seconds" => {
                Some(if label.of("queue") == "default" { 1.0 + backlog } else { 0.0 })
            }
            "systole_fleet_stale_run_age_seconds" => {
                (stale && host == VICTIM && label.of("queue") == "default").then(|| self.silent(VICTIM, t))
            }
            "systole_fleet_recent_ends" => Some(if label.of("status") == "completed" { 40.0 } else { 1.0 }),
            "systole_fleet_recent_run_seconds" => Some(label.of("quantile").parse::<f64>().ok()? * 120.0),
            "systole_fleet_brake_engaged" => yes(self.is_incident() && still_stale && self.silent(VICTIM, t) < 45.0),
            "systole_fleet_table_bytes" => Some(4e7),
            "systole_fleet_table_dead_rows" => Some(t.rem_euclid(600.0)),
            "systole_fleet_oldest_transaction_age_seconds" => Some(2.0),
            "systole_fleet_snapshot_timestamp_seconds" => {
                Some(self.epoch + if self.away(t) { moment::DATABASE_AWAY.start } else { t - 0.5 })
            }
            "systole_fleet_snapshot_duration_seconds" => Some(0.012),
            _ => Some(0.0),
        }
    }

    fn node_gauge(&self, name: &str, label: Values, target: &Target, t: f64) -> f64 {
        let started = target.started(t);
        let state = match t {
            _ if t < started + 15.0 => "starting",
            _ if target.is_draining(t) => "draining",
            _ => "ready",
        };
        let last_answer = self.epoch + if self.away(t) { moment::DATABASE_AWAY.start } else { t - 1.0 };
        match name {
            "systole_build_info" | "systole_db_up" if !self.away(t) => 1.0,
            "systole_build_info" => 1.0,
            "systole_node_state" => f64::from(u8::from(label.of("state") == state)),
            "systole_heartbeat_interval_seconds" | "systole_attempt_timeout_seconds" => 4.0,
            "systole_fence_after_seconds" => 15.0,
            "systole_kill_grace_seconds" => 3.0,
            "systole_stale_after_seconds" => STALE_AFTER,
            "systole_runs_running" if label.of("queue") == "default" => 3.0,
            "systole_run_slots" => slots(target.node.as_deref().unwrap_or_default()),
            "systole_frozen_instances" if self.away(t) && t > moment::DATABASE_AWAY.start + 15.0 => 3.0,
            "systole_db_connections" => 3.0,
            "systole_db_clock_offset_seconds" => 0.004,
            // A loop that has not been round yet, and the claims of one that is going.
            "systole_loop_last_success_timestamp_seconds" if t < started + 15.0 => 0.0,
            "systole_loop_last_success_timestamp_seconds" if label.of("loop") == "claim" && target.is_draining(t) => {
                self.epoch + target.draining.as_ref().map_or(0.0, |draining| draining.start)
            }
            "systole_heartbeat_last_success_timestamp_seconds" | "systole_loop_last_success_timestamp_seconds" => {
                last_answer
            }
            "process_start_time_seconds" => self.epoch + started,
            "process_resident_memory_bytes" | "process_virtual_memory_bytes" => 3e7,
            "process_open_fds" => 24.0,
            "process_max_fds" => 1024.0,
            "process_threads" => 6.0,
            _ => 0.0,
        }
    }

    fn counter(&self, name: &str, label: Values, target: &Target, t: f64) -> f64 {
        let away = self.away(t);
        let dies = self.once(moment::NODE_DEAD.start + STALE_AFTER, t);
        match (name, label.of("result"), label.of("cause")) {
            ("systole_heartbeats_total", "ok", _) if !away => 0.25,
            ("systole_heartbeats_total", "timeout", _) if away => 0.2,
            ("systole_heartbeat_verdicts_total", ..) if label.of("verdict") == "ok" && !away => 0.75,
            ("systole_heartbeat_verdicts_total", ..) if label.of("verdict") == "lost" => self.once(1890.0, t),
            ("systole_claim_attempts_total", "empty", _) if !away => 0.2,
            ("systole_claim_attempts_total", "claimed", _) if !away && !target.is_draining(t) => 0.05,
            ("systole_claim_attempts_total", "error", _) if away => 0.2,
            ("systole_runs_claimed_total", ..) if label.of("kind") == "fresh" && !away => 0.05,
            ("systole_runs_claimed_total", ..)
                if label.of("kind") == "takeover" && target.instance.starts_with("atlas") =>
            {
                dies
            }
            ("systole_takeovers_total", _, "stale") if target.instance.starts_with("atlas") => dies * 3.0,
            ("systole_fleet_takeovers_total", _, "stale") => dies * 3.0,
            ("systole_fleet_instance_crashes_total", _, "stale") if label.of("host") == VICTIM => dies * 3.0,
            ("systole_fleet_instance_crashes_total", _, "proof") if label.of("host") == "cron1" => {
                self.once(moment::CRON_CRASHES, t)
            }
            ("systole_fleet_duplicates_refused_total", ..) => 0.01,
            ("systole_fleet_table_updates_total", ..) => {
                if label.of("hot") == "true" {
                    5.0
                } else {
                    0.01
                }
            }
            ("systole_fleet_snapshot_errors_total", ..) if away => 0.2,
            ("systole_freezes_total", ..) => self.once(1815.0, t) * 3.0,
            ("systole_fences_total", ..) if label.of("reason") == "superseded" => self.once(1890.0, t),
            ("systole_runs_finished_total", ..) if label.of("outcome") == "completed" && !away => 0.05,
            ("systole_child_starts_total", ..) if !away => 0.05,
            ("systole_child_exits_total", _, "exit_zero") if !away => 0.05,
            ("systole_child_exits_total", _, "signal") => self.once(moment::BACKLOG, t),
            ("systole_db_errors_total", ..) if label.of("class") == "timeout" && away => 0.2,
            ("systole_db_dials_total", "error", _) if away => 0.2,
            ("systole_db_dials_total", "ok", _) => self.once(1890.0, t) * 3.0,
            ("systole_notifications_total", ..) => 0.05,
            ("systole_http_requests_total", ..) if label.of("route") == "/metrics" && label.of("code") == "2xx" => {
                1.0 / 15.0
            }
            ("process_cpu_seconds_total", ..) => 0.01,
            _ => 0.0,
        }
    }

    fn histogram(&self, name: &str, bounds: &[f64], t: f64) -> Shape {
        match name {
            _ if self.away(t) => Shape::Around(0.0, 1.0),
            "systole_heartbeat_duration_seconds" => Shape::Around(0.25, 0.003),
            "systole_heartbeat_schedule_delay_seconds" => Shape::Around(0.25, 0.002),
            "systole_heartbeat_lease_used_ratio" => {
                let after_outage = self.is_incident() && (1890.0..1950.0).contains(&t);
                Shape::Around(0.25, if after_outage { 0.95 } else { 0.27 })
            }
            "systole_takeover_delay_seconds" => Shape::Around(self.once(3630.0, t) * 3.0, 33.0),
            "systole_run_queue_wait_seconds" => {
                let backlog = self.is_incident() && t > moment::BACKLOG;
                Shape::Around(0.05, if backlog { t - moment::BACKLOG } else { 0.7 })
            }
            "systole_run_duration_seconds" => Shape::Around(0.05, 60.0),
            "systole_run_attempts" => Shape::Around(0.05, 0.8),
            "systole_db_query_duration_seconds" => Shape::Around(0.3, 0.004),
            "systole_freeze_duration_seconds" | "systole_fence_kill_duration_seconds" => {
                Shape::Around(self.once(1890.0, t), 1.0)
            }
            _ => Shape::Around(0.05, bounds[0]),
        }
    }
}
