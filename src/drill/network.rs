//! The cables between the hosts and the server's machine: a pair of network devices each, made by `ip`.

use std::process::{Command, Stdio};

use super::error::DrillError;
use super::host::Host;

/// The server's address, the same from everywhere. Of a range that is set apart for trials (RFC 2544), and seen by nobody
/// outside of the namespaces.
pub(super) const SERVER_ADDRESS: &str = "198.18.0.1";

/// The network in whose middle the server is.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) middle: Host,
}

/// Why hosts cannot have networks of their own here; `None` if they can.
pub(super) fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("takes root, for network namespaces".to_owned());
    }
    let asked = Command::new("ip").arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match asked {
        Ok(status) if status.success() => {}
        _ => return Some("takes the program ip (package iproute2)".to_owned()),
    }
    Host::start("trial", true).err().map(|error| format!("takes namespaces, which are refused here: {error}"))
}

impl Network {
    pub(super) fn make() -> Result<Network, DrillError> {
        let middle = Host::start("server", true)?;
        middle.ip("link set lo up")?;
        middle.ip(&format!("addr add {SERVER_ADDRESS}/32 dev lo"))?;
        Ok(Network { middle })
    }

    /// Gives host `number`, counted from 0, its cable.
    pub(super) fn plug_in(&self, host: &Host, number: usize) -> Result<(), DrillError> {
        let (net, thread) = (number + 1, host.thread_id().as_raw_nonzero());
        self.middle.ip(&format!("link add {} type veth peer name e0 netns {thread}", cable(number)))?;
        self.middle.ip(&format!("addr add 198.18.{net}.1/24 dev {}", cable(number)))?;
        self.middle.ip(&format!("link set {} up", cable(number)))?;
        host.ip("link set lo up")?;
        host.ip(&format!("addr add 198.18.{net}.2/24 dev e0"))?;
        host.ip("link set e0 up")?;
        host.ip(&format!("route add {SERVER_ADDRESS} via 198.18.{net}.1"))
    }

    /// Pulls the cable: from then on both ends send into nothing, and hear nothing.
    pub(super) fn cut(&self, number: usize) -> Result<(), DrillError> {
        self.middle.ip(&format!("link set {} down", cable(number)))
    }

    pub(super) fn mend(&self, number: usize) -> Result<(), DrillError> {
        self.middle.ip(&format!("link set {} up", cable(number)))
    }
}

fn cable(number: usize) -> String {
    format!("host{}", number + 1)
}
