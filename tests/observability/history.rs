//! Made-up histories of a fleet: every series of the catalogue, as a Prometheus would have scraped it.
//!
//! A target has a life (`world.rs`): when it was up, and what it measured. From that each series is integrated as its kind asks: a
//! gauge is what it is, a counter grows, a histogram counts into its buckets, and all begin anew with their process.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::catalogue::{CATALOGUE, Entry, Kind, Scope};
use crate::world::World;

/// Seconds between two scrapes.
pub(crate) const STEP: u32 = 15;

/// What a series does at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// A gauge's value.
    Level(f64),
    /// A counter's growth per second.
    Rate(f64),
    /// A histogram's observations per second, around a typical value.
    Around(f64, f64),
    /// Nothing: somebody else's, or nothing to say.
    Absent,
}

pub(crate) type Labels = BTreeMap<&'static str, String>;

/// A series, with a value or a gap for each step.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) values: Vec<Option<f64>>,
}

/// All that was scraped of this world.
pub(crate) fn scraped(world: &World) -> Vec<Series> {
    let mut all = Vec::new();
    for target in world.targets() {
        let times = || (0..world.steps).map(|step| f64::from(step * STEP));
        let base = Labels::from([("job", target.job.to_owned()), ("instance", target.instance.clone())]);
        let up = times().map(|t| world.is_seen(t).then(|| f64::from(u8::from(target.is_up(t))))).collect();
        all.push(Series { name: "up".to_owned(), labels: with_node(&base, &target.node), values: up });
        for entry in CATALOGUE.iter().filter(|entry| (entry.scope == Scope::Fleet) == target.is_exporter()) {
            for own in combinations(entry, world) {
                let mut labels = with_node(&base, &target.node);
                labels.extend(own.clone());
                let shapes: Vec<Option<Shape>> = times()
                    .map(|t| (world.is_seen(t) && target.is_up(t)).then(|| world.shape(entry, &own, &target, t)))
                    .collect();
                // What was counted before the first scrape, and begins at 0 with a new process.
                let before = if target.is_exporter() { 5.0 } else { 1000.0 };
                all.extend(integrated(entry, &labels, &shapes, before));
            }
        }
    }
    all.extend(world.alerts());
    all.retain(|series| series.values.iter().any(Option::is_some));
    all
}

fn with_node(base: &Labels, node: &Option<String>) -> Labels {
    let mut labels = base.clone();
    labels.extend(node.as_ref().map(|node| ("node", node.clone())));
    labels
}

/// Every combination of the values of an entry's labels.
fn combinations(entry: &Entry, world: &World) -> Vec<Labels> {
    let mut all = vec![Labels::new()];
    for label in entry.labels {
        let values: Vec<String> = match label.values {
            [] => world.names(label.name),
            closed => closed.iter().map(|value| (*value).to_owned()).collect(),
        };
        let with = |labels: &Labels, value: &String| {
            let mut labels = labels.clone();
            labels.insert(label.name, value.clone());
            labels
        };
        all = all.iter().flat_map(|labels| values.iter().map(move |value| with(labels, value))).collect();
    }
    all
}

fn integrated(entry: &Entry, labels: &Labels, shapes: &[Option<Shape>], before: f64) -> Vec<Series> {
    let series = |suffix: &str, le: Option<f64>, grows: &dyn Fn(Shape) -> Option<f64>, adds_up: bool| {
        let mut labels = labels.clone();
        labels.extend(le.map(|le| ("le", if le.is_finite() { le.to_string() } else { "+Inf".to_owned() })));
        let mut total = 0.0;
        let mut was_up = true;
        let mut values = Vec::new();
        for (step, shape) in shapes.iter().enumerate() {
            let Some(growth) = shape.map(grows) else {
                // Gone: the next process counts from nothing.
                (total, was_up) = (0.0, false);
                values.push(None);
                continue;
            };
            if step == 0 && was_up && adds_up && before > 5.0 && growth.is_some_and(|growth| growth > 0.0) {
                total = before * growth.unwrap_or_default();
            }
            values.push(growth.map(|growth| {
                total += growth * f64::from(STEP);
                if adds_up { total } else { growth }
            }));
        }
        Series { name: format!("{}{suffix}", entry.name), labels, values }
    };
    match entry.kind {
        Kind::Gauge => vec![series("", None, &|shape| value_of(shape), false)],
        Kind::Counter => vec![series("", None, &|shape| value_of(shape), true)],
        Kind::Histogram(bounds) => {
            let around = |shape| if let Shape::Around(rate, typical) = shape { Some((rate, typical)) } else { None };
            let below = |le: f64| move |shape| around(shape).map(|(rate, typical)| rate * share_below(le / typical));
            let buckets =
                bounds.iter().chain([&f64::INFINITY]).map(|le| series("_bucket", Some(*le), &below(*le), true));
            let count = series("_count", None, &|shape| around(shape).map(|(rate, _)| rate), true);
            let sum = series("_sum", None, &|shape| around(shape).map(|(rate, typical)| rate * typical), true);
            buckets.chain([count, sum]).collect()
        }
    }
}

fn value_of(shape: Shape) -> Option<f64> {
    match shape {
        Shape::Level(value) | Shape::Rate(value) => Some(value),
        Shape::Around(..) => panic!("only histograms observe"),
        Shape::Absent => None,
    }
}

/// The share of observations below this multiple of the typical one.
fn share_below(multiple: f64) -> f64 {
    if multiple.is_infinite() { 1.0 } else { multiple.powi(6) / (1.0 + multiple.powi(6)) }
}

fn braced(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(","))
}

/// What `promtool tsdb create-blocks-from openmetrics` reads.
pub(crate) fn openmetrics(all: &[Series], start: u64) -> String {
    let mut text = String::new();
    for Series { name, labels, values } in all {
        let labels = braced(labels);
        for (step, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let _ = writeln!(text, "{name}{labels} {value} {}", start + step as u64 * u64::from(STEP));
        }
    }
    text + "# EOF\n"
}

/// The same as `input_series` of `promtool test rules`.
pub(crate) fn input_series(all: &[Series]) -> String {
    let mut text = String::new();
    for Series { name, labels, values } in all {
        // What is no longer there is marked so at once, and not looked up for five minutes more.
        let value = |n: usize| match (n.checked_sub(1).and_then(|before| values[before]), values[n]) {
            (_, Some(value)) => value.to_string(),
            (Some(_), None) => "stale".to_owned(),
            (None, None) => "_".to_owned(),
        };
        let values: Vec<String> = (0..values.len()).map(value).collect();
        let _ = writeln!(text, "      - series: '{name}{}'\n        values: '{}'", braced(labels), shortened(&values));
    }
    text
}

/// `1 1 1` as `1x2`: the hour of a thousand series is read faster.
fn shortened(values: &[String]) -> String {
    let mut words = Vec::new();
    for run in values.chunk_by(|one, other| one == other) {
        words.push(match (run[0].as_str(), run.len()) {
            (value, 1) => value.to_owned(),
            ("_", times) => format!("_x{times}"),
            (value, times) => format!("{value}+0x{}", times - 1),
        });
    }
    words.join(" ")
}
