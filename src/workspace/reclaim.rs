//! Worktrees on their way out. One goes only if its attempt is over, nobody is in it, and all its work is in a snapshot.
//!
//! ```text
//! is over? → lease → nobody in it? → snapshot → moved aside → still nobody in it, nothing changed since? → Removing → files → git → record
//! ```
//!
//! Moved aside, because whoever comes by its name then does not find it: nothing is written between the snapshot and the end. Killed
//! anywhere in between, the next one goes on.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use chrono::Utc;

use super::error::WorkspaceError;
use super::lease::Lease;
use super::occupancy::occupants;
use super::record::{Phase, Record};
use super::tenancy::Place;
use super::{snapshot, worktree};
use crate::elapsed::Instant;
use crate::guard::remains::{self, Proof};
use crate::identity::Identity;
use crate::ids::RunId;
use crate::state_dir::{HostLock, HostLockHeld};

/// How long a successor waits for whoever keeps its predecessor's work at that moment.
const OTHERS_PATIENCE: Duration = Duration::from_secs(10);

/// How often a worktree may change while it is being removed, before it is left for later.
const TRIES: u32 = 3;

/// Why a worktree stays for now; `None` if its attempt is over.
pub(crate) fn still_at_work(place: &Place, record: &Record) -> Option<String> {
    if let Some(holder) = Lease::holder(&place.state, &record.path) {
        return Some(format!("in use by {holder}"));
    }
    match remains::proof_of_end(&place.state.instances(), record.instance_id) {
        Proof::Over => None,
        Proof::Alive => Some("its command is at work".to_owned()),
        Proof::Missing => Some("its executor is dead, but nothing proves yet that its command is".to_owned()),
    }
}

/// The worktrees of this host whose attempts are over.
pub(crate) fn over(place: &Place) -> Vec<Record> {
    let mut records = Record::all(&place.state);
    records.retain(|record| still_at_work(place, record).is_none());
    records
}

/// Keeps the work of earlier attempts at this run that were killed before they could.
pub(crate) fn settle_run(place: &Place, run_id: &RunId, before: i32) {
    let records = Record::all(&place.state);
    let begun = Instant::now();
    for record in records.iter().filter(|record| record.run_id == *run_id && record.attempt < before) {
        // Somebody else may be at it, and keeps it. What cannot be kept now stays where it is.
        while let Ok(false) | Err(WorkspaceError::Stays(_) | WorkspaceError::Held { .. }) = settle(place, record) {
            let is_over = || remains::proof_of_end(&place.state.instances(), record.instance_id) == Proof::Over;
            let is_left = record.read_again(&place.state).is_some_and(|record| record.is_unkept()) && is_over();
            if !is_left || Instant::now().since(begun) > OTHERS_PATIENCE {
                break;
            }
            std::thread::sleep(Duration::from_millis(10)); // between two looks
        }
    }
}

/// Keeps the work of an attempt that is over, where it was killed before it could. Says whether that was needed.
pub(crate) fn settle(place: &Place, record: &Record) -> Result<bool, WorkspaceError> {
    if !record.is_unkept() || still_at_work(place, record).is_some() {
        return Ok(false);
    }
    let _turn = turn(place, record)?;
    let Some(mut record) = record.read_again(&place.state).filter(|record| record.phase == Phase::Open) else {
        return Ok(false);
    };
    let _lease = match record.path.exists() {
        true => Some(Lease::take(&place.state, &record.path, &ours("keeps what was left"))?),
        false => None,
    };
    record.snapshot = snapshot::take(&record, &record.path, place)?;
    record.phase = Phase::Kept;
    record.ended_at.get_or_insert_with(Utc::now);
    record.write(&place.state)?;
    Ok(true)
}

/// Removes a worktree, or says why it stays.
pub(crate) fn remove(place: &Place, record: &Record) -> Result<(), WorkspaceError> {
    if let Some(why) = still_at_work(place, record) {
        return Err(WorkspaceError::Stays(why));
    }
    let _turn = turn(place, record)?;
    let Some(mut record) = record.read_again(&place.state) else { return Ok(()) };
    let stands = if record.path.exists() { record.path.clone() } else { record.path_out() };
    let _lease = match stands.exists() {
        true => Some(Lease::take(&place.state, &stands, &ours("removes it"))?),
        false => None,
    };
    if record.phase != Phase::Removing {
        refuse_if_locked(&record)?;
        if record.git_dir.is_none() || record.is_nobodys_work() {
            // Or whoever made it was killed over it, before any command was started. His git may still be at it.
            if stands.exists() {
                refuse_if_occupied(&stands)?;
            }
            worktree::discard(&record, place);
            return Ok(());
        }
        move_out(place, &mut record)?;
    }
    let out = record.path_out();
    match fs::remove_dir_all(&out) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(WorkspaceError::io("cannot remove", &out)(error));
        }
        _ => {}
    }
    worktree::forget(&record, place);
    record.remove(&place.state);
    Ok(())
}

