//! The command and all it starts, whatever contains it: started, signalled, frozen, killed, and seen to be empty.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, pidfd_send_signal, set_child_subreaper, waitpid,
};
use serde_json::json;

use super::containment::{Cgroup, Containment, Killed, Secured, continue_these, kill_all, signal_all, stop_all};
use super::cradle::{self, Cradle};
use super::deadman::Hold;
use super::init::Stage;
use super::wire::{FromInit, Order, ToInit, decode, send};

/// A tree in its containment. Made by the guard, whose children its topmost processes are.
pub(super) struct Tree {
    secured: Secured,
    cgroup: Option<Cgroup>,
    init: Pid,
    /// Open while init is still init: until the exec, or as PID 1 until the end.
    socket: Option<UnixStream>,
    unread: Vec<u8>,
    command: Option<OwnedFd>,
    /// It was told to start: its init may be slower to say that it has than the command is to end.
    ordered: bool,
    started: bool,
    /// What a freeze has stopped by signal.
    stopped: HashSet<Pid>,
    /// Signals that came before the command: it gets them with its start.
    early: Vec<(Signal, bool)>,
}

/// What happened in the tree.
#[derive(Debug)]
pub(super) enum News {
    Started { child_pid: i32 },
    Stopped { number: i32 },
    Ended(Ended),
}

/// How the command ended by itself.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit code, 128 + n for signal n, 126 or 127 if it could not be started.
    pub(super) code: i32,
    pub(super) detail: serde_json::Value,
}

impl Tree {
    /// Makes the strongest containment that can be had, at most the wished one, with an init waiting in it.
    pub(super) fn make(name: &str, wish: Option<Containment>, stage: &Stage) -> io::Result<Tree> {
        // Orphans of the tree come to us, at every level: what has no parent left is still ours to find.
        set_child_subreaper(Some(Pid::INIT))?;
        let Cradle { secured, cgroup, init, socket } = cradle::make(name, wish, stage)?;
        Ok(Tree {
            secured,
            cgroup,
            init,
            socket: Some(socket),
            unread: Vec::new(),
            command: None,
            ordered: false,
            started: false,
            stopped: HashSet::new(),
            early: Vec::new(),
        })
    }

    pub(super) fn secured(&self) -> &Secured {
        &self.secured
    }

    pub(super) fn init_socket(&self) -> Option<&UnixStream> {
        self.socket.as_ref()
    }

    /// Whether anything of the command may have run.
    pub(super) fn may_have_started(&self) -> bool {
        self.ordered
    }

    pub(super) fn go(&mut self, order: Order) -> io::Result<()> {
        self.ordered = true;
        match &self.socket {
            Some(socket) => send(socket, &ToInit::Go(Box::new(order))),
            None => Ok(()),
        }
    }

