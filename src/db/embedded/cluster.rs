//! The cluster and its verbs: run, stop, tell.

use std::fs::{self, File, TryLockError};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::account::Account;
use super::binaries::Binaries;
use super::create::create_if_missing;
use super::endpoint::Endpoint;
use super::error::EmbeddedError;
use super::folder::{self, LOCK, Standing};
use super::place::{self, socket_dir};
use super::postmaster::{Postmaster, kill_the_bereaved};

/// Another process may be making the cluster (a second, on a slow disk ten) and starting it (at most 30 s).
const LOCK_BOUND: Duration = Duration::from_secs(60);
/// A fast stop writes a checkpoint first.
const STOP_BOUND: Duration = Duration::from_secs(60);
/// How often to look while waiting.
const LOOK: Duration = Duration::from_millis(10);

/// A private cluster in a folder, be it made already or not.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(super) dir: PathBuf,
    options: Options,
    /// What its server is started with, beside what it needs.
    pub(super) environment: Vec<(String, String)>,
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
        Cluster { dir, options: Options::default(), environment: Vec::new() }
    }

    /// The one cluster of this user: in `SYSTOLE_EMBEDDED_DIR`, as root in /var/lib, else in the user's data folder.
    pub fn of_this_user() -> Result<Cluster, EmbeddedError> {
        place::of_this_user().map(Cluster::at)
    }

    /// The same cluster, made with these options if it is not made yet.
    pub fn with(self, options: Options) -> Cluster {
        Cluster { options, ..self }
    }

    /// The same cluster, with variables for a server that it starts.
    #[cfg(target_os = "linux")]
    pub(crate) fn with_environment(self, environment: Vec<(String, String)>) -> Cluster {
        Cluster { environment, ..self }
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
        // Without a lock file nothing was ever made here, and it may be anybody's folder: it gets none.
        if folder::examine(&self.dir, &account)? != Standing::Private || !self.dir.join(LOCK).exists() {
            return Ok(());
        }
        let _lock = self.lock(&account)?;
        let Some(postmaster) = Postmaster::running(&self.data()) else {
            kill_the_bereaved(&self.data());
            return Ok(());
        };
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

    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The endpoint, if something accepts there; without locks or child processes.
    ///
    /// What the folders say can be believed only while nobody else can write in them.
    pub(super) fn reachable(&self, account: &Account) -> Option<Endpoint> {
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

    pub(super) fn lock(&self, account: &Account) -> Result<File, EmbeddedError> {
        let path = self.dir.join(LOCK);
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

    /// Waits until `done`, or until the server that was seen has ended.
    pub(super) fn wait(
        &self,
        seen: Postmaster,
        expected: &'static str,
        since: Instant,
        bound: Duration,
        done: impl Fn() -> bool,
    ) -> Result<(), EmbeddedError> {
        while !done() && seen.lives(&self.data()) {
            if since.elapsed() >= bound {
                let problem = format!(
                    "runs as process {pid} but did not {expected} within {bound:?}. See server.log in that folder; \
                     `systole embedded stop` ends it, `kill -QUIT {pid}` does so at once",
                    pid = seen.pid.as_raw_nonzero()
                );
                return Err(EmbeddedError::Server { dir: self.dir.clone(), problem });
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }
}