/// Whoever moves a worktree has no lease on it by its name any more.
pub(super) fn turn(place: &Place, record: &Record) -> Result<HostLockHeld, WorkspaceError> {
    let lock = HostLock::at(place.state.leases().join(record.name()));
    let taken = lock.try_take(&ours("is at it")).map_err(WorkspaceError::io("cannot lock", &record.path))?;
    taken.ok_or_else(|| WorkspaceError::Stays(format!("in use by {}", lock.holder().unwrap_or_default())))
}

/// Has all its work in a snapshot, and the worktree where nobody looks for it.
fn move_out(place: &Place, record: &mut Record) -> Result<(), WorkspaceError> {
    let (path, out) = (record.path.clone(), record.path_out());
    let stays = |why: String| Err(WorkspaceError::Stays(why));
    if out.exists() && !path.exists() {
        // Somebody was killed here.
        fs::rename(&out, &path).map_err(WorkspaceError::io("cannot rename", &out))?;
    }
    for _ in 0..TRIES {
        if path.exists() {
            refuse_if_occupied(&path)?;
        } else if record.git_dir.as_ref().is_some_and(|git_dir| !git_dir.exists()) {
            // Somebody has removed all of it by hand.
            return Ok(());
        }
        let since = moment(&place.worktrees.join(format!(".{}", record.name())))?;
        record.snapshot = snapshot::take(record, &path, place)?.or(record.snapshot.take());
        record.ended_at.get_or_insert_with(Utc::now);
        if path.exists() {
            fs::rename(&path, &out).map_err(WorkspaceError::io("cannot rename", &path))?;
            let undisturbed = refuse_if_occupied(&out)
                .and_then(|()| has_changed(&out, since).map_err(WorkspaceError::io("cannot look through", &out)));
            if !matches!(undisturbed, Ok(false)) {
                fs::rename(&out, &path).map_err(WorkspaceError::io("cannot rename", &out))?;
                undisturbed?;
                continue;
            }
        }
        record.phase = Phase::Removing;
        return record.write(&place.state);
    }
    stays("it was changed while its work was being kept: somebody is at work in it".to_owned())
}

fn refuse_if_locked(record: &Record) -> Result<(), WorkspaceError> {
    let locked = record.git_dir.as_ref().map(|git_dir| git_dir.join("locked")).filter(|file| file.exists());
    let Some(locked) = locked else { return Ok(()) };
    let why = fs::read_to_string(locked).unwrap_or_default();
    let why = if why.trim().is_empty() { String::new() } else { format!(" ({})", why.trim()) };
    let path = record.path.display();
    Err(WorkspaceError::Stays(format!("locked by git worktree lock{why}: git worktree unlock {path} lets it go")))
}

fn refuse_if_occupied(path: &Path) -> Result<(), WorkspaceError> {
    let pids = occupants(path).map_err(WorkspaceError::io("cannot see who is in", path))?;
    if pids.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = pids.iter().take(5).map(u32::to_string).collect();
    let (noun, verb) = if pids.len() == 1 { ("process", "is") } else { ("processes", "are") };
    Err(WorkspaceError::Stays(format!("{noun} {} {verb} in it", shown.join(", "))))
}

/// This moment, by the clock of the file system.
fn moment(probe: &Path) -> Result<(i64, i64), WorkspaceError> {
    let found = fs::write(probe, "").and_then(|()| fs::metadata(probe));
    let _ = fs::remove_file(probe);
    found.map(|found| (found.ctime(), found.ctime_nsec())).map_err(WorkspaceError::io("cannot write", probe))
}

/// Whether anything in this folder was changed at this moment or later, by a clock that ticks every few milliseconds. What git
/// keeps of repositories inside is passed over: the snapshot was written there.
fn has_changed(folder: &Path, since: (i64, i64)) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata()?;
        if found.is_dir() && entry.file_name() == ".git" {
            continue;
        }
        if (found.ctime(), found.ctime_nsec()) >= since || (found.is_dir() && has_changed(&entry.path(), since)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn ours(does: &str) -> String {
    format!("executor {}, which {does}", Identity::of_this_process().executor_id)
}
