//! Which faults cannot be injected on this machine, or in a database that is somebody else's.

use std::collections::BTreeMap;

use super::fleet::Fleet;
use super::plan::Kind;
use super::server::Server;

/// The kinds that cannot be injected here, and why.
pub(super) fn obstacles(server: &Server, fleet: &Fleet, no_network: Option<&str>) -> BTreeMap<Kind, String> {
    let not_ours = "takes the server's own process, and a database that was given is left running";
    let no_namespace = "takes PID namespaces: nothing less ends a tree that has lost supervisor and guard at once";
    let mut obstacles = BTreeMap::new();
    if server.clock().is_none() {
        obstacles.insert(Kind::ClockStepped, "takes libfaketime (package libfaketime)".to_owned());
    }
    if server.own.is_none() {
        let kinds = [Kind::BackendKilled, Kind::PostmasterKilled, Kind::FailedOver, Kind::ClockStepped];
        obstacles.extend(kinds.map(|kind| (kind, not_ours.to_owned())));
    }
    if let Some(reason) = no_network {
        obstacles.extend([Kind::CutOff, Kind::CutOffBriefly, Kind::DiskFull].map(|kind| (kind, reason.to_owned())));
    }
    if !fleet.has_pid_namespaces() {
        obstacles.extend([Kind::NodeAndGuardsKilled, Kind::HostLost].map(|kind| (kind, no_namespace.to_owned())));
    }
    obstacles
}
