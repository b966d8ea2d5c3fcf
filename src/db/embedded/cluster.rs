//! The cluster and its verbs: run, stop, tell.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::account::{Account, run};
use super::binaries::Binaries;
use super::create::create_if_missing;
use super::endpoint::Endpoint;
use super::error::{EmbeddedError, last_lines};
use super::folder::{self, Standing, socket_dir, write_private};
use super::postmaster::{Postmaster, clear_stale};

/// Another process may be making the cluster (a second, on a slow disk ten) and starting it (at most [`START_BOUND`]).
const LOCK_BOUND: Duration = Duration::from_secs(60);
/// Recovery after a crash reads at most a gigabyte of log.
const START_BOUND: Duration = Duration::from_secs(30);
/// A fast stop writes a checkpoint first.
const STOP_BOUND: Duration = Duration::from_secs(60);
/// How often to look while waiting.
const LOOK: Duration = Duration::from_millis(10);

/// A private cluster in a folder, be it made already or not.
#[derive(Debug, Clone)]
pub struct Cluster {
    dir: PathBuf,
    options: Options,
}

/// What is decided when a cluster is made; one that exists stays as it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Whether commits survive a power failure. Tests do without, and are faster by the disk's flushes.
    pub durable: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { durable: true }
    }
}

/// How to end the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// End sessions, write a checkpoint, end.
    Fast,
    /// End at once; the next start recovers from the log.
    Immediate,
}

/// What there is, without changing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The server's process id, if it runs.
    pub running: Option<i32>,
    /// The folder of the cluster.
    pub dir: PathBuf,
    /// How to connect, if the server accepts connections.
    pub endpoint: Option<Endpoint>,
    /// The major version that made the cluster, if it was made.
    pub version: Option<String>,
}

impl Cluster {
    /// The cluster in `dir`, a folder of its own.
    pub fn at(dir: PathBuf) -> Cluster {
        // It fails only for an empty path, or without a current folder; then the first use says so.
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        Cluster { dir, options: Options::default() }
    }

    /// The one cluster of this user: in `SYSTOLE_EMBEDDED_DIR`, as root in /var/lib, else in the user's data folder.
    pub fn of_this_user() -> Result<Cluster, EmbeddedError> {
        folder::of_this_user().map(Cluster::at)
    }

    /// The same cluster, made with these options if it is not made yet.
    pub fn with(self, options: Options) -> Cluster {
        Cluster { options, ..self }
    }

    /// Makes sure that the server runs and accepts connections; makes the cluster first if there is none.
    ///
    /// Costs a few system calls if it runs, some 0.2 s if it must be started, a second if it must be made. Blocks for
    /// at most 60 s behind other processes and 30 s for the start, and as long as initdb needs. It may lose a race
    /// with a server that is just being ended: a refused connection afterwards is a reason to call again.
    pub fn ensure_running(&self) -> Result<Endpoint, EmbeddedError> {
        let account = Account::of_the_server()?;
        if let Some(endpoint) = self.reachable(&account) {
            return Ok(endpoint);
        }
        folder::prepare(&self.dir, &account)?;
        let _lock = self.lock(&account)?;
        // Whoever held the lock before us may have done it all.
        if let Some(endpoint) = self.reachable(&account) {
            return Ok(endpoint);
        }
        let binaries = Binaries::find(&account)?;
        create_if_missing(&self.dir, &binaries, &account, self.options)?;
        folder::prepare_socket_dir(&self.dir, &account)?;
        self.start(&binaries, &account)
    }

    /// Ends the server and waits until it has ended; at most 60 s for other processes and 60 s for the server.
    pub fn stop(&self, mode: StopMode) -> Result<(), EmbeddedError> {
        let account = Account::of_the_server()?;
        if folder::examine(&self.dir, &account)? != Standing::Private {
            return Ok(());
        }
        let _lock = self.lock(&account)?;
        let Some(postmaster) = Postmaster::running(&self.data()) else { return Ok(()) };
        let signal = match mode {
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        };
        // It may have ended by itself since; the wait tells.
        let _ = kill_process(postmaster.pid, signal);
        self.wait(postmaster, "end", Instant::now(), STOP_BOUND, || false)
    }

