//! Where logs are: one an attempt, on the node's host. A run id never becomes part of a path unhashed.

use std::fs;
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
