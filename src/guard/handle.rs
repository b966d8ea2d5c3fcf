//! The supervisor's end: starts the guard, speaks to it, and outlives it if it must.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

pub(super) use super::process::main as serve;

use super::PROCESS_NAME;
use super::containment::{Cgroup, Killed, Secured, children, kill_all, reap_all, see_our_own, somebody_has_ended};
use super::descriptor::send_descriptor;
use super::error::GuardError;
use super::outlet::Outlet;
use super::own;
use super::wire::{FromGuard, Preparation, ToGuard, decode, encode, is_whole, send};

/// An idle guard takes down its empty containment in a few milliseconds.
const DISMISSAL_PATIENCE: Duration = Duration::from_millis(500);

/// How often we reap what others have left to us.
const REAPING_INTERVAL: Duration = Duration::from_secs(1);

/// A guard of ours. Dropping it closes its socket: it then kills what it guards, certifies and ends. Whoever has one reaps
/// whoever else's orphan comes to us: see [`reap`].
#[derive(Debug)]
pub(crate) struct Guard {
    pid: Pid,
    socket: UnixStream,
    unread: Vec<u8>,
    secured: Option<Secured>,
    /// Children that we had before (a shell that exec'ed us may have left some): none of ours to kill.
    strangers: Vec<Pid>,
    is_reaped: bool,
}

impl Guard {
    /// Starts it. It goes on by itself from here, making containment and init, while its supervisor does other things.
    ///
    /// `outlet` is the command's. Must be called within a tokio runtime.
    pub(crate) fn start(preparation: Preparation, outlet: Outlet) -> Result<Guard, GuardError> {
        if !see_our_own() {
            return Err(GuardError::Unready(
                "/proc is not mounted, or shows another PID namespace than ours; mount ours: mount -t proc proc /proc \
                 (unshare --mount-proc)"
                    .to_owned(),
            ));
        }
        let started = || -> io::Result<Guard> {
            // Orphans of a guard that dies come to us.
            rustix::process::set_child_subreaper(Some(Pid::INIT))?;
            let (ours, theirs) = StdUnixStream::pair()?;
            let mut own = own::lock();
            let strangers = children().into_iter().filter(|child| own.all().all(|ours| ours != child)).collect();
            let mut command = Command::new("/proc/self/exe");
            command.arg0(PROCESS_NAME).arg("guard").stdin(Stdio::from(OwnedFd::from(theirs)));
            // Not in the command's environment, nor in that of its init, which it can read in /proc/1. What else may be
            // secret there, as the command's own DATABASE_URL, is its user's business.
            command
                .env_remove("SYSTOLE_DATABASE_URL")
                .env_remove("SYSTOLE_DIRECT_URL")
                .env_remove("SYSTOLE_HTTP_TOKEN");
            if let Some((out, err)) = outlet.output {
                command.stdout(out).stderr(err);
            }
            let child = command.spawn()?;
            // Else we kept the other end of the command's output open as well.
            drop(command);
            let pid = Pid::from_child(&child);
            own.in_use.push(pid);
            drop(own);
            match &outlet.input {
                Some(input) => send_descriptor(&ours, input.as_fd())?,
                None => send_descriptor(&ours, io::stdin().as_fd())?,
            }
            send(&ours, &ToGuard::Prepare(preparation))?;
            ours.set_nonblocking(true)?;
            let socket = UnixStream::from_std(ours)?;
            Ok(Guard { pid, socket, unread: Vec::new(), secured: None, strangers, is_reaped: false })
        };
        started().map_err(GuardError::Start)
    }

    /// Waits until it is ready for [`ToGuard::Arm`]. Cancel-safe.
    pub(crate) async fn ready(&mut self) -> Result<Secured, GuardError> {
        match self.hear().await? {
            FromGuard::Ready(secured) => {
                self.secured = Some(secured.clone());
                Ok(secured)
            }
            FromGuard::Unready { reason } | FromGuard::Unarmed { reason } => Err(GuardError::Unready(reason)),
            _ => Err(GuardError::Gone),
        }
    }

    /// Arms it: from its answer on, whatever happens to us ends in a certificate.
    pub(crate) async fn arm(&mut self, arming: super::Arming) -> Result<(), GuardError> {
        self.tell(&ToGuard::Arm(Box::new(arming))).await?;
        loop {
            match self.hear().await? {
                FromGuard::Armed => return Ok(()),
                FromGuard::Unarmed { reason } => return Err(GuardError::Unready(reason)),
                _ => {}
            }
        }
    }

