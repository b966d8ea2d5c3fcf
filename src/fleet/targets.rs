//! Whom Prometheus is to scrape (`http_sd_configs`): the nodes that have said where their metrics are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::Serialize;

use super::snapshot::{Node, Snapshot};

#[derive(Serialize)]
struct Group<'a> {
    targets: [&'a str; 1],
    labels: BTreeMap<&'static str, &'a str>,
}

/// The list as JSON, for a Prometheus on `host`. A node that has died stays in it for an hour, so that its absence is seen.
///
/// Left out is who answers only on another machine's 127.0.0.1: what answers there here is somebody else.
pub(super) fn targets(snapshot: &Snapshot, host: &str) -> String {
    let can_be_reached = |node: &&Node| {
        let address = node.http_address.as_ref();
        address.is_some_and(|address| node.host == host || !is_loopback(address))
    };
    let mut nodes: Vec<&Node> = snapshot.nodes.iter().filter(can_be_reached).collect();
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

fn is_loopback(address: &str) -> bool {
    let is_loopback = |socket: SocketAddr| socket.ip().is_loopback();
    address.parse().is_ok_and(is_loopback) || address.starts_with("localhost:")
}