    /// The next thing that happened, without waiting; reaps whatever has ended.
    pub(super) fn news(&mut self) -> io::Result<Option<News>> {
        if let Some(news) = self.said_by_init()? {
            return Ok(Some(news));
        }
        loop {
            let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some(found)) => found,
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(None),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if pid != self.init {
                continue;
            }
            if let Some(number) = status.stopping_signal() {
                return Ok(Some(News::Stopped { number }));
            }
            // In a PID namespace init ends behind its own last word; without one, somebody has killed it.
            let signal = status.terminating_signal();
            let code = status.exit_status().unwrap_or_else(|| 128 + signal.unwrap_or(0));
            return Ok(Some(News::Ended(Ended::by_itself(code, signal))));
        }
    }

    fn said_by_init(&mut self) -> io::Result<Option<News>> {
        loop {
            if let Some(said) = decode::<FromInit>(&mut self.unread)? {
                match said {
                    FromInit::Ready => continue,
                    FromInit::Unready { reason } => {
                        return Ok(Some(News::Ended(Ended { code: 126, detail: json!({ "start_failed": reason }) })));
                    }
                    FromInit::ExecFailed { errno } => return Ok(Some(News::Ended(Ended::not_started(errno)))),
                    FromInit::Spawned => return Ok(self.command_is(only_child_of(self.init).unwrap_or(self.init))),
                    FromInit::Stopped { number } => return Ok(Some(News::Stopped { number })),
                    FromInit::Exited { code, signal } => {
                        return Ok(Some(News::Ended(Ended::by_itself(code, signal))));
                    }
                }
            }
            let Some(socket) = &self.socket else { return Ok(None) };
            let mut chunk = [0; 4096];
            match rustix::net::recv(socket, &mut chunk, rustix::net::RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(rustix::io::Errno::CONNRESET) => {
                    self.socket = None;
                    if self.secured.level == Containment::PidNamespace {
                        return Ok(None);
                    }
                    // Its end was closed by the exec.
                    return Ok(self.command_is(self.init));
                }
                Ok((read, _)) => self.unread.extend_from_slice(&chunk[..read]),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn command_is(&mut self, pid: Pid) -> Option<News> {
        self.started = true;
        // A pidfd names this process for good, however soon its number is used again.
        self.command = pidfd_open(pid, PidfdFlags::empty()).ok();
        for (signal, to_all) in std::mem::take(&mut self.early) {
            self.signal(signal, to_all);
        }
        Some(News::Started { child_pid: pid.as_raw_pid() })
    }

    /// Passes a signal on; one that finds nobody any more is not missed.
    pub(super) fn signal(&mut self, signal: Signal, to_all: bool) {
        if !self.started {
            self.early.push((signal, to_all));
        } else if !to_all {
            if let Some(command) = &self.command {
                let _ = pidfd_send_signal(command, signal);
            }
        } else if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.signal_all(signal);
        } else {
            signal_all(signal);
        }
    }

    /// Lets nothing of it run, and says how well that holds. What is stuck in the kernel is waited for no longer than `patience`.
    pub(super) fn freeze(&mut self, patience: Duration) -> Hold {
        let frozen = self.freezer().is_some_and(|cgroup| cgroup.freeze(patience).is_ok());
        if frozen { self.stop_the_escaped() } else { self.stop_but(&[]) }
    }

    /// Stops what is outside of a frozen cgroup: what has moved itself to another one (a systemd scope, a container without a
    /// daemon) is still ours. Waits for nobody.
    pub(super) fn stop_the_escaped(&mut self) -> Hold {
        match self.freezer().map(Cgroup::pids) {
            Some(Ok(inside)) => self.stop_but(&inside),
            _ => self.stop_but(&[]),
        }
    }

    fn stop_but(&mut self, frozen: &[Pid]) -> Hold {
        let stopped = stop_all(frozen);
        let hold = if stopped.is_empty() && self.secured.freezer { Hold::Freezer } else { Hold::Grace };
        self.stopped.extend(stopped);
        hold
    }

    fn freezer(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref().filter(|_| self.secured.freezer)
    }

    pub(super) fn thaw(&mut self) {
        if let Some(cgroup) = self.freezer() {
            let _ = cgroup.thaw();
        }
        continue_these(std::mem::take(&mut self.stopped));
    }

    /// Kills everything, frozen or not, within `patience`. Empty is proof: the kernel reports the end of a namespace's init
    /// only when the namespace is empty, a cgroup says so itself, and a subreaper without children has no descendants.
    pub(super) fn kill(&mut self, patience: Duration) -> Killed {
        if self.secured.level == Containment::PidNamespace {
            let _ = kill_process(self.init, Signal::KILL);
            if !reaped(self.init, patience) {
                return Killed::Remaining(vec![self.init]);
            }
        }
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill();
            if !cgroup.wait_empty(patience).unwrap_or(false) {
                return Killed::Remaining(cgroup.pids().unwrap_or_default());
            }
        }
        // Zombies, and what has moved itself out of the cgroup; at the subreaper level this is the kill itself.
        kill_all(&[])
    }

    /// Takes the empty containment down.
    pub(super) fn remove(&self) {
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.remove();
        }
    }
}

impl Ended {
    fn by_itself(code: i32, signal: Option<i32>) -> Ended {
        Ended { code, detail: signal.map_or(json!({}), |signal| json!({ "signal": signal })) }
    }

    /// 127 and 126 as in a shell.
    fn not_started(errno: i32) -> Ended {
        let error = io::Error::from_raw_os_error(errno);
        let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        Ended { code, detail: json!({ "start_failed": error.to_string() }) }
    }
}

fn only_child_of(pid: Pid) -> Option<Pid> {
    let raw = pid.as_raw_pid();
    let children = std::fs::read_to_string(format!("/proc/{raw}/task/{raw}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

/// Waits for the end of a child of ours and reaps it; true also if it has been reaped before.
fn reaped(pid: Pid, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(None) | Err(Errno::INTR) => {}
            Ok(Some(_)) | Err(Errno::CHILD) => return true,
            Err(_) => return false,
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => drop(poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout))),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
