//! The guard's own process: one thread that waits for its supervisor, its tree and its deadline, and for nothing else.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2};

use super::certificate::{Certificate, InstanceFile};
use super::containment::Killed;
use super::deadman::{Deadman, Decision, KillReason};
use super::descriptor::receive_descriptor;
use super::init::Stage;
use super::tree::{Ended, News, Tree};
use super::urgency::first_in_line;
use super::wire::{Arming, Audience, FromGuard, Intent, Preparation, ToGuard, decode, receive, send};
use crate::elapsed::Instant;
use crate::outcome::{Cause, End, InstanceStatus};

/// How long one attempt at emptying a killed tree takes before the supervisor hears who remains.
const EMPTYING_PATIENCE: Duration = Duration::from_secs(1);

/// How long a certificate may stay unflushed while a living supervisor tells the database.
const RECORDING_PATIENCE: Duration = Duration::from_millis(20);

/// How long to wait for the meaning of a signal that has ended the command already.
const INTENT_PATIENCE: Duration = Duration::from_millis(50);

/// Runs as the guard.
pub(super) fn main() -> i32 {
    let _ = rustix::thread::set_name(c"deadman");
    let Ok(socket) = control_socket() else { return 70 };
    match Guard::prepared(socket).and_then(|guard| guard.map_or(Ok(()), Guard::watch)) {
        Ok(()) => 0,
        // The supervisor is gone, or the machine is out of something: the tree is dead by the death of its init.
        Err(_) => 70,
    }
}

struct Guard {
    supervisor: UnixStream,
    unread: Vec<u8>,
    tree: Tree,
    switch: Option<Deadman>,
    file: Option<InstanceFile>,
    intent: Option<Intent>,
    children: UnixStream,
    timer: OwnedFd,
}

impl Guard {
    /// Makes the containment with an init waiting in it. `None` if the supervisor went away, or nothing can be made.
    fn prepared(supervisor: UnixStream) -> io::Result<Option<Guard>> {
        let Ok(stdin) = receive_descriptor(&supervisor) else { return Ok(None) };
        let Some(ToGuard::Prepare(Preparation { instance_id, wish, own_session })) = receive(&supervisor)? else {
            return Ok(None);
        };
        let tree = match Tree::make(&instance_id.to_string(), wish, &Stage { stdin, own_session }) {
            Ok(tree) => tree,
            Err(error) => {
                send(&supervisor, &FromGuard::Unready { reason: error.to_string() })?;
                return Ok(None);
            }
        };
        leave_the_terminal()?;
        // Only now, when init has been started without it.
        first_in_line();
        let children = child_signals()?;
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        send(&supervisor, &FromGuard::Ready(tree.secured().clone()))?;
        Ok(Some(Guard {
            supervisor,
            unread: Vec::new(),
            tree,
            switch: None,
            file: None,
            intent: None,
            children,
            timer,
        }))
    }

    fn watch(mut self) -> io::Result<()> {
        loop {
            // The clock is read before the socket: whatever lies in there was sent earlier.
            if let Some(reason) = self.keep_deadline() {
                return self.kill(End::crashed(), reason);
            }
            self.sleep()?;
            if let Some(reason) = self.keep_deadline() {
                return self.kill(End::crashed(), reason);
            }
            while let Some(news) = self.tree.news()? {
                match news {
                    News::Started { child_pid } => self.tell(&FromGuard::Started { child_pid }),
                    News::Stopped { number } => self.tell(&FromGuard::Stopped { number }),
                    News::Ended(ended) => return self.ended(ended),
                }
            }
            let mut ticked = false;
            for message in self.heard()? {
                match message {
                    Some(ToGuard::Arm(arming)) => self.arm(*arming)?,
                    Some(ToGuard::Renew { until }) => {
                        if let Some(switch) = &mut self.switch {
                            switch.renewed(until);
                            let until = switch.until().unwrap_or(until);
                            self.tell(&FromGuard::Echo { until });
                        }
                    }
                    Some(ToGuard::Tick { at }) => {
                        if let Some(switch) = &mut self.switch {
                            switch.ticked(at, Instant::now());
                        }
                        ticked = true;
                    }
                    // If its deadline has passed meanwhile, init is frozen, and hears it when it is thawed.
                    Some(ToGuard::Go(order)) => {
                        if self.switch.as_ref().is_some_and(|switch| switch.until().is_some()) {
                            self.tree.go(*order)?;
                        }
                    }
                    Some(ToGuard::Signal { number, to, intent }) => {
                        self.intent = intent.or(self.intent);
                        if intent.is_some() && self.switch.as_ref().is_some_and(Deadman::is_frozen) {
                            return self.kill(End::of(intent_status(intent)), KillReason::Ordered);
                        }
                        if let Some(signal) = Signal::from_named_raw(number) {
                            self.tree.signal(signal, to == Audience::Tree);
                        }
                    }
                    Some(ToGuard::Kill { ends_as }) => return self.kill(End::of(ends_as), KillReason::Ordered),
                    Some(ToGuard::Prepare(_) | ToGuard::Recorded) => {}
                    None => return self.supervisor_gone(),
                }
            }
            if ticked {
                self.look_after_the_frozen();
            }
        }
    }

