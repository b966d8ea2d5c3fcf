//! Where logs are: one an attempt, in the folder of its run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ids::RunId;
use crate::workspace::artifacts;

/// The log of one attempt.
pub(crate) fn log_of(runs_dir: &Path, run_id: &RunId, attempt: i32) -> PathBuf {
    artifacts::folder_of(runs_dir, run_id).join(format!("attempt-{attempt}.log"))
}

/// The newest attempt that has a log here.
pub(crate) fn newest_log(runs_dir: &Path, run_id: &RunId) -> Option<i32> {
    let entries = fs::read_dir(artifacts::folder_of(runs_dir, run_id)).ok()?;
    let attempt = |name: &str| name.strip_prefix("attempt-")?.strip_suffix(".log")?.parse().ok();
    entries.flatten().filter_map(|entry| attempt(entry.file_name().to_str()?)).max()
}

/// Removes the logs of runs below `runs_dir` that nobody has written for so long, and folders in which nothing else is then. What
/// others have put there stays. A log that is still written goes on in a new file.
pub(crate) fn forget(runs_dir: &Path, unwritten_for: Duration) -> io::Result<()> {
    let is_log = |name: &str| name.starts_with("attempt-") && (name.ends_with(".log") || name.ends_with(".log.1"));
    for folder in artifacts::folders(runs_dir)? {
        for entry in fs::read_dir(&folder)?.flatten() {
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if entry.file_name().to_str().is_some_and(is_log) && age > unwritten_for {
                fs::remove_file(entry.path())?;
            }
        }
        // It may be shared, and somebody else may be at the same.
        let _ = artifacts::forget_folder(&folder, unwritten_for);
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
        let hour = Duration::from_secs(3600);
        let age = |path: &Path, is_old: bool| {
            let file = fs::File::options().create(true).append(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - if is_old { hour * 2 } else { hour / 2 }).unwrap();
        };
        let [gone, kept, begun]: [RunId; 3] = ["gone", "Kept", "begun"].map(|name| name.parse().unwrap());
        for run in [&gone, &kept, &begun] {
            let made = artifacts::make_folder(folder.path(), run).unwrap();
            age(&made.join("run_id"), run != &begun);
        }
        fs::create_dir(folder.path().join("mine")).unwrap();
        let files = [
            (log_of(folder.path(), &gone, 1), true),
            (log_of(folder.path(), &kept, 1), true),
            (log_of(folder.path(), &kept, 2), false),
            (artifacts::folder_of(folder.path(), &kept).join("notes"), true),
            (folder.path().join("mine/attempt-1.log"), true),
        ];
        for (path, is_old) in &files {
            age(path, *is_old);
        }
        forget(folder.path(), hour).unwrap();
        assert_eq!(files.map(|(path, _)| path.exists()), [false, false, true, true, true]);
        let exists = |run: &RunId| artifacts::folder_of(folder.path(), run).exists();
        assert_eq!([exists(&gone), exists(&kept), exists(&begun)], [false, true, true]);
    }
}
