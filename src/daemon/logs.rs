//! Where the output of runs is: one file an attempt, on the node's host. A run id never becomes part of a path unhashed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::ids::RunId;

fn folder_of(runs_dir: &Path, run_id: &RunId) -> PathBuf {
    let digest = Sha256::digest(run_id.as_str());
    runs_dir.join(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// The log of one attempt.
pub(crate) fn log_of(runs_dir: &Path, run_id: &RunId, attempt: i32) -> PathBuf {
    folder_of(runs_dir, run_id).join(format!("attempt-{attempt}.log"))
}

/// The newest attempt that has a log here.
pub(crate) fn newest_log(runs_dir: &Path, run_id: &RunId) -> Option<i32> {
    let entries = fs::read_dir(folder_of(runs_dir, run_id)).ok()?;
    let attempt = |name: &str| name.strip_prefix("attempt-")?.strip_suffix(".log")?.parse().ok();
    entries.flatten().filter_map(|entry| attempt(entry.file_name().to_str()?)).max()
}

/// Makes it. Several writers append to one file: what the command writes to stdout and stderr comes in its order.
pub(super) fn open(runs_dir: &Path, run_id: &RunId, attempt: i32) -> io::Result<File> {
    let path = log_of(runs_dir, run_id, attempt);
    DirBuilder::new().recursive(true).mode(0o700).create(path.parent().expect("it is in a folder"))?;
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)
}
