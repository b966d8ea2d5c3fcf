//! What is counted by: made from the catalogue, shared by all parts of a process, and nothing at all where nobody looks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use prometheus::core::Collector;
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry, TextEncoder};

use super::catalogue::{CATALOGUE, Entry, Family, Kind, Scope};

/// How many queues have series of their own: what more a node serves is told together.
const QUEUES_MAX: usize = 50;
const OTHER_QUEUES: &str = "_other";

/// Counts, or does not: `systole run` and programs with a library lease have one that costs a branch. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Metrics(Option<Arc<Counting>>);

struct Counting {
    registry: Registry,
    /// In the order of the catalogue; none for what a node does not count.
    families: Vec<Option<Series>>,
    queues: Vec<String>,
}

enum Series {
    Counter(CounterVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Metrics" } else { "no Metrics" })
    }
}

impl Metrics {
    /// Those of a node that serves these queues.
    pub(crate) fn of_node(queues: &[String]) -> Metrics {
        let mut own: Vec<String> = queues.iter().take(QUEUES_MAX).cloned().collect();
        if queues.len() > QUEUES_MAX {
            own.push(OTHER_QUEUES.to_owned());
        }
        let registry = Registry::new();
        let families = CATALOGUE.iter().map(|entry| {
            let series = (entry.scope == Scope::Node).then(|| Series::of(entry))?;
            registry.register(series.collector()).expect("names are unique, and well formed");
            series.create(entry, &own);
            Some(series)
        });
        let families = families.collect();
        #[cfg(target_os = "linux")]
        let process = prometheus::process_collector::ProcessCollector::for_self();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(process)).expect("no name of the catalogue begins like those of processes");
        let metrics = Metrics(Some(Arc::new(Counting { registry, families, queues: own })));
        metrics.set(Family::BuildInfo, [env!("CARGO_PKG_VERSION")], 1.0);
        metrics
    }

    /// One more.
    pub(crate) fn count<const N: usize>(&self, family: Family, labels: [&str; N]) {
        self.add(family, labels, 1.0);
    }

    /// More of a counter, or more or less of a gauge.
    pub(crate) fn add<const N: usize>(&self, family: Family, labels: [&str; N], more: f64) {
        self.with(family, labels, |series, labels| match series {
            Series::Counter(counter) => counter.with_label_values(labels).inc_by(more),
            Series::Gauge(gauge) => gauge.with_label_values(labels).add(more),
            Series::Histogram(_) => debug_assert!(false, "{family:?} is observed"),
        });
    }

    /// The value of a gauge.
    pub(crate) fn set<const N: usize>(&self, family: Family, labels: [&str; N], value: f64) {
        self.with(family, labels, |series, labels| match series {
            Series::Gauge(gauge) => gauge.with_label_values(labels).set(value),
            Series::Counter(_) | Series::Histogram(_) => debug_assert!(false, "{family:?} is no gauge"),
        });
    }

    /// 1 for this value of the family's last label, and 0 for all others.
    pub(crate) fn set_state<const N: usize>(&self, family: Family, mut labels: [&str; N]) {
        let state = labels[N - 1];
        for value in family.entry().labels[N - 1].values {
            labels[N - 1] = value;
            self.set(family, labels, if *value == state { 1.0 } else { 0.0 });
        }
    }

    /// That it was now, by this host's clock.
    pub(crate) fn set_now<const N: usize>(&self, family: Family, labels: [&str; N]) {
        if self.0.is_some() {
            self.set(family, labels, Utc::now().timestamp_micros() as f64 / 1e6);
        }
    }

    /// One more of this size.
    pub(crate) fn observe<const N: usize>(&self, family: Family, labels: [&str; N], value: f64) {
        self.with(family, labels, |series, labels| match series {
            Series::Histogram(histogram) => histogram.with_label_values(labels).observe(value),
            Series::Counter(_) | Series::Gauge(_) => debug_assert!(false, "{family:?} is no histogram"),
        });
    }

    /// One more that took this long.
    pub(crate) fn took<const N: usize>(&self, family: Family, labels: [&str; N], span: Duration) {
        self.observe(family, labels, span.as_secs_f64());
    }

    /// A round of a loop has taken this long; `is_well` if it did its work without trouble.
    pub(crate) fn round(&self, name: &'static str, span: Duration, is_well: bool) {
        self.took(Family::LoopDuration, [name], span);
        if is_well {
            self.set_now(Family::LoopLastSuccess, [name]);
        }
    }

    /// All of it in Prometheus' text format.
    pub(crate) fn text(&self) -> String {
        let gathered = self.0.as_deref().map(|counting| counting.registry.gather()).unwrap_or_default();
        TextEncoder::new().encode_to_string(&gathered).expect("text can be written into a text")
    }

    fn with<const N: usize>(&self, family: Family, labels: [&str; N], act: impl FnOnce(&Series, &[&str])) {
        let Some(counting) = self.0.as_deref() else { return };
        let Some(series) = &counting.families[family as usize] else {
            return debug_assert!(false, "{family:?} is not a node's");
        };
        let mut labels = labels.map(|label| label);
        for (label, value) in family.entry().labels.iter().zip(&mut labels) {
            debug_assert!(label.values.is_empty() || label.values.contains(value), "{family:?} has no {value:?}");
            if label.name == "queue" && !counting.queues.iter().any(|own| own == value) {
                // Who serves one queue has it from there, whatever else is not known of it.
                *value = if let [only] = &counting.queues[..] { only } else { OTHER_QUEUES };
            }
        }
        act(series, &labels);
    }
}