    /// Looks, and changes nothing.
    pub fn status(&self) -> Result<Status, EmbeddedError> {
        let account = Account::of_the_server()?;
        folder::examine(&self.dir, &account)?;
        Ok(Status {
            running: Postmaster::running(&self.data()).map(|postmaster| postmaster.pid.as_raw_nonzero().get()),
            dir: self.dir.clone(),
            endpoint: self.reachable(&account),
            version: fs::read_to_string(self.data().join("PG_VERSION")).ok().map(|version| version.trim().to_owned()),
        })
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// The endpoint, if something accepts there; without locks or child processes.
    ///
    /// What the folders say can be believed only while nobody else can write in them.
    fn reachable(&self, account: &Account) -> Option<Endpoint> {
        let socket_dir = socket_dir(&self.dir, account);
        let private = |dir: &Path| folder::examine(dir, account).is_ok_and(|standing| standing == Standing::Private);
        if !private(&self.dir) || !private(&socket_dir) {
            return None;
        }
        let postmaster = Postmaster::recorded(&self.data()).filter(|postmaster| postmaster.ready)?;
        let endpoint = Endpoint::new(&self.dir, socket_dir, postmaster.port?);
        UnixStream::connect(endpoint.socket()).ok()?;
        Some(endpoint)
    }

    fn lock(&self, account: &Account) -> Result<File, EmbeddedError> {
        let path = self.dir.join(folder::LOCK);
        let lock = folder::open_lock(&self.dir, account).map_err(EmbeddedError::io("open", &path))?;
        let asked = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) if asked.elapsed() < LOCK_BOUND => thread::sleep(LOOK),
                Err(TryLockError::WouldBlock) => return Err(EmbeddedError::Busy { lock: path, after: LOCK_BOUND }),
                Err(TryLockError::Error(error)) => return Err(EmbeddedError::io("lock", &path)(error)),
            }
        }
    }

    fn start(&self, binaries: &Binaries, account: &Account) -> Result<Endpoint, EmbeddedError> {
        let begun = Instant::now();
        let mut tail = String::new();
        while begun.elapsed() < START_BOUND {
            // A killed command may have left a server behind that is still starting or ending, or still will.
            if let Some(postmaster) = Postmaster::running(&self.data()) {
                let ready = || self.reachable(account).is_some();
                self.wait(postmaster, "accept connections", begun, START_BOUND, ready)?;
            }
            if let Some(endpoint) = self.reachable(account) {
                return Ok(endpoint);
            }
            clear_stale(&self.data())?;
            let port = self.free_port(account)?;
            let failed = self.pg_ctl_start(port, binaries, account, START_BOUND.saturating_sub(begun.elapsed())).err();
            let lost_the_race = Postmaster::running(&self.data()).is_some();
            match failed {
                Some(EmbeddedError::Program { output, .. }) if !lost_the_race => {
                    tail = last_lines(&fs::read_to_string(self.log()).unwrap_or_default());
                    if tail.is_empty() {
                        tail = output;
                    }
                    // Somebody took the port after we had found it free. Anything else would happen again.
                    if !tail.contains("could not create any TCP/IP sockets") {
                        break;
                    }
                }
                Some(EmbeddedError::Program { .. }) | None => {}
                Some(error) => return Err(error),
            }
        }
        Err(EmbeddedError::NotStarted { dir: self.dir.clone(), bound: START_BOUND, tail })
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
        let log = self.log();
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

    /// Waits until `done`, or until another server or none runs here.
    fn wait(
        &self,
        seen: Postmaster,
        expected: &'static str,
        since: Instant,
        bound: Duration,
        done: impl Fn() -> bool,
    ) -> Result<(), EmbeddedError> {
        let still_runs = || Postmaster::running(&self.data()).is_some_and(|postmaster| postmaster.pid == seen.pid);
        while !done() && still_runs() {
            if since.elapsed() >= bound {
                let pid = seen.pid.as_raw_nonzero().get();
                return Err(EmbeddedError::Stuck { dir: self.dir.clone(), pid, expected, bound });
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }
}