    /// Freezes and thaws as the switch says; returns the reason if it says kill.
    fn keep_deadline(&mut self) -> Option<KillReason> {
        let switch = self.switch.as_mut()?;
        loop {
            match switch.decide(Instant::now()) {
                Decision::Wait(until) => {
                    set_timer(&self.timer, until);
                    return None;
                }
                Decision::Freeze => {
                    let hold = self.tree.freeze(switch.freeze_patience());
                    let _ = switch.froze(Instant::now(), hold);
                    let _ = send(&self.supervisor, &FromGuard::Frozen(hold));
                }
                // The deadline was ahead just now. If it has passed during the thaw, the next turn freezes again.
                Decision::Thaw => {
                    self.tree.thaw();
                    switch.thawed();
                    let _ = send(&self.supervisor, &FromGuard::Thawed);
                }
                Decision::Kill(reason) => return Some(reason),
            }
        }
    }

    /// Somebody may have moved or woken a part of a frozen tree: then it is stopped again.
    fn look_after_the_frozen(&mut self) {
        let Some(switch) = self.switch.as_mut().filter(|switch| switch.is_frozen()) else { return };
        let hold = self.tree.stop_the_escaped();
        if switch.froze(Instant::now(), hold) {
            let _ = send(&self.supervisor, &FromGuard::Frozen(hold));
        }
    }

    fn sleep(&self) -> io::Result<()> {
        let mut descriptors = vec![
            PollFd::new(&self.supervisor, PollFlags::IN),
            PollFd::new(&self.children, PollFlags::IN),
            PollFd::new(&self.timer, PollFlags::IN),
        ];
        if let Some(init) = self.tree.init_socket() {
            descriptors.push(PollFd::new(init, PollFlags::IN));
        }
        match poll(&mut descriptors, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bin = [0; 64];
        while matches!((&self.children).read(&mut bin), Ok(1..)) {}
        let _ = rustix::io::read(&self.timer, &mut bin);
        Ok(())
    }

    /// Everything the supervisor has sent so far; `None` last if it has closed its end.
    fn heard(&mut self) -> io::Result<Vec<Option<ToGuard>>> {
        let mut messages = Vec::new();
        let mut chunk = [0; 16 * 1024];
        loop {
            match rustix::net::recv(&self.supervisor, &mut chunk, rustix::net::RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    messages.push(None);
                    return Ok(messages);
                }
                Ok((read, _)) => self.unread.extend_from_slice(&chunk[..read]),
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(messages),
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => {
                    messages.push(None);
                    return Ok(messages);
                }
            }
            while let Some(message) = decode(&mut self.unread)? {
                messages.push(Some(message));
            }
        }
    }

    fn arm(&mut self, arming: Arming) -> io::Result<()> {
        match InstanceFile::create(&arming.file, &arming.header) {
            Ok(file) => {
                self.file = Some(file);
                self.switch = Some(Deadman::armed(arming.rules, Instant::now()));
                self.tell(&FromGuard::Armed);
            }
            Err(error) => self.tell(&FromGuard::Unarmed {
                reason: format!("the certificate {} cannot be written: {error}", arming.file.display()),
            }),
        }
        Ok(())
    }

    fn supervisor_gone(mut self) -> io::Result<()> {
        // The command may have ended by itself just before: then that is what is certified.
        match self.tree.news()? {
            Some(News::Ended(ended)) => self.ended(ended),
            _ => self.kill(End::crashed(), KillReason::SupervisorGone),
        }
    }

    /// The command has ended by itself: what it leaves behind ends with it.
    fn ended(mut self, ended: Ended) -> io::Result<()> {
        self.empty();
        // A key on the terminal reaches command and supervisor at once: what ended by it may be quicker than its meaning.
        let by_request = matches!(ended.code - 128, SIGHUP | SIGINT | SIGQUIT | SIGTERM);
        self.hear_intent(if by_request { INTENT_PATIENCE } else { Duration::ZERO });
        let succeeded = ended.code == 0;
        let status = match self.intent {
            Some(intent) if !(succeeded && intent.unless_it_succeeds) => intent.ends_as,
            _ if succeeded => InstanceStatus::Completed,
            _ => InstanceStatus::Failed,
        };
        let end = End { exit_code: Some(ended.code), detail: ended.detail, ..End::of(status) };
        self.certify(end, None)
    }