impl Series {
    fn of(entry: &Entry) -> Series {
        let opts = Opts::new(entry.name, entry.help);
        let labels: Vec<&str> = entry.labels.iter().map(|label| label.name).collect();
        let series = match entry.kind {
            Kind::Counter => CounterVec::new(opts, &labels).map(Series::Counter),
            Kind::Gauge => GaugeVec::new(opts, &labels).map(Series::Gauge),
            Kind::Histogram(bounds) => {
                let opts = HistogramOpts::from(opts).buckets(bounds.to_vec());
                HistogramVec::new(opts, &labels).map(Series::Histogram)
            }
        };
        series.expect("the catalogue has well-formed names")
    }

    fn collector(&self) -> Box<dyn Collector> {
        match self {
            Series::Counter(counter) => Box::new(counter.clone()),
            Series::Gauge(gauge) => Box::new(gauge.clone()),
            Series::Histogram(histogram) => Box::new(histogram.clone()),
        }
    }

    /// Every combination of values that is known from the start.
    fn create(&self, entry: &Entry, queues: &[String]) {
        let mut combinations: Vec<Vec<&str>> = vec![Vec::new()];
        for label in entry.labels {
            let known: Vec<&str> = match label.name {
                "queue" => queues.iter().map(String::as_str).collect(),
                _ => label.values.to_vec(),
            };
            combinations = combinations
                .iter()
                .flat_map(|shorter| known.iter().map(move |value| [shorter.as_slice(), &[*value]].concat()))
                .collect();
        }
        for labels in combinations {
            match self {
                Series::Counter(counter) => drop(counter.with_label_values(&labels)),
                Series::Gauge(gauge) => drop(gauge.with_label_values(&labels)),
                Series::Histogram(histogram) => drop(histogram.with_label_values(&labels)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(text: &str) -> usize {
        text.lines().filter(|line| !line.starts_with('#')).count()
    }

    #[test]
    fn what_nobody_looks_at_costs_nothing_and_says_nothing() {
        let metrics = Metrics::default();
        metrics.count(Family::ChildStarts, []);
        assert_eq!(metrics.text(), "");
    }

    #[test]
    fn all_that_is_known_is_there_from_the_start() {
        let text = Metrics::of_node(&["default".to_owned()]).text();
        for line in [
            "systole_heartbeats_total{result=\"timeout\"} 0\n",
            "systole_runs_claimed_total{kind=\"takeover\",queue=\"default\"} 0\n",
            "systole_run_duration_seconds_bucket{queue=\"default\",le=\"+Inf\"} 0\n",
            "systole_child_starts_total 0\n",
            "process_resident_memory_bytes ",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        for entry in CATALOGUE.iter().filter(|entry| entry.scope != Scope::Fleet) {
            assert!(text.contains(&format!("# TYPE {} ", entry.name)), "{}", entry.name);
        }
        assert!(series(&text) <= 300, "{} series of a node with one queue", series(&text));
    }

    #[test]
    fn a_node_with_many_queues_tells_of_fifty() {
        let queues: Vec<String> = (0..60).map(|n| format!("q{n}")).collect();
        let metrics = Metrics::of_node(&queues);
        let before = series(&metrics.text());
        for queue in &queues {
            metrics.count(Family::RunsFinished, [queue, "completed"]);
        }
        let text = metrics.text();
        assert_eq!(series(&text), before);
        assert!(text.contains("systole_runs_finished_total{outcome=\"completed\",queue=\"q49\"} 1\n"));
        assert!(text.contains("systole_runs_finished_total{outcome=\"completed\",queue=\"_other\"} 10\n"));
    }

    #[test]
    fn whatever_a_node_of_one_queue_does_is_from_that_one() {
        let metrics = Metrics::of_node(&["q".to_owned()]);
        metrics.count(Family::RunsFinished, ["", "completed"]);
        assert!(metrics.text().contains("systole_runs_finished_total{outcome=\"completed\",queue=\"q\"} 1\n"));
    }

    #[test]
    fn a_scrape_is_cheap_however_much_was_counted() {
        let queues: Vec<String> = (0..60).map(|n| format!("q{n}")).collect();
        let metrics = Metrics::of_node(&queues);
        for n in 0..1000 {
            let queue = queues[n % queues.len()].as_str();
            metrics.add(Family::RunsRunning, [queue], 1.0);
            metrics.observe(Family::RunQueueWait, [queue], n as f64);
            metrics.observe(Family::LeaseUsed, [], n as f64 / 1000.0);
        }
        let scrape = || {
            let begun = std::time::Instant::now();
            assert!(metrics.text().len() > 10_000);
            begun.elapsed()
        };
        // Not optimised, and with fifty queues instead of one. The best of them is what it costs; the others were interrupted.
        let best = (0..50).map(|_| scrape()).min().unwrap();
        assert!(best < Duration::from_millis(20), "{best:?}");
    }

    #[test]
    fn one_state_at_a_time() {
        let metrics = Metrics::of_node(&[]);
        metrics.set_state(Family::OwnState, ["starting"]);
        metrics.set_state(Family::OwnState, ["ready"]);
        let text = metrics.text();
        assert!(text.contains("systole_node_state{state=\"ready\"} 1\n"), "{text}");
        assert!(text.contains("systole_node_state{state=\"starting\"} 0\n"), "{text}");
    }
}
