//! How tenures of this host have ended, kept on its disk for a while after that was recorded: behind a failover it may be
//! missing, and is said again.
//!
//! Each file is the certificate of one instance, in a folder named after the history in which it was last recorded. So what
//! lies in another folder than that of the present history has to be said again, and may be said twice.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::guard::remains::{self, Death};
use crate::state_dir::{StateDir, make_private};
use crate::tenure::History;

/// A failover that loses more than this is none: somebody has restored a backup.
const KEPT: Duration = Duration::from_secs(3600);

/// How much is removed at once, and how much is said again at once.
const REMOVED_MAX: usize = 1000;
const SAID_MAX: usize = 200;

/// The folder of this host.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    root: PathBuf,
}

impl Outbox {
    pub(crate) fn of(state: &StateDir) -> Outbox {
        Outbox::at(state.root())
    }

    /// That of a state folder which may not even be there.
    pub(crate) fn at(state_root: &Path) -> Outbox {
        Outbox { root: state_root.join("outbox") }
    }

    /// All histories that this host has seen and not forgotten.
    pub(crate) fn histories(&self) -> Vec<History> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Remembers that the database continues this history.
    pub(crate) fn saw(&self, history: History) {
        // Without it this host does not know a former primary again, but by what it has in memory.
        let _ = make_private(&self.folder(history));
    }

    /// Takes the certificate of what was recorded in this history, or an older one; `None` if that is not known. What cannot be
    /// kept is removed: it has nothing more to say to anybody but a database that has failed over.
    pub(crate) fn keep(&self, history: Option<History>, certificate: &Path) -> Option<PathBuf> {
        let kept = history.zip(certificate.file_name()).and_then(|(history, name)| {
            self.saw(history);
            let to = self.folder(history).join(name);
            fs::rename(certificate, &to).ok()?;
            // The hour begins now, however long ago the end was.
            let _ = File::options().append(true).open(&to).and_then(|file| file.set_modified(SystemTime::now()));
            Some(to)
        });
        if kept.is_none() {
            let _ = fs::remove_file(certificate);
        }
        kept
    }

    /// The same, and waits until the disk has it. Blocks.
    pub(crate) fn keep_safely(&self, history: Option<History>, certificate: &Path) -> io::Result<()> {
        let Some(kept) = self.keep(history, certificate) else { return Ok(()) };
        File::open(&kept)?.sync_all()?;
        kept.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    /// What was recorded in histories that this one has followed, the newest first, and not all of it at once.
    pub(super) fn missing_in(&self, history: History, fleet_id: Uuid) -> Vec<Death> {
        let before = self.histories().into_iter().filter(|other| other.is_older_than(history));
        let mut files: Vec<(SystemTime, PathBuf)> = before.flat_map(|other| files(&self.folder(other))).collect();
        files.sort_unstable_by(|one, other| other.cmp(one));
        let deaths = files.iter().filter_map(|(_, path)| remains::examine(path, fleet_id).ok().flatten());
        deaths.take(SAID_MAX).collect()
    }

    /// Removes what is too old, some of it at a time, and folders of former histories that are empty.
    pub(crate) fn forget(&self, present: History) {
        let now = SystemTime::now();
        let mut left = REMOVED_MAX;
        for history in self.histories() {
            let folder = self.folder(history);
            let is_old = |written: SystemTime| now.duration_since(written).is_ok_and(|age| age > KEPT);
            for (_, path) in files(&folder).into_iter().filter(|(written, _)| is_old(*written)).take(left) {
                left -= 1;
                let _ = fs::remove_file(path);
            }
            if history.is_older_than(present) {
                // Not if something is left in it.
                let _ = fs::remove_dir(folder);
            }
        }
    }

    fn folder(&self, history: History) -> PathBuf {
        self.root.join(history.to_string())
    }
}

/// All files of a folder, with when each was written.
fn files(folder: &Path) -> Vec<(SystemTime, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> (tempfile::TempDir, Outbox) {
        let folder = tempfile::tempdir().unwrap();
        let outbox = Outbox::of(&StateDir::open(&folder.path().join("state")).unwrap());
        (folder, outbox)
    }

    fn history(timeline: u32) -> History {
        format!("1-{timeline:08X}").parse().unwrap()
    }

    #[test]
    fn what_was_recorded_stays_for_an_hour_from_then_however_much_that_is() {
        let (folder, outbox) = outbox();
        let (now, long_ago) = (SystemTime::now(), SystemTime::now() - 2 * KEPT);
        for n in 0..REMOVED_MAX + 50 {
            let path = folder.path().join(n.to_string());
            let file = File::create(&path).unwrap();
            // However long ago it died.
            file.set_modified(long_ago).unwrap();
            outbox.keep(Some(history(1)), &path).unwrap();
            assert!(!path.exists());
        }
        outbox.forget(history(1));
        let kept = || files(&outbox.folder(history(1)));
        assert_eq!(kept().len(), REMOVED_MAX + 50);
        assert!(kept().iter().all(|(written, _)| *written >= now - Duration::from_secs(60)));

        for (n, (_, path)) in kept().iter().enumerate() {
            if n % 10 != 0 {
                File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
            }
        }
        outbox.forget(history(1));
        assert_eq!(kept().len(), (REMOVED_MAX + 50) / 10);
    }

    #[test]
    fn a_former_history_is_known_until_nothing_is_left_of_it() {
        let (folder, outbox) = outbox();
        let path = folder.path().join("certificate");
        fs::write(&path, "x").unwrap();
        outbox.keep(Some(history(1)), &path);
        outbox.saw(history(2));
        outbox.forget(history(2));
        assert_eq!(outbox.histories().len(), 2);
        fs::remove_file(outbox.folder(history(1)).join("certificate")).unwrap();
        outbox.forget(history(2));
        assert_eq!(outbox.histories(), [history(2)]);
    }

    #[test]
    fn what_cannot_be_kept_is_gone() {
        let (folder, outbox) = outbox();
        let path = folder.path().join("certificate");
        fs::write(&path, "x").unwrap();
        assert_eq!(outbox.keep(None, &path), None);
        assert!(!path.exists());
    }
}
