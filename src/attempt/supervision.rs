//! From exec to finish: one loop that hears the guard, the lease, the signals, the clock and the command itself.

use rustix::process::{Pid, Signal, getpid, kill_process};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU};

use super::account::Account;
use super::ending::{guard_lost, lost, record};
use super::job::Job;
use super::place;
use crate::db::DbError;
use crate::elapsed::{Instant, sleep_until};
use crate::guard::certificate::Certificate;
use crate::guard::{Audience, FromGuard, Guard, GuardError, Hold, Intent, ToGuard};
use crate::instance::{Lease, LeaseState};
use crate::log::What;
use crate::outcome::InstanceStatus;
use crate::supervise::{Ladder, Origin, Rung, Signals};
use crate::workspace::Workspace;

/// What became of a granted run.
#[derive(Debug)]
pub(crate) enum Conclusion {
    /// The command ended, by itself or by a stop, and the database knows.
    Ended(Certificate),
    /// The run was lost or fenced, and the command was stopped.
    Lost { why: String },
    /// Its guard was lost, and the command killed for that.
    Crashed { why: String },
    /// The command ended, but the database does not know: refused, or the wait for it was ended by a signal.
    Unrecorded { certificate: Certificate, error: Option<DbError> },
}

/// What happened last in the loop.
enum Event {
    Guard(Result<FromGuard, GuardError>),
    Lease(LeaseState),
    Signal(i32, Origin),
    Tick,
    TimeUp,
    GraceOver,
}

struct Supervisor<'a> {
    job: &'a Job,
    guard: Guard,
    ladder: Ladder,
    renewed_until: Option<Instant>,
    /// Since when the guard owes an echo.
    unechoed_since: Option<Instant>,
    /// The last progress told, and when that was.
    progress: (i64, Instant),
    lost: bool,
    frozen: Option<Hold>,
    remaining_told: bool,
    /// How often its node has asked for its end.
    halts: u32,
    account: Account,
}

/// Supervises a command that has been told to go, by a guard that was told this deadline, until its tree is empty and its end is
/// recorded.
///
/// Behind that, and before anybody hears of its end, what it has left in its workspace is kept.
pub(super) async fn supervise(
    job: &Job,
    lease: Lease,
    guard: Guard,
    told: Option<Instant>,
    mut signals: Signals,
    workspace: &mut Option<Workspace>,
) -> Conclusion {
    if job.is_alone {
        // What the command reads and writes is its own: a pipe must not be held open by us.
        let _ = let_go_of_stdio();
    }
    let mut supervisor = Supervisor {
        job,
        guard,
        ladder: Ladder::default(),
        renewed_until: told,
        unechoed_since: None,
        progress: (0, Instant::now()),
        lost: false,
        frozen: None,
        remaining_told: false,
        halts: 0,
        account: Account::open(&job.metrics),
    };
    let mut state = lease.state();
    let time_up = job.timeout.map(|timeout| Instant::now() + timeout);
    let mut tick = tokio::time::interval(job.timing.kill_grace / 6);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let never = Instant::from_nanos(u64::MAX);

    let certificate = loop {
        let kill_at = supervisor.ladder.kill_at();
        let event = tokio::select! {
            heard = supervisor.guard.hear() => Event::Guard(heard),
            changed = state.changed(), if !supervisor.lost => match changed {
                Ok(()) => Event::Lease(state.borrow_and_update().clone()),
                Err(_) => Event::Lease(LeaseState { lost: Some(crate::instance::Loss::Expired), ..LeaseState::default() }),
            },
            (signal, origin) = signals.next() => Event::Signal(signal, origin),
            () = sleep_until(time_up.unwrap_or(never)), if supervisor.ladder.ends_as().is_none() && time_up.is_some() => Event::TimeUp,
            () = sleep_until(kill_at.unwrap_or(never)), if kill_at.is_some() => Event::GraceOver,
            _ = tick.tick() => Event::Tick,
        };
        let done = match event {
            Event::Guard(Ok(FromGuard::Ended(certificate))) => break *certificate,
            Event::Guard(Ok(FromGuard::Started { child_pid })) => {
                supervisor.account.started();
                lease.started(child_pid);
                Ok(())
            }
            Event::Guard(Ok(said)) => supervisor.guard_said(said, &lease).await,
            Event::Guard(Err(error)) => Err(error),
            Event::Lease(state) => supervisor.lease_changed(state).await,
            Event::Signal(signal, origin) => supervisor.signalled(signal, origin).await,
            Event::TimeUp => {
                let rung = supervisor.ladder.stop(InstanceStatus::TimedOut, Instant::now(), job.stop_grace);
                job.say(What::CommandStopping, format_args!("the time is up for run \"{}\": stopping it", job.run_id));
                supervisor.climb(rung).await
            }
            Event::GraceOver => {
                supervisor.account.killed();
                let rung = supervisor.ladder.kill();
                job.say(What::CommandKilling, "it did not end in time: killing it");
                supervisor.climb(rung).await
            }
            Event::Tick => {
                if supervisor.has_stalled(lease.phases()) {
                    let rung = supervisor.ladder.stop(InstanceStatus::TimedOut, Instant::now(), job.stop_grace);
                    job.say(
                        What::CommandStopping,
                        format_args!("run \"{}\" has made no progress for too long: stopping it", job.run_id),
                    );
                    supervisor.climb(rung).await
                } else {
                    supervisor.tick().await
                }
            }
        };
        // A guard that has done its work cannot be spoken to either, and one that has echoed while we were stopped is no
        // late one: first everything it has said is heard.
        if done.is_err() && !supervisor.guard.has_spoken() {
            return guard_lost(job, lease, supervisor.guard, &mut signals).await;
        }
    };
    supervisor.account.ended(&certificate);
    let enough = place::enough(job, &mut signals, supervisor.halts);
    // Ours until the end is recorded.
    let _kept = place::keep(job, workspace.take(), enough).await;
    if supervisor.lost {
        return lost(job, lease, supervisor.guard, certificate).await;
    }
    record(job, lease, supervisor.guard, certificate, signals, supervisor.halts).await
}

