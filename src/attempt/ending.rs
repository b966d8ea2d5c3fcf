//! From an empty tree to a recorded end: however long the database is away, unless somebody has had enough of the wait.

use std::time::Duration;

use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::job::Job;
use super::outbox::Outbox;
use super::supervision::Conclusion;
use crate::db::DbError;
use crate::guard::certificate::Certificate;
use crate::guard::{Guard, KillReason, ToGuard, remains};
use crate::instance::{FinishError, Lease};
use crate::log::What;
use crate::outcome::{Cause, End, InstanceStatus};
use crate::supervise::{Origin, Signals};

/// The guard died or hangs: kills guard and tree, and ends the tenure.
pub(super) async fn guard_lost(job: &Job, mut lease: Lease, mut guard: Guard, signals: &mut Signals) -> Conclusion {
    job.say(What::GuardLost, "the guard process is gone: killing the command");
    while !guard.destroy(job.timing.kill_grace) {
        job.say(What::CommandUnkillable, "killed, but some of its processes do not die yet");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let end = End {
        cause: Some(Cause::GuardLost),
        detail: json!({ "killed": "guard_lost" }),
        ..End::of(InstanceStatus::Crashed)
    };
    let why = "its guard process was killed or hung, so the command was killed".to_owned();
    let finished = tokio::select! {
        finished = lease.record_end(end) => Some(finished),
        () = asked_twice(signals, 0) => None,
    };
    lease.abandon();
    match finished {
        None => Conclusion::Crashed { why: format!("{why}; that is not recorded, and found out by its silence") },
        Some(Ok(()) | Err(FinishError::Lost { .. } | FinishError::Stopped)) => Conclusion::Crashed { why },
        Some(Err(FinishError::Db(error))) => {
            Conclusion::Crashed { why: format!("{why}; recording that failed: {error}") }
        }
    }
}

/// The run is another executor's, and all of ours is over.
pub(super) async fn lost(job: &Job, mut lease: Lease, guard: Guard, certificate: Certificate) -> Conclusion {
    // The database knows better how it ended. But if the run was taken away by force, its successor waits to hear that
    // it is over. If it does not hear it now: the certificate stays for the sweep, which tells it, and removes it.
    let _ = tokio::time::timeout(job.timing.attempt_timeout, lease.record_end(certificate.end)).await;
    lease.abandon();
    guard.dismiss().await;
    Conclusion::Lost { why: "the database says that another executor holds the run, or that it was ended".to_owned() }
}

/// Resolves at the second signal that asks us to end, or when our node asks for the second time, of which it did `halts` before.
async fn asked_twice(signals: &mut Signals, mut halts: u32) {
    let mut seen = 0;
    while seen < 2 {
        match signals.next().await {
            (_, Origin::Halt) => {
                halts += 1;
                if halts == 2 {
                    return;
                }
            }
            (SIGHUP | SIGINT | SIGQUIT | SIGTERM, _) => seen += 1,
            _ => {}
        }
    }
}

/// Stays, and beats, until the end is recorded or known to be lost. A second signal ends the wait, and so does a node
/// that has asked twice.
pub(super) async fn record(
    job: &Job,
    mut lease: Lease,
    mut guard: Guard,
    certificate: Certificate,
    mut signals: Signals,
    halts: u32,
) -> Conclusion {
    let mut state = lease.state();
    let (instance_id, history) = (lease.instance_id(), lease.history());
    let mut told = false;
    let finished = {
        let enough = async {
            tokio::select! {
                () = asked_twice(&mut signals, halts) => {}
                // Who has asked twice before is told whether one more try was in vain.
                () = tokio::time::sleep(job.timing.attempt_timeout), if halts >= 2 => {}
            }
        };
        let finish = lease.record_end(certificate.end.clone());
        tokio::pin!(finish, enough);
        loop {
            tokio::select! {
                finished = &mut finish => break Some(finished),
                () = &mut enough => break None,
                Ok(()) = state.changed(), if !told => {
                    if let Some(trouble) = &state.borrow_and_update().trouble {
                        told = true;
                        job.say(What::EndUnrecorded, cannot_be_recorded(&certificate, trouble));
                    }
                }
            }
        }
    };
    // However that went: how it ended stands in the certificate, and giving the run back would say something else.
    lease.abandon();
    let Some(finished) = finished else { return Conclusion::Unrecorded { certificate, error: None } };
    if finished.is_ok() {
        // A guard that hears it in time does not flush its certificate: that is ours to do.
        let _ = guard.tell(&ToGuard::Recorded).await;
    }
    guard.dismiss().await;
    if finished.is_ok() {
        let (outbox, file) = (Outbox::of(&job.state), remains::file_of(&job.state.instances(), instance_id));
        // A disk that does not take it has it in the one way or in the other, unless the host loses its power as well.
        let _ = tokio::task::spawn_blocking(move || outbox.keep_safely(history, &file)).await;
    }
    match finished {
        Ok(()) if certificate.killed.is_some_and(|reason| reason != KillReason::Ordered) => Conclusion::Lost {
            why: match certificate.killed {
                Some(KillReason::DatabaseAway) => {
                    "PostgreSQL was away for too long, so the command was killed".to_owned()
                }
                _ => "this process was stopped for too long, so its guard killed the command".to_owned(),
            },
        },
        Ok(()) => Conclusion::Ended(certificate),
        Err(FinishError::Lost { .. }) => {
            Conclusion::Lost { why: "another executor took the run over before its end was recorded".to_owned() }
        }
        Err(FinishError::Db(error)) => Conclusion::Unrecorded { certificate, error: Some(error) },
        Err(FinishError::Stopped) => Conclusion::Unrecorded { certificate, error: None },
    }
}

fn cannot_be_recorded(certificate: &Certificate, trouble: &DbError) -> String {
    let code = certificate.end.exit_code.map(|code| format!(" with code {code}")).unwrap_or_default();
    format!(
        "the command has ended{code}, but that cannot be recorded yet: {trouble}. Waiting; two signals (Ctrl-C) end the \
         wait, and any systole on this host will record it later"
    )
}
