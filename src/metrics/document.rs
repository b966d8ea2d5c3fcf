//! The catalogue for people.

use std::fmt::Write;

use super::catalogue::{CATALOGUE, Entry, Kind, Label, Scope};

/// What `docs/metrics.md` says.
pub(crate) fn document() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Written by `systole metrics` from the one table in the code (`src/metrics/catalogue.rs`). How to scrape and what to\n\
         watch: [monitoring.md](monitoring.md).\n\n\
         Labels with a closed set have all of their values from the start, at 0. `queue` is one of the queues that a node serves,\n\
         the 50 first of them; the rest are `_other`. `node` is the name of a node (`--name`), `host` that of the host of an\n\
         executor. `systole run` exports nothing: what it does is seen in the fleet's metrics.\n",
    );
    let parts = [
        (Scope::Node, "Of a node: `/metrics`"),
        (Scope::Process, "Of its process: `/metrics` too"),
        (Scope::Fleet, "Of the fleet: `/metrics/fleet`"),
    ];
    for (scope, title) in parts {
        let _ = write!(text, "\n## {title}\n\n| name | kind | labels | what it says |\n|---|---|---|---|\n");
        for entry in CATALOGUE.iter().filter(|entry| entry.scope == scope) {
            let Entry { name, kind, labels, help, .. } = entry;
            let labels: Vec<String> = labels.iter().map(described).collect();
            let _ = writeln!(text, "| `{name}` | {} | {} | {help} |", word(*kind), labels.join("; "));
        }
    }
    text
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    }
}

fn described(label: &Label) -> String {
    match label.values {
        [] => format!("`{}`", label.name),
        values => format!("`{}`: {}", label.name, values.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_is_that_of_this_catalogue() {
        let written = std::fs::read_to_string("docs/metrics.md").unwrap();
        assert!(written == super::document(), "write it anew: cargo run -- metrics > docs/metrics.md");
    }
}
