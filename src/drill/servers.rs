//! The private servers of a drill: a primary that may be killed, and a standby that takes its place.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;

use super::clock::Clock;
use super::error::DrillError;
use super::host::Host;
use super::network::{Network, SERVER_ADDRESS};
use crate::db::embedded::{Cluster, EmbeddedError, Endpoint, Options, StopMode};

/// Where they are in the folder of the drill.
pub(super) const FOLDERS: [&str; 2] = ["postgres-1", "postgres-2"];

/// Two clusters. Each promotion swaps them, and the one that was killed is made anew.
#[derive(Debug)]
pub(super) struct Servers {
    clusters: [Cluster; 2],
    primary: usize,
    /// Becomes true when the other one follows.
    following: Option<JoinHandle<bool>>,
    follows: bool,
    pub(super) network: Option<Network>,
    /// Both have the same, if it can be set.
    pub(super) clock: Option<Clock>,
}

/// How both are reached, whichever serves.
pub(super) struct Ways {
    /// By their sockets.
    pub(super) local: String,
    /// For nodes and probes.
    pub(super) remote: String,
}

impl Servers {
    /// Makes and starts both below `folder`; with a network, in the middle of that. Blocks for some seconds.
    pub(super) fn start(folder: &Path, network: Option<Network>) -> Result<(Servers, Ways), DrillError> {
        let clock = Clock::find(folder);
        let environment = clock.as_ref().map(Clock::environment).unwrap_or_default();
        let cluster = |name: &str| Cluster::at(folder.join(name)).with(Options { durable: false });
        let clusters = FOLDERS.map(|name| cluster(name).with_environment(environment.clone()));
        let [one, two] = &clusters;
        let middle = network.as_ref().map(|network| &network.middle);
        start(one, middle)?;
        let data = folder.join(FOLDERS[0]).join("data");
        // The last of two words about a setting counts. A standby that looks for its primary once in 5 s would be that far behind.
        append(&data.join("postgresql.conf"), "wal_retrieve_retry_interval = '100ms'\n")?;
        if network.is_some() {
            append(&data.join("postgresql.conf"), &format!("listen_addresses = '127.0.0.1,{SERVER_ADDRESS}'\n"))?;
            append(&data.join("pg_hba.conf"), "host all all 198.18.0.0/15 scram-sha-256\n")?;
        }
        one.stop(StopMode::Fast)?;
        let first = start(one, middle)?;
        two.follow(one)?;
        let second = start(two, middle)?;
        let ways = ways([&first, &second], network.is_some())?;
        Ok((Servers { clusters, primary: 0, following: None, follows: true, network, clock }, ways))
    }

    fn primary(&self) -> &Cluster {
        &self.clusters[self.primary]
    }

    fn standby(&self) -> &Cluster {
        &self.clusters[1 - self.primary]
    }

    /// Starts the primary, if it does not run. Blocks.
    pub(super) fn restart(&self) -> Result<(), DrillError> {
        start(self.primary(), self.network.as_ref().map(|network| &network.middle)).map(drop).map_err(DrillError::from)
    }

    /// kill -9 of the primary's postmaster.
    pub(super) fn kill(&self) -> Result<(), DrillError> {
        if let Some(pid) = self.primary().status()?.running.and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        Ok(())
    }

    /// Makes the standby anew, unless that is being done: a primary that is killed meanwhile leaves it unfinished.
    pub(super) fn follow_anew(&mut self) {
        self.following.take_if(|following| following.is_finished());
        self.follow_again();
    }

    /// From here on commits get lost with the primary. False if it has no standby yet.
    pub(super) async fn deafen(&mut self) -> Result<bool, DrillError> {
        if let Some(following) = self.following.take_if(|following| following.is_finished()) {
            self.follows = following.await.unwrap_or(false);
        }
        if self.follows {
            self.standby().deafen()?;
        } else {
            self.follow_again();
        }
        Ok(self.follows)
    }

    /// kill -9 of the primary, and the other one takes its place. Blocks.
    pub(super) fn fail_over(&mut self) -> Result<(), DrillError> {
        self.kill()?;
        self.standby().promote()?;
        self.primary = 1 - self.primary;
        self.follows = false;
        self.follow_again();
        Ok(())
    }

    /// Makes the one that was killed anew, aside. If the primary is killed meanwhile, it does not come about.
    fn follow_again(&mut self) {
        if self.following.is_some() {
            return;
        }
        let (standby, primary) = (self.standby().clone(), self.primary().clone());
        let middle = self.network.as_ref().map(|network| network.middle.clone());
        self.following = Some(tokio::task::spawn_blocking(move || {
            let followed = standby.stop(StopMode::Immediate).and_then(|()| standby.follow(&primary));
            followed.and_then(|()| start(&standby, middle.as_ref())).is_ok()
        }));
    }
}

/// In the middle of its network.
fn start(cluster: &Cluster, middle: Option<&Host>) -> Result<Endpoint, EmbeddedError> {
    let cluster = cluster.clone();
    let start = move || cluster.ensure_running();
    match middle {
        Some(middle) => middle.run(start),
        None => start(),
    }
}

fn ways(endpoints: [&Endpoint; 2], has_network: bool) -> Result<Ways, DrillError> {
    let [one, two] = endpoints.map(Endpoint::url);
    let (_, second) = two.split_once("?host=").expect("by a socket");
    let (rest, first) = one.split_once("?host=").expect("by a socket");
    let ((host_1, port_1), (host_2, port_2)) = (by_port(first), by_port(second));
    let local = format!("{rest}?host={host_1},{host_2}&port={port_1},{port_2}");
    if !has_network {
        return Ok(Ways { remote: local.clone(), local });
    }
    let remote = endpoints[0].tcp_url_with_password()?;
    let both = format!("{SERVER_ADDRESS}:{port_1},{SERVER_ADDRESS}:{port_2}");
    // Between namespaces of one machine there is nobody to listen.
    let remote = format!("{}?sslmode=disable", remote.replace(&format!("127.0.0.1:{port_1}"), &both));
    Ok(Ways { local, remote })
}

fn by_port(way: &str) -> (&str, &str) {
    way.split_once("&port=").expect("with a port")
}

fn append(file: &Path, text: &str) -> Result<(), DrillError> {
    let written = OpenOptions::new().append(true).open(file).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(DrillError::at(format!("write {}", file.display())))
}
