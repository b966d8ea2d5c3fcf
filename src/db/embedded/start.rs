//! Starts the server of a cluster that is made, whatever the last one left behind.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

use super::account::{Account, run};
use super::binaries::Binaries;
use super::cluster::Cluster;
use super::endpoint::Endpoint;
use super::error::{EmbeddedError, last_lines};
use super::folder::write_private;
use super::place::socket_dir;
use super::postmaster::{Postmaster, clear_stale, clear_stale_locks};

/// Recovery after a crash reads at most a gigabyte of log.
const START_BOUND: Duration = Duration::from_secs(30);

/// What the server logs when somebody took its port after we had found it free.
const PORT_LOST: &str = "could not create any TCP/IP sockets";

impl Cluster {
    /// Starts the server and waits until it accepts connections. Only under the lock.
    pub(super) fn start(&self, binaries: &Binaries, account: &Account) -> Result<Endpoint, EmbeddedError> {
        let begun = Instant::now();
        loop {
            // A killed command may have left a server behind that is still starting or ending, or still will.
            if let Some(postmaster) = Postmaster::running(&self.data()) {
                let ready = || self.reachable(account).is_some();
                self.wait(postmaster, "accept connections", begun, START_BOUND, ready)?;
            }
            if let Some(endpoint) = self.reachable(account) {
                return Ok(endpoint);
            }
            let left = START_BOUND.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(self.not_started(""));
            }
            clear_stale(&self.data(), account)?;
            clear_stale_locks(&socket_dir(&self.dir, account))?;
            let port = self.free_port(account)?;
            match self.pg_ctl_start(port, binaries, account, left) {
                Err(EmbeddedError::Program { output, .. }) if Postmaster::running(&self.data()).is_none() => {
                    let error = self.not_started(&output);
                    if !error.to_string().contains(PORT_LOST) {
                        return Err(error);
                    }
                }
                // It started, or another one was faster: look again.
                Ok(_) | Err(EmbeddedError::Program { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// pg_ctl gives the server a session of its own and /dev/null for stdin. `-o` goes through a shell, hence only
    /// characters that mean nothing there; the server sees its socket's folder from within its data folder.
    fn pg_ctl_start(
        &self,
        port: u16,
        binaries: &Binaries,
        account: &Account,
        bound: Duration,
    ) -> Result<String, EmbeddedError> {
        let log = self.dir.join("server.log");
        match fs::rename(&log, self.dir.join("server.log.1")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(EmbeddedError::io("move the old log", &log)(error));
            }
            _ => {}
        }
        let socket_dir = socket_dir(&self.dir, account);
        let socket_dir = if socket_dir.starts_with(&self.dir) { Path::new("../s") } else { &socket_dir };
        let options = format!("-p {port} -c unix_socket_directories={}", socket_dir.display());
        let mut command = account.command(&binaries.program("pg_ctl"), &self.dir);
        command.args(["start", "-D", "data", "-l", "server.log", "-w", "-s", "-o", &options]);
        command.args(["-t", &bound.as_secs().max(1).to_string()]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        run("pg_ctl start", &self.dir, command, "")
    }

    /// The port of the last start, or another one if that is taken. Between looking and using, somebody may take it.
    fn free_port(&self, account: &Account) -> Result<u16, EmbeddedError> {
        let path = self.dir.join("port");
        let kept = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        if let Some(port) = kept
            && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        {
            return Ok(port);
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| Ok(listener.local_addr()?.port()))
            .map_err(EmbeddedError::io("find a free port on 127.0.0.1 for", &self.dir))?;
        write_private(&path, &format!("{port}\n"), account)?;
        Ok(port)
    }

    fn not_started(&self, output: &str) -> EmbeddedError {
        let log = last_lines(&fs::read_to_string(self.dir.join("server.log")).unwrap_or_default());
        let words = if log.is_empty() { output } else { &log };
        let problem = format!(
            "did not start. The end of its server.log:\n{words}\nIf that does not say why, the disk may be full: then \
             make room"
        );
        EmbeddedError::Server { dir: self.dir.clone(), problem }
    }
}
