//! What an earlier life left on this host: certificates to file, and trees that lost both supervisor and guard.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::certificate::{self, Certificate, Header, InstanceFile};
use super::containment::sweep_cgroup;
use crate::elapsed::Instant;
use crate::identity::boot_id;
use crate::ids::{InstanceId, RunId};
use crate::outcome::{Cause, End, InstanceStatus};

/// A file that nobody can act upon any more is removed when it is older than any lease.
const KEPT_AT_MOST: Duration = Duration::from_secs(24 * 3600);

/// A death on this host that the database may not know of yet.
#[derive(Debug)]
pub(crate) struct Death {
    pub(crate) header: Header,
    pub(crate) end: End,
    pub(crate) path: PathBuf,
}

/// Where the file of an instance is.
pub(crate) fn file_of(instances: &Path, instance_id: InstanceId) -> PathBuf {
    instances.join(instance_id.to_string())
}

/// All deaths that may be told to this database. Kills what is left in the cgroup of a tree whose guard is gone: once
/// that is empty, it is as good as a certificate, and is written as one.
///
/// Files of living guards, of other databases, and those that prove nothing are passed over.
pub(crate) fn sweep(instances: &Path, fleet_id: Uuid) -> io::Result<Vec<Death>> {
    let mut deaths = Vec::new();
    for entry in fs::read_dir(instances)? {
        let path = entry?.path();
        // One file that cannot be read must not keep the others from being filed.
        if let Ok(Some(death)) = examine(&path, fleet_id) {
            deaths.push(death);
        }
    }
    Ok(deaths)
}

/// What this host knows of the end of a tenure of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Its tree is empty, or has never been.
    Over,
    /// Its guard lives.
    Alive,
    /// Its guard is gone, and has left no certificate.
    Missing,
}

/// Whether the tree of this instance is gone. What its guard has armed is here until its end is recorded.
pub(crate) fn proof_of_end(instances: &Path, instance_id: InstanceId) -> Proof {
    let mut file = match InstanceFile::try_lock(&file_of(instances, instance_id)) {
        Ok(Some(file)) => file,
        Ok(None) => return Proof::Alive,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Proof::Over,
        Err(_) => return Proof::Missing,
    };
    match file.read() {
        Ok((_, Some(_))) => Proof::Over,
        // Nothing survives a boot.
        Ok((Some(header), None)) if header.boot_id.is_some() && header.boot_id != boot_id() => Proof::Over,
        _ => Proof::Missing,
    }
}

/// The death that this file tells of, if it tells this database of one.
pub(crate) fn examine(path: &Path, fleet_id: Uuid) -> io::Result<Option<Death>> {
    let Some(mut file) = InstanceFile::try_lock(path)? else { return Ok(None) };
    let (header, certificate) = file.read()?;
    let Some(header) = header.filter(|header| header.fleet_id == fleet_id) else {
        remove_if_old(path)?;
        return Ok(None);
    };
    if let Some(certificate) = certificate {
        return Ok(Some(Death { header, end: certificate.end, path: path.to_owned() }));
    }
    if !emptied(&header) {
        remove_if_old(path)?;
        return Ok(None);
    }
    let end =
        End { cause: Some(Cause::Proof), detail: json!({ "killed": "swept" }), ..End::of(InstanceStatus::Crashed) };
    file.certify(&Certificate { end: end.clone(), killed: None, died_at: Instant::now() })?;
    Ok(Some(Death { header, end, path: path.to_owned() }))
}

/// Whether the tree of this header is now provably empty. Only its own cgroup, on this boot, can show that.
fn emptied(header: &Header) -> bool {
    is_findable(header) && header.cgroup.as_deref().is_some_and(sweep_cgroup)
}

fn is_findable(header: &Header) -> bool {
    header.boot_id.is_some() && header.boot_id == boot_id() && header.cgroup.is_some()
}

/// What the file of an instance shows to somebody who only looks.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "found", content = "end")]
pub(crate) enum Trace {
    /// Its guard lives.
    Guarded,
    /// Its tree is empty, and it has ended like this. The database may not know.
    Certified(End),
    /// Nobody guards it any more, and what is left of it can be found and killed by whoever starts something here.
    Sweepable,
    /// Nobody guards it any more, and nothing proves that it is over.
    Unproven,
}

/// A tenure that this host knows of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Known {
    pub(crate) instance_id: InstanceId,
    pub(crate) executor_id: String,
    #[serde(flatten)]
    pub(crate) trace: Trace,
}

/// The tenures of a run in this folder, as they are: nothing is swept, and nothing filed. A folder that cannot be read knows of none.
pub(crate) fn known(instances: &Path, fleet_id: Uuid, run_id: &RunId) -> Vec<Known> {
    let entries = fs::read_dir(instances).into_iter().flatten().flatten();
    let known = entries.filter_map(|entry| {
        let (header, certificate, is_held) = certificate::look(&entry.path()).ok()?;
        let header = header.filter(|header| header.fleet_id == fleet_id && header.run_id == *run_id)?;
        let trace = match certificate {
            // Also if it is held: its guard has nothing left to guard, and is about to go.
            Some(certificate) => Trace::Certified(certificate.end),
            None if is_held => Trace::Guarded,
            None if is_findable(&header) => Trace::Sweepable,
            None => Trace::Unproven,
        };
        Some(Known { instance_id: header.instance_id, executor_id: header.executor_id, trace })
    });
    known.collect()
}

fn remove_if_old(path: &Path) -> io::Result<()> {
    let age = SystemTime::now().duration_since(fs::metadata(path)?.modified()?).unwrap_or_default();
    if age > KEPT_AT_MOST {
        fs::remove_file(path)?;
    }
    Ok(())
}
