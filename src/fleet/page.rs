//! The fleet in Prometheus' text format, by the catalogue.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use super::snapshot::{Node, Queue, Snapshot, State};
use super::view::Seen;
use crate::metrics::catalogue::{Family, Kind};

/// How many queues have a name of their own; the rest are one.
const QUEUES_MAX: usize = 50;
const OTHER_QUEUES: &str = "_other";
/// No queue can be called so.
const BY_HAND: &str = "_by_hand";

/// An exporter that is cut off from the database goes on with what it saw last, but not for ever: all rules take the greatest of what
/// several exporters say, and it would outshout one that sees.
const WORTH_SHOWING: Duration = Duration::from_secs(5 * 60);

/// How many hosts have counts.
const HOSTS_MAX: usize = 1000;

/// A page in the making: families one behind the other.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// Begins a family, and writes its samples.
    fn family<'a, const N: usize>(&mut self, family: Family, samples: impl IntoIterator<Item = ([&'a str; N], f64)>) {
        let entry = family.entry();
        assert!(entry.labels.len() == N, "{} has other labels", entry.name);
        let kind = if entry.kind == Kind::Counter { "counter" } else { "gauge" };
        let help = entry.help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = write!(self.text, "# HELP {0} {help}\n# TYPE {0} {kind}\n", entry.name);
        for (values, value) in samples {
            self.text.push_str(entry.name);
            for (n, (label, text)) in entry.labels.iter().zip(values).enumerate() {
                let before = if n == 0 { '{' } else { ',' };
                let _ = write!(self.text, "{before}{}=\"{}\"", label.name, Escaped(text));
            }
            let _ = writeln!(self.text, "{} {value}", if N > 0 { "}" } else { "" });
        }
    }

    fn one(&mut self, family: Family, value: f64) {
        self.family(family, [([], value)]);
    }
}

/// The value of a label: whatever somebody called his host, it stays between its quotes.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// The whole page: what was seen last, when, and how often it could not be.
pub(super) fn page(seen: &Seen) -> String {
    let mut page = Page::default();
    if let Some(error) = seen.error() {
        let age = seen.last.as_ref().map(|taken| taken.age().as_secs());
        let age = age.map_or("nothing was seen yet".to_owned(), |age| format!("what follows is {age} s old"));
        let _ = writeln!(page.text, "# {age}: {}", error.to_string().replace('\n', " "));
    }
    page.one(Family::FleetSnapshotErrors, seen.errors as f64);
    if let Some(taken) = &seen.last {
        page.one(Family::FleetSnapshotTimestamp, since_1970(taken.at).as_secs_f64());
        page.one(Family::FleetSnapshotDuration, taken.took.as_secs_f64());
    }
    if let Some(taken) = seen.last.as_ref().filter(|taken| taken.age() < WORTH_SHOWING) {
        nodes(&mut page, &taken.snapshot);
        crashes(&mut page, &taken.snapshot);
        queues(&mut page, &taken.snapshot);
        ends(&mut page, &taken.snapshot);
        health(&mut page, &taken.snapshot);
    }
    page.text
}

