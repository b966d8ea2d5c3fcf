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
        let mut files: Vec<(SystemTime, PathBuf, History)> = before
            .flat_map(|other| files(&self.folder(other)).into_iter().map(move |(written, path)| (written, path, other)))
            .collect();
        files.sort_unstable_by(|one, other| (other.0, &other.1).cmp(&(one.0, &one.1)));
        let deaths = files.iter().filter_map(|(_, path, recorded_in)| {
            let mut death = remains::examine(path, fleet_id).ok().flatten()?;
            // It may have been granted in an older one, and taken up again in this: here it was known last.
            death.header.tenure.iter_mut().for_each(|tenure| tenure.history = Some(*recorded_in));
            Some(death)
        });
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
    use crate::elapsed::Instant;
    use crate::guard::certificate::{Certificate, Header, InstanceFile};
    use crate::identity::Identity;
    use crate::ids::{Fence, InstanceId};
    use crate::outcome::{End, InstanceStatus};
    use crate::tenure::{Executor, Tenure};

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

    /// In that it was known last, so that this is what a server has to have followed.
    #[test]
    fn what_is_told_again_is_of_the_history_that_has_recorded_it_and_not_of_an_older_one() {
        let (folder, outbox) = outbox();
        let executor = Executor {
            identity: Identity::of_this_process(),
            stale_after: Duration::from_secs(30),
            containment: "none".to_owned(),
            death_secret_hash: None,
        };
        let (instance_id, run_id) = (InstanceId::fresh(), "nightly".parse::<crate::RunId>().unwrap());
        let header = Header {
            instance_id,
            run_id: run_id.clone(),
            executor_id: "1@here".to_owned(),
            fleet_id: Uuid::nil(),
            secret: vec![7; 32],
            tenure: Some(Tenure {
                run_id,
                instance_id,
                fence: Fence(1),
                attempt: 1,
                executor,
                purpose: None,
                history: Some(history(1)),
            }),
            boot_id: None,
            cgroup: None,
            log: None,
        };
        let path = folder.path().join("certificate");
        let end = End::of(InstanceStatus::Completed);
        let certificate = Certificate { end, killed: None, died_at: Instant::now() };
        InstanceFile::create(&path, &header).unwrap().certify(&certificate).unwrap();
        // Granted in the first, and taken up again in the second, which has recorded its end.
        outbox.keep(Some(history(2)), &path);
        let told = outbox.missing_in(history(3), Uuid::nil());
        let known_in: Vec<_> = told.iter().map(|death| death.header.tenure.as_ref().unwrap().history).collect();
        assert_eq!(known_in, [Some(history(2))]);
        assert!(outbox.missing_in(history(2), Uuid::nil()).is_empty());
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
