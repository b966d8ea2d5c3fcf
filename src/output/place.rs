//! Where logs are: one an attempt, on the node's host. A run id never becomes part of a path unhashed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// Removes the logs below `runs_dir` that nobody has written for so long, and folders that are empty then. One that is still
/// written goes on in a new file.
pub(crate) fn forget(runs_dir: &Path, unwritten_for: Duration) -> io::Result<()> {
    let is_run = |name: &str| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_log = |name: &str| name.starts_with("attempt-") && (name.ends_with(".log") || name.ends_with(".log.1"));
    let named = |entry: &fs::DirEntry, is: &dyn Fn(&str) -> bool| entry.file_name().to_str().is_some_and(is);
    for folder in fs::read_dir(runs_dir)?.flatten().filter(|folder| named(folder, &is_run)) {
        for log in fs::read_dir(folder.path())?.flatten().filter(|log| named(log, &is_log)) {
            let age = log.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age > unwritten_for {
                fs::remove_file(log.path())?;
            }
        }
        // Not while anything is in it.
        let _ = fs::remove_dir(folder.path());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_logs_are_forgotten_and_only_old_ones() {
        let folder = tempfile::tempdir().unwrap();
        let [gone, kept]: [RunId; 2] = ["gone", "kept"].map(|name| name.parse().unwrap());
        let files = [
            (log_of(folder.path(), &gone, 1), true),
            (log_of(folder.path(), &kept, 1), true),
            (log_of(folder.path(), &kept, 2), false),
            (folder_of(folder.path(), &kept).join("notes"), true),
            (folder.path().join("mine/attempt-1.log"), true),
        ];
        let hour = Duration::from_secs(3600);
        for (path, is_old) in &files {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = fs::File::create(path).unwrap();
            file.set_modified(SystemTime::now() - if *is_old { hour * 2 } else { hour / 2 }).unwrap();
        }
        forget(folder.path(), hour).unwrap();
        assert_eq!(files.map(|(path, _)| path.exists()), [false, false, true, true, true]);
        assert!(!folder_of(folder.path(), &gone).exists());
    }
}
