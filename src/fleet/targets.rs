//! Whom Prometheus is to scrape (`http_sd_configs`): the nodes that have said where their metrics are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::snapshot::{Node, Snapshot};

#[derive(Serialize)]
struct Group<'a> {
    targets: [&'a str; 1],
    labels: BTreeMap<&'static str, &'a str>,
}

/// The list as JSON. A node that has died stays in it for an hour, so that its absence is seen.
pub(super) fn targets(snapshot: &Snapshot) -> String {
    let mut nodes: Vec<&Node> = snapshot.nodes.iter().filter(|node| node.http_address.is_some()).collect();
    // Who has died and came back by another name has the same address.
    nodes.sort_by_key(|node| node.state);
    let mut seen = BTreeSet::new();
    let groups: Vec<Group<'_>> = nodes
        .into_iter()
        .filter_map(|node| {
            let address = node.http_address.as_deref().filter(|address| seen.insert(*address))?;
            let mut labels = BTreeMap::from([("node", node.name.as_str())]);
            labels.extend(node.zone.as_deref().map(|zone| ("zone", zone)));
            Some(Group { targets: [address], labels })
        })
        .collect();
    serde_json::to_string(&groups).expect("texts are JSON")
}
