//! The folder of a run: its logs, and whatever else people and programs keep of it. It may be shared by hosts (NFS), and nothing that
//! decides anything lies in it. It outlives the run's worktrees.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::path::name_of;
use crate::ids::RunId;
use crate::state_dir::{make_folders, write_private};

/// Says which run the folder belongs to, where its name does not; and that it is one of ours.
const MARKER: &str = "run_id";

/// Where it is.
pub(crate) fn folder_of(runs_dir: &Path, run_id: &RunId) -> PathBuf {
    runs_dir.join(name_of(run_id))
}

/// Makes it, if it is not there.
pub(crate) fn make_folder(runs_dir: &Path, run_id: &RunId) -> io::Result<PathBuf> {
    make_folders(runs_dir)?;
    let folder = folder_of(&runs_dir.canonicalize()?, run_id);
    make_folders(&folder)?;
    // Written anew each time: that keeps it from being taken for an old one.
    write_private(&folder.join(MARKER), format!("{run_id}\n"))?;
    Ok(folder)
}

/// All folders of runs below this one.
pub(crate) fn folders(runs_dir: &Path) -> io::Result<impl Iterator<Item = PathBuf>> {
    Ok(fs::read_dir(runs_dir)?.flatten().map(|entry| entry.path()).filter(|folder| is_ours(folder)))
}

/// Removes a folder in which nothing is left, and nothing was begun for so long.
pub(crate) fn forget_folder(folder: &Path, unused_for: Duration) -> io::Result<()> {
    let marker = folder.join(MARKER);
    let age = fs::metadata(&marker)?.modified()?.elapsed().unwrap_or_default();
    if age > unused_for && fs::read_dir(folder)?.count() == 1 {
        fs::remove_file(&marker)?;
        fs::remove_dir(folder)?;
    }
    Ok(())
}

fn is_ours(folder: &Path) -> bool {
    let run_id = fs::read_to_string(folder.join(MARKER)).ok().and_then(|text| text.trim().parse::<RunId>().ok());
    run_id.is_some_and(|run_id| folder.file_name().is_some_and(|name| name.to_str() == Some(&name_of(&run_id))))
}