fn since_1970(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Several of one name are shown as one: the worst state, the longest silence, the sum of the rest.
fn nodes(page: &mut Page, snapshot: &Snapshot) {
    let count = |state| snapshot.nodes.iter().filter(|node| node.state == state).count() as f64;
    page.family(Family::FleetNodes, State::ALL.map(|(state, name)| ([name], count(state))));
    let mut named: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
    for node in &snapshot.nodes {
        named.entry(&node.name).or_default().push(node);
    }
    let states = named.iter().flat_map(|(name, nodes)| {
        let worst = nodes.iter().map(|node| node.state).max();
        State::ALL.map(|(state, word)| ([*name, word], f64::from(worst == Some(state))))
    });
    page.family(Family::FleetNodeState, states);
    let per_node =
        |of: fn(&[&Node]) -> f64| named.iter().map(move |(name, nodes)| ([*name], of(nodes))).collect::<Vec<_>>();
    let longest = |nodes: &[&Node]| nodes.iter().map(|node| node.heartbeat_age_seconds).fold(0.0, f64::max);
    page.family(Family::FleetNodeHeartbeatAge, per_node(longest));
    let info: BTreeSet<_> = snapshot.nodes.iter().map(|node| [&*node.name, &*node.host, &*node.version]).collect();
    page.family(Family::FleetNodeInfo, info.into_iter().map(|labels| (labels, 1.0)));
    page.family(Family::FleetNodeSlots, per_node(|nodes| nodes.iter().map(|node| node.slots).sum()));
    page.family(Family::FleetNodeRunning, per_node(|nodes| nodes.iter().map(|node| node.running).sum()));
    let instances = [(["live"], snapshot.instances_live), (["stale"], snapshot.instances_stale)];
    page.family(Family::FleetInstances, instances);
}

fn crashes(page: &mut Page, snapshot: &Snapshot) {
    let causes = Family::FleetTakeovers.entry().labels[0].values;
    let mut counts: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    // Hosts that have crashed come first; those that have not are there at 0, as long as there is room.
    let crashed = snapshot.crashes.iter().map(|row| row.host.as_str());
    let known = snapshot.nodes.iter().map(|node| node.host.as_str()).chain(snapshot.hosts.iter().map(String::as_str));
    let mut hosts = BTreeSet::new();
    for host in crashed.chain(snapshot.ringing.iter().map(|row| row.host.as_str())).chain(known) {
        if hosts.len() < HOSTS_MAX {
            hosts.insert(host);
        }
    }
    for row in &snapshot.crashes {
        *counts.entry((&row.host, &row.cause)).or_default() += row.count;
    }
    let samples = hosts.iter().flat_map(|host| {
        causes.iter().map(|cause| ([*host, *cause], counts.get(&(*host, *cause)).copied().unwrap_or(0.0)))
    });
    page.family(Family::FleetInstanceCrashes, samples.collect::<Vec<_>>());
    for (family, rows) in
        [(Family::FleetCrashesRinging, &snapshot.ringing), (Family::FleetRecentCrashes, &snapshot.lately)]
    {
        let counts: BTreeMap<&str, f64> = rows.iter().map(|row| (row.host.as_str(), row.count)).collect();
        page.family(family, hosts.iter().map(|host| ([*host], counts.get(host).copied().unwrap_or(0.0))));
    }
    let takeovers = causes.iter().map(|cause| ([*cause], snapshot.takeovers.get(*cause).copied().unwrap_or(0.0)));
    page.family(Family::FleetTakeovers, takeovers);
    page.one(Family::FleetDuplicatesRefused, snapshot.duplicates_refused);
}

fn queues(page: &mut Page, snapshot: &Snapshot) {
    let (named, rest) = snapshot.queues.split_at(snapshot.queues.len().min(QUEUES_MAX));
    let mut shown: Vec<(&str, Queue)> = named.iter().map(|queue| (queue.queue.as_str(), queue.clone())).collect();
    if let Some(other) = rest.iter().cloned().reduce(Queue::and) {
        shown.push((OTHER_QUEUES, other));
    }
    let by_hand = &snapshot.by_hand;
    let runs = shown.iter().flat_map(|(name, queue)| {
        [
            ([*name, "queued"], queue.queued),
            ([*name, "delayed"], queue.delayed),
            ([*name, "running"], queue.running),
            ([*name, "stale"], queue.stale),
            ([*name, "poison"], queue.poison),
        ]
    });
    let by_hand = [([BY_HAND, "running"], by_hand.running), ([BY_HAND, "stale"], by_hand.stale)];
    page.family(Family::FleetRuns, runs.chain(by_hand));
    page.family(Family::FleetQueueOldestAge, shown.iter().map(|(name, queue)| ([*name], queue.oldest_seconds)));
    page.family(Family::FleetQueuePaused, shown.iter().map(|(name, queue)| ([*name], f64::from(queue.paused))));
    let named: BTreeSet<&str> = named.iter().map(|queue| queue.queue.as_str()).collect();
    let label = |queue: &Option<String>| match queue.as_deref().map(|name| named.get(name)) {
        None => BY_HAND,
        Some(None) => OTHER_QUEUES,
        Some(Some(name)) => *name,
    };
    let stale = snapshot.stale_runs.iter().map(|run| ([&*run.run, label(&run.queue), &*run.host], run.seconds));
    page.family(Family::FleetStaleRunAge, stale.collect::<Vec<_>>());
}

impl Queue {
    /// Both as one. Paused if one of them is.
    fn and(self, other: Queue) -> Queue {
        Queue {
            queue: self.queue,
            queued: self.queued + other.queued,
            delayed: self.delayed + other.delayed,
            running: self.running + other.running,
            stale: self.stale + other.stale,
            poison: self.poison + other.poison,
            oldest_seconds: self.oldest_seconds.max(other.oldest_seconds),
            paused: self.paused || other.paused,
        }
    }
}

fn ends(page: &mut Page, snapshot: &Snapshot) {
    let statuses = Family::FleetRecentEnds.entry().labels[0].values;
    let count = |status: &str| snapshot.ends.get(&status.to_uppercase()).copied().unwrap_or(0.0);
    page.family(Family::FleetRecentEnds, statuses.iter().map(|status| ([*status], count(status))));
    let quantiles = Family::FleetRecentRunSeconds.entry().labels[0].values;
    let seconds = snapshot.run_seconds.iter().flatten();
    page.family(Family::FleetRecentRunSeconds, quantiles.iter().zip(seconds).map(|(name, value)| ([*name], *value)));
}

fn health(page: &mut Page, snapshot: &Snapshot) {
    let violations = [
        (["one_running_per_run"], snapshot.one_running_per_run),
        (["running_has_instance"], snapshot.running_has_instance),
        (["fence_monotonic"], snapshot.fence_monotonic),
    ];
    page.family(Family::FleetInvariantViolations, violations);
    page.one(Family::FleetBrakeEngaged, f64::from(snapshot.brake_engaged));
    page.one(Family::FleetQuarantineRemaining, snapshot.quarantine_seconds);
    let tables = &snapshot.tables;
    page.family(Family::FleetTableBytes, tables.iter().map(|table| ([&*table.table], table.bytes)));
    let dead = tables.iter().filter_map(|table| Some(([&*table.table], table.dead_rows?)));
    page.family(Family::FleetTableDeadRows, dead);
    let updates = tables.iter().filter_map(|table| {
        let (all, hot) = (table.updates?, table.hot_updates?);
        // They are read one after the other.
        Some([([&*table.table, "true"], hot), ([&*table.table, "false"], (all - hot).max(0.0))])
    });
    page.family(Family::FleetTableUpdates, updates.flatten());
    page.family(Family::FleetOldestTransactionAge, snapshot.oldest_transaction_seconds.map(|age| ([], age)));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::view::Taken;
    use super::*;
    use crate::metrics::catalogue::{CATALOGUE, Scope};

    /// Something of everything.
    fn snapshot(crashes: u64, fleet_id: &str) -> Snapshot {
        serde_json::from_value(json!({
            "fleet_id": fleet_id,
            "nodes": [{"name": "n", "host": "h", "version": "0.1.0", "state": "live", "heartbeat_age_seconds": 1.5, "slots": 4,
                       "running": 1, "http_address": "h:7070", "zone": null}],
            "instances_live": 1, "instances_stale": 1, "hosts": ["h"],
            "crashes": [{"host": "h", "cause": "proof", "count": crashes}], "ringing": [{"host": "h", "count": 1}],
            "lately": [{"host": "h", "count": 1}],
            "takeovers": {"proof": crashes}, "duplicates_refused": crashes,
            "queues": [{"queue": "q", "queued": 1, "delayed": 1, "running": 1, "stale": 1, "poison": 1, "oldest_seconds": 0.5, "paused": true}],
            "by_hand": {"running": 0, "stale": 0},
            "stale_runs": [{"run": "r", "queue": "q", "host": "h", "seconds": 31}],
            "ends": {"COMPLETED": 1}, "run_seconds": [1, 2, 3.5],
            "one_running_per_run": 0, "running_has_instance": 0, "fence_monotonic": 0, "brake_engaged": false, "quarantine_seconds": 0,
            "tables": [{"table": "runs", "bytes": 8192, "dead_rows": 1, "updates": 10, "hot_updates": 9}],
            "oldest_transaction_seconds": 0
        }))
        .unwrap()
    }

    fn shown(snapshot: Snapshot) -> String {
        shown_after(snapshot, Duration::ZERO)
    }

    fn shown_after(snapshot: Snapshot, age: Duration) -> String {
        let taken = Taken { snapshot, at: SystemTime::now() - age, took: Duration::from_millis(5) };
        page(&Seen { last: Some(Arc::new(taken)), ..Seen::default() })
    }

    const FLEET: &str = "018f0000-0000-7000-8000-000000000000";

    #[test]
    fn the_page_has_what_the_catalogue_promises_and_nothing_else() {
        let page = shown(snapshot(1, FLEET));
        let fleet = || CATALOGUE.iter().filter(|entry| entry.scope == Scope::Fleet);
        for entry in fleet() {
            let samples = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(entry.name));
            for sample in samples.clone() {
                for label in entry.labels {
                    let rest = sample.split(&format!("{}=\"", label.name)).nth(1).unwrap_or_else(|| panic!("{sample}"));
                    let value = rest.split('"').next().unwrap();
                    assert!(label.values.is_empty() || label.values.contains(&value), "{sample}");
                }
            }
            assert!(samples.count() > 0, "{} is missing", entry.name);
        }
        let described: Vec<&str> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(described.len(), fleet().count(), "{described:?}");
        assert!(page.contains("\nsystole_fleet_table_updates_total{table=\"runs\",hot=\"false\"} 1\n"), "{page}");
    }

    #[test]
    fn what_is_too_old_says_no_more_than_how_old_it_is() {
        let page = |age: u64| shown_after(snapshot(1, FLEET), Duration::from_secs(age));
        assert!(page(290).contains("\nsystole_fleet_crashes_ringing{host=\"h\"} 1\n"));
        let page = page(310);
        assert!(
            page.contains("\nsystole_fleet_snapshot_timestamp_seconds ") && !page.contains("systole_fleet_nodes"),
            "{page}"
        );
    }

    #[test]
    fn a_count_goes_back_only_with_another_database() {
        let mut later = snapshot(4, FLEET);
        later.keep_counts(&snapshot(5, FLEET));
        assert_eq!((later.crashes[0].count, later.takeovers["proof"], later.duplicates_refused), (5.0, 5.0, 5.0));
        later.keep_counts(&snapshot(9, "018f0000-0000-7000-8000-000000000001"));
        assert_eq!(later.duplicates_refused, 5.0);
    }
}