    /// Sends one message. Not cancel-safe.
    pub(crate) async fn tell(&mut self, message: &ToGuard) -> Result<(), GuardError> {
        self.socket.write_all(&encode(message)).await.map_err(|_| GuardError::Gone)
    }

    /// Waits for the next message. Cancel-safe.
    pub(crate) async fn hear(&mut self) -> Result<FromGuard, GuardError> {
        loop {
            if let Some(message) = decode(&mut self.unread).map_err(|_| GuardError::Gone)? {
                return Ok(message);
            }
            if self.socket.read_buf(&mut self.unread).await.map_err(|_| GuardError::Gone)? == 0 {
                return Err(GuardError::Gone);
            }
        }
    }

    /// Whether it has said something that nobody has heard yet: its last word, it may be, before it ended.
    pub(crate) fn has_spoken(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        is_whole(&self.unread) || matches!(recv(&self.socket, &mut [0; 1], flags), Ok((1.., _)))
    }

    /// Whether it has ended.
    pub(crate) fn is_gone(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut socket = [PollFd::new(&self.socket, PollFlags::empty())];
        poll(&mut socket, Some(&now)) != Ok(0)
    }

    /// Kills the guard, if it still is there, and whatever it guarded. Blocks for up to `patience`; true if all is dead.
    ///
    /// First the guard: two writers of one freezer never.
    pub(crate) fn destroy(&mut self, patience: Duration) -> bool {
        let _ = kill_process(self.pid, Signal::KILL);
        let _ = waitpid(Some(self.pid), WaitOptions::empty());
        self.is_reaped = true;
        let cgroup = self.secured.as_ref().and_then(|secured| secured.cgroup.as_deref());
        let emptied = match cgroup.map(Cgroup::open) {
            Some(Ok(Some(cgroup))) => {
                let _ = cgroup.kill();
                let emptied = cgroup.wait_empty(patience).unwrap_or(false);
                let _ = cgroup.remove();
                emptied
            }
            Some(Ok(None)) | None => true,
            Some(Err(_)) => false,
        };
        // Its init died with it, and its orphans have come to us.
        let own = own::lock();
        let spared: Vec<Pid> = self.strangers.iter().chain(own.all()).copied().filter(|pid| *pid != self.pid).collect();
        // Nobody else starts one meanwhile, who would not be spared.
        matches!(kill_all(&spared), Killed::Emptied) && emptied
    }

    /// Lets go of it: whatever it still guards is killed. Waits a moment for its last word: by
    /// then no file of its is left that need not be.
    pub(crate) async fn dismiss(mut self) {
        let _ = self.socket.shutdown().await;
        let end = async { while self.hear().await.is_ok() {} };
        let _ = tokio::time::timeout(DISMISSAL_PATIENCE, end).await;
        // What it still has to take down it does by itself, unless our end is the end of all.
        if getpid() == Pid::INIT {
            let ended = async {
                while !matches!(waitpid(Some(self.pid), WaitOptions::NOHANG), Ok(Some(_)) | Err(Errno::CHILD)) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let _ = tokio::time::timeout(DISMISSAL_PATIENCE, ended).await;
        }
        self.is_reaped = !matches!(waitpid(Some(self.pid), WaitOptions::NOHANG), Ok(None));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut own = own::lock();
        own.in_use.retain(|pid| *pid != self.pid);
        if !self.is_reaped {
            own.leaving.push(self.pid);
        }
    }
}

/// Reaps once a second, for ever.
pub(crate) async fn reap_orphans() {
    let mut interval = tokio::time::interval(REAPING_INTERVAL);
    loop {
        interval.tick().await;
        reap();
    }
}

/// Waits for what has ended: guards that took their time, and orphans that came to us, a subreaper, or PID 1 of a container. One
/// in use is waited for by its user. To be called once a second by each process that has guards; costs next to nothing while
/// nobody has ended.
pub(crate) fn reap() {
    let mut own = own::lock();
    if !somebody_has_ended() {
        return;
    }
    reap_all(&own.in_use);
    if !own.leaving.is_empty() {
        let left = children();
        own.leaving.retain(|pid| left.contains(pid));
    }
}