impl Supervisor<'_> {
    async fn guard_said(&mut self, said: FromGuard, lease: &Lease) -> Result<(), GuardError> {
        match said {
            FromGuard::Echo { .. } => self.unechoed_since = None,
            FromGuard::Frozen(hold) => {
                self.frozen = Some(hold);
                self.account.frozen();
                let trouble = what_troubles(&lease.state().borrow());
                let fate = match hold {
                    Hold::Freezer => format!(
                        "The command is frozen, and goes on when it answers again; after {} it is killed",
                        humantime::format_duration(self.job.timing.freeze_max)
                    ),
                    Hold::Grace => format!(
                        "The command is stopped, and killed {} from now unless it answers: what is not held by a cgroup \
                         freezer cannot be kept until then",
                        humantime::format_duration(self.job.timing.stopped_max())
                    ),
                };
                self.job.say(What::CommandFrozen, format_args!("{trouble}. {fate}"));
            }
            FromGuard::Thawed if self.frozen.take().is_some() => {
                self.account.thawed();
                self.job.say(What::CommandThawed, "PostgreSQL answers again: the command goes on");
            }
            FromGuard::Stopped { number }
                if [SIGTSTP, SIGTTIN, SIGTTOU].contains(&number) && self.job.is_alone && has_terminal() =>
            {
                stop_ourselves();
                // Only we may have been continued, not the whole job.
                self.pass_on(SIGCONT, Audience::Command, None).await?;
            }
            FromGuard::Remaining { pids } if !std::mem::replace(&mut self.remaining_told, true) => {
                self.job.say(
                    What::CommandUnkillable,
                    format_args!(
                        "killed, but these processes do not die (stuck in the kernel, or another user's): {pids:?}"
                    ),
                );
            }
            _ => {}
        }
        Ok(())
    }

    async fn lease_changed(&mut self, state: LeaseState) -> Result<(), GuardError> {
        if state.lost.is_some() {
            self.lost = true;
            self.account.superseded();
            return self.guard.tell(&ToGuard::Kill { ends_as: InstanceStatus::Cancelled }).await;
        }
        if state.trusted_until > self.renewed_until
            && let Some(until) = state.trusted_until
        {
            self.renewed_until = Some(until);
            self.unechoed_since.get_or_insert_with(Instant::now);
            self.guard.tell(&ToGuard::Renew { until }).await?;
        }
        if state.stop_requested && self.ladder.ends_as().is_none() {
            self.job.say(
                What::CommandStopping,
                format_args!("a stop of run \"{}\" was requested: stopping it", self.job.run_id),
            );
            let rung = self.ladder.stop(InstanceStatus::Cancelled, Instant::now(), self.job.stop_grace);
            return self.climb(rung).await;
        }
        Ok(())
    }

    async fn signalled(&mut self, number: i32, origin: Origin) -> Result<(), GuardError> {
        if origin == Origin::Halt {
            self.halts += 1;
            let rung = match self.halts {
                1 => self.ladder.stop(InstanceStatus::Released, Instant::now(), self.job.stop_grace),
                _ => self.ladder.kill(),
            };
            return self.climb(rung).await;
        }
        let ends = matches!(number, SIGHUP | SIGINT | SIGQUIT | SIGTERM);
        if !ends {
            // The keyboard has stopped the command itself: we follow when its guard says so.
            return match origin {
                Origin::Keyboard | Origin::Halt => Ok(()),
                Origin::Process => self.pass_on(number, Audience::Command, None).await,
            };
        }
        match self.ladder.signalled(origin == Origin::Keyboard, Instant::now(), self.job.stop_grace) {
            Rung::PassOn => {
                let intent = Intent { ends_as: InstanceStatus::Cancelled, unless_it_succeeds: true };
                // What the keyboard sent has reached the command: 0 tells the guard of it, and sends nothing.
                let number = if origin == Origin::Keyboard { 0 } else { number };
                self.pass_on(number, Audience::Command, Some(intent)).await
            }
            rung => {
                self.job.say(What::CommandStopping, "stopping it");
                self.climb(rung).await
            }
        }
    }

    async fn climb(&mut self, rung: Rung) -> Result<(), GuardError> {
        match rung {
            Rung::Terminate(ends_as) => {
                self.account.stopping();
                let intent = Intent { ends_as, unless_it_succeeds: false };
                self.pass_on(SIGTERM, Audience::Tree, Some(intent)).await?;
                // A stopped command would not hear it.
                self.pass_on(SIGCONT, Audience::Tree, None).await
            }
            Rung::Kill(ends_as) => self.guard.tell(&ToGuard::Kill { ends_as }).await,
            Rung::Stay | Rung::PassOn => Ok(()),
        }
    }

    async fn pass_on(&mut self, number: i32, to: Audience, intent: Option<Intent>) -> Result<(), GuardError> {
        self.guard.tell(&ToGuard::Signal { number, to, intent }).await
    }

    /// Whether the command has told nothing new for its stall timeout. A frozen one could not.
    fn has_stalled(&mut self, phases: i64) -> bool {
        let now = Instant::now();
        let (last, since) = self.progress;
        if phases != last || self.frozen.is_some() {
            self.progress = (phases, now);
        }
        let limit = self.job.stall_timeout.filter(|_| self.ladder.ends_as().is_none());
        limit.is_some_and(|limit| phases == last && self.frozen.is_none() && now.since(since) > limit)
    }

    /// Whether the guard has let its deadline pass. While the database is away it has nothing to echo, and would not be found
    /// out by that.
    fn is_guard_late(&self, now: Instant) -> bool {
        let timing = &self.job.timing;
        let acts_within = match self.frozen {
            // It is at its work: what it has killed does not die.
            _ if self.remaining_told => return false,
            None => timing.kill_grace / 2,
            Some(Hold::Grace) => timing.stopped_max() + timing.kill_grace / 2,
            // Stopped or not: what it has frozen stays so.
            Some(Hold::Freezer) => return false,
        };
        self.renewed_until.is_some_and(|until| now >= until + acts_within)
    }

    async fn tick(&mut self) -> Result<(), GuardError> {
        let now = Instant::now();
        let is_mute = self.unechoed_since.is_some_and(|since| now.since(since) > self.job.timing.fence_after / 2);
        if is_mute || self.is_guard_late(now) {
            // It is stopped or hung, and would not act when it must.
            return Err(GuardError::Gone);
        }
        // While its deadline is far, no guard asks whether we live. A node may have a thousand of them.
        if self.renewed_until.is_some_and(|until| now + self.job.timing.kill_grace < until) {
            return Ok(());
        }
        self.guard.tell(&ToGuard::Tick { at: now }).await
    }
}

/// Why no heartbeat is acknowledged, as far as we know.
fn what_troubles(state: &LeaseState) -> String {
    match &state.trouble {
        Some(trouble) => trouble.to_string(),
        None if state.busy => {
            "another transaction keeps our row of systole.executor_instances locked (see pg_stat_activity)".to_owned()
        }
        None => "no heartbeat was acknowledged in time".to_owned(),
    }
}

/// Stops this process as job control would; returns when it is continued.
pub(super) fn stop_ourselves() {
    let _ = kill_process(getpid(), Signal::STOP);
}

fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok_and(|tty| rustix::termios::tcgetpgrp(&tty).is_ok_and(|_: Pid| true))
}

fn let_go_of_stdio() -> std::io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}