    fn kill(mut self, end: End, reason: KillReason) -> io::Result<()> {
        self.empty();
        let exit_code = self.tree.may_have_started().then_some(128 + Signal::KILL.as_raw());
        let detail = serde_json::json!({ "killed": reason });
        self.certify(End { exit_code, detail, ..end }, Some(reason))
    }

    /// Kills until nothing is left, however long that takes: without an empty tree there is no certificate.
    fn empty(&mut self) {
        while let Killed::Remaining(pids) = self.tree.kill(EMPTYING_PATIENCE) {
            self.tell(&FromGuard::Remaining { pids: pids.into_iter().map(Pid::as_raw_pid).collect() });
        }
    }

    fn certify(mut self, end: End, killed: Option<KillReason>) -> io::Result<()> {
        let certificate = Certificate { end, killed, died_at: Instant::now() };
        let written = match &mut self.file {
            Some(file) => file.certify(&certificate),
            None => Ok(()),
        };
        self.tell(&FromGuard::Ended(Box::new(certificate)));
        let kept = written.and_then(|()| self.keep());
        // Taking a cgroup down takes the kernel some milliseconds, for which nobody has to wait.
        let _ = self.supervisor.shutdown(std::net::Shutdown::Both);
        self.tree.remove();
        kept
    }

    /// Flushes the certificate, unless the database has been told.
    fn keep(&mut self) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        // Then it is the supervisor's, who keeps it for the case of a failover.
        if self.is_recorded_within(RECORDING_PATIENCE) {
            return Ok(());
        }
        // From our end on, anybody may file it.
        file.sync()
    }

    /// What the supervisor has meant by a signal, if it says so in time.
    fn hear_intent(&mut self, patience: Duration) {
        let intent = |message: &Option<ToGuard>| match message {
            Some(ToGuard::Signal { intent, .. }) => *intent,
            Some(ToGuard::Kill { ends_as }) => Some(Intent { ends_as: *ends_as, unless_it_succeeds: false }),
            _ => None,
        };
        if self.intent.is_none() {
            self.intent = self.hear_until(patience, intent);
        }
    }

    /// Whether the supervisor says in time that the database knows. A supervisor that is gone will not.
    fn is_recorded_within(&mut self, patience: Duration) -> bool {
        self.hear_until(patience, |message| matches!(message, Some(ToGuard::Recorded)).then_some(())).is_some()
    }

    /// The first message of this kind, if it comes in time and before the supervisor's end.
    fn hear_until<T>(&mut self, patience: Duration, find: impl Fn(&Option<ToGuard>) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        loop {
            let messages = self.heard().unwrap_or_else(|_| vec![None]);
            let found = messages.iter().find_map(&find);
            let left = deadline.since(Instant::now());
            if found.is_some() || left.is_zero() || messages.iter().any(Option::is_none) {
                return found;
            }
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let _ = poll(&mut [PollFd::new(&self.supervisor, PollFlags::IN)], Some(&timeout));
        }
    }

    /// A supervisor that does not listen is dead or hung, and its silence is acted upon elsewhere.
    fn tell(&self, message: &FromGuard) {
        let _ = send(&self.supervisor, message);
    }
}

fn intent_status(intent: Option<Intent>) -> InstanceStatus {
    intent.map_or(InstanceStatus::Cancelled, |intent| intent.ends_as)
}

impl End {
    fn crashed() -> End {
        End { cause: Some(Cause::Proof), ..End::of(InstanceStatus::Crashed) }
    }
}

/// The socket to the supervisor lies on stdin. Ours is its copy, which no child inherits.
fn control_socket() -> io::Result<UnixStream> {
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Leaves the command's session, so that no key on its terminal reaches the guard, and lets go of its output.
fn leave_the_terminal() -> io::Result<()> {
    let _ = rustix::process::setsid();
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(null.as_fd())?;
    rustix::stdio::dup2_stdout(null.as_fd())?;
    rustix::stdio::dup2_stderr(null.as_fd())?;
    // Caught and not ignored, because ignoring is inherited; and only now, when init has been started with what the
    // supervisor was given.
    let nobody_looks = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2] {
        signal_hook::flag::register(signal, nobody_looks.clone())?;
    }
    Ok(())
}

fn child_signals() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGCHLD, write)?;
    Ok(read)
}

/// CLOCK_BOOTTIME: after a suspend the deadline has passed, and the timer says so at once.
fn set_timer(timer: &OwnedFd, at: Instant) {
    // The kernel counts in signed 64 bits.
    let nanos = at.as_nanos().clamp(1, i64::MAX as u64);
    let it_value = Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &once).expect("a timerfd of ours takes any moment");
}
