//! The servers that a connection string names, and how much of TLS each is owed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::conninfo::{Conninfo, InvalidTarget};
use super::tls::{Mode, Tls};

/// Where Debian's and most other servers put their socket.
const SOCKET_FOLDER: &str = "/var/run/postgresql";

/// One server.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) place: Place,
    pub(super) port: u16,
    pub(super) mode: Mode,
    /// What a passfile calls it.
    pub(super) in_passfiles: String,
}

#[derive(Debug, Clone)]
pub(super) enum Place {
    Tcp { host: String, address: Option<IpAddr> },
    Unix(PathBuf),
}

/// Every server that is named, or the one of this machine.
pub(super) fn endpoints(conninfo: &Conninfo, tls: &Tls) -> Result<Vec<Endpoint>, InvalidTarget> {
    let (hosts, addresses) = (conninfo.list("host"), conninfo.list("hostaddr"));
    let ports = conninfo.list("port");
    let count = hosts.len().max(addresses.len()).max(1);
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(conninfo.refuse("hostaddr", &addresses.join(","), "one address for each host"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(conninfo.refuse("port", &ports.join(","), "one port, or one for each host"));
    }
    (0..count)
        .map(|n| {
            let host = hosts.get(n).copied().filter(|host| !host.is_empty());
            let address = match addresses.get(n).copied().filter(|address| !address.is_empty()) {
                Some(text) => Some(
                    text.parse::<IpAddr>()
                        .map_err(|_| conninfo.refuse("hostaddr", text, "an IP address such as 10.0.0.7"))?,
                ),
                None => None,
            };
            let port = match ports.get(n).or(ports.first()).copied().filter(|port| !port.is_empty()) {
                Some(text) => text
                    .parse()
                    .ok()
                    .filter(|port| *port != 0)
                    .ok_or_else(|| conninfo.refuse("port", text, "a number from 1 to 65535"))?,
                None => 5432,
            };
            let place = match (host, address) {
                (Some(path), None) if path.starts_with('/') => Place::Unix(PathBuf::from(path)),
                // As in libpq, an address is nearer than a socket; and no certificate is for a path.
                (Some(path), Some(address)) if path.starts_with('/') => {
                    Place::Tcp { host: address.to_string(), address: Some(address) }
                }
                (Some(name), address) => Place::Tcp { host: name.to_owned(), address: address.or(name.parse().ok()) },
                (None, Some(address)) => Place::Tcp { host: address.to_string(), address: Some(address) },
                (None, None) if Path::new(SOCKET_FOLDER).is_dir() => Place::Unix(PathBuf::from(SOCKET_FOLDER)),
                (None, None) => Place::Tcp { host: "localhost".to_owned(), address: None },
            };
            // As in libpq: the host as it is written, else the address; and the usual socket is localhost, but no other one.
            let in_passfiles = match (host, address) {
                (Some(host), _) if host != SOCKET_FOLDER => host.to_owned(),
                (None, Some(address)) => address.to_string(),
                (Some(_), _) | (None, None) => "localhost".to_owned(),
            };
            let mut endpoint = Endpoint { place, port, mode: Mode::Disable, in_passfiles };
            endpoint.mode = match &endpoint.place {
                // There is none on a socket.
                Place::Unix(_) => Mode::Disable,
                Place::Tcp { .. } if endpoint.is_local() => tls.mode.unwrap_or(Mode::Prefer),
                Place::Tcp { .. } => tls.mode.unwrap_or(Mode::VerifyFull),
            };
            Ok(endpoint)
        })
        .collect()
}

impl Endpoint {
    /// Whether what is sent there stays on this machine.
    pub(super) fn is_local(&self) -> bool {
        match &self.place {
            Place::Unix(_) => true,
            Place::Tcp { host, address } => {
                let named_so = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|named| named.is_loopback());
                // Another name for an address of this machine is the name of whoever a tunnel leads to.
                named_so && address.is_none_or(|address| address.is_loopback())
            }
        }
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        let port = self.port;
        match &self.place {
            Place::Tcp { host, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Place::Tcp { host, .. } => format!("{host}:{port}"),
            Place::Unix(path) => format!("{}/.s.PGSQL.{port}", path.display()),
        }
    }
}
