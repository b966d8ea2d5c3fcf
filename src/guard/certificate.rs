//! The certificate of death: the file of an instance, held under a lock by its guard, and what is written into it.
//!
//! Whoever can lock the file knows that the guard is gone. If it holds a certificate, the tree was seen to be empty and
//! the tenure may be ended as the certificate says. A free lock without a certificate proves nothing, and neither does a
//! missing pid, a new boot id or a closed connection.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rand::TryRngCore;
use rand::rngs::OsRng;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::deadman::KillReason;
use crate::elapsed::Instant;
use crate::ids::{InstanceId, RunId};
use crate::outcome::End;
use crate::state_dir::{open_private, read_private};
use crate::tenure::Tenure;

/// What the database asks of a reported death. It knows the hash; the secret itself stands in the certificate alone.
#[derive(Clone, Copy)]
pub(crate) struct DeathSecret([u8; 32]);

impl DeathSecret {
    /// A fresh one, of the kernel's randomness.
    pub(crate) fn random() -> io::Result<DeathSecret> {
        let mut secret = [0; 32];
        OsRng.try_fill_bytes(&mut secret).map_err(io::Error::other)?;
        Ok(DeathSecret(secret))
    }

    /// What the database may know: SHA-256.
    pub(crate) fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    /// For the header of the file.
    pub(crate) fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl fmt::Debug for DeathSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeathSecret")
    }
}

/// Why the lock must be free: written by the guard when it is armed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) instance_id: InstanceId,
    pub(crate) run_id: RunId,
    pub(crate) executor_id: String,
    /// The database that may be told.
    pub(crate) fleet_id: Uuid,
    /// A [`DeathSecret`]. Never leaves this file but for the database.
    pub(crate) secret: Vec<u8>,
    /// For a database that has forgotten it in a failover.
    #[serde(default)]
    pub(crate) tenure: Option<Tenure>,
    pub(crate) boot_id: Option<String>,
    /// Where the tree can be found again, if it is in a cgroup.
    pub(crate) cgroup: Option<String>,
    /// Where its output is recorded, if it is.
    #[serde(default)]
    pub(crate) log: Option<PathBuf>,
}

/// How the tree ended: written when it was provably empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Certificate {
    pub(crate) end: End,
    /// Set if the command did not end by itself.
    pub(crate) killed: Option<KillReason>,
    /// On the clock of the boot in the header.
    pub(crate) died_at: Instant,
}

/// The file of an instance, locked by us.
#[derive(Debug)]
pub(crate) struct InstanceFile {
    file: File,
}

impl InstanceFile {
    /// As the guard: makes the file, locks it and says who we are.
    pub(crate) fn create(path: &Path, header: &Header) -> io::Result<InstanceFile> {
        let mut file = open_private(path)?;
        // Nobody holds it for long: others only look whether it is free.
        flock(&file, FlockOperation::LockExclusive)?;
        write_line(&mut file, header)?;
        Ok(InstanceFile { file })
    }

    /// As anybody else: `None` while its guard lives.
    pub(crate) fn try_lock(path: &Path) -> io::Result<Option<InstanceFile>> {
        let file = open_existing(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(InstanceFile { file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Who it was about and how it ended; `None` for what is not there, or was cut off in the middle.
    pub(crate) fn read(&mut self) -> io::Result<(Option<Header>, Option<Certificate>)> {
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_string(&mut text)?;
        let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let header = lines.next().and_then(|line| serde_json::from_str(line).ok());
        let certificate = lines.next_back().and_then(|line| serde_json::from_str(line).ok());
        Ok((header, certificate))
    }

    /// Writes the certificate. Not yet on disk: see [`InstanceFile::sync`].
    pub(crate) fn certify(&mut self, certificate: &Certificate) -> io::Result<()> {
        self.file.seek(SeekFrom::End(0))?;
        write_line(&mut self.file, certificate)
    }

    /// Waits until the disk has it.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// What stands in the file of an instance, and whether its guard holds it. Touches nothing, and holds it for no longer than
/// others of this kind would notice.
pub(crate) fn look(path: &Path) -> io::Result<(Option<Header>, Option<Certificate>, bool)> {
    let mut file = InstanceFile { file: read_private(path)? };
    let (header, certificate) = file.read()?;
    match flock(&file.file, FlockOperation::NonBlockingLockShared) {
        // It may have been written to its end since.
        Ok(()) => file.read().map(|(header, certificate)| (header, certificate, false)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok((header, certificate, true)),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the guard that holds this file is gone; an error if there is no such file. Blocks without a bound.
pub(crate) fn wait_for_end(path: &Path) -> io::Result<()> {
    flock(open_existing(path)?, FlockOperation::LockShared)?;
    Ok(())
}

fn open_existing(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    File::options().read(true).append(true).custom_flags(flags).open(path)
}

fn write_line(file: &mut File, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    file.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::InstanceStatus;

    fn header() -> Header {
        Header {
            instance_id: InstanceId::fresh(),
            run_id: "nightly".parse().unwrap(),
            executor_id: "1@here".to_owned(),
            fleet_id: Uuid::nil(),
            secret: vec![7; 32],
            tenure: None,
            boot_id: None,
            cgroup: None,
            log: None,
        }
    }

    #[test]
    fn a_living_guard_cannot_be_overtaken_and_a_dead_one_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("i");
        let mut guard = InstanceFile::create(&path, &header()).unwrap();
        assert!(InstanceFile::try_lock(&path).unwrap().is_none());
        let certificate =
            Certificate { end: End::of(InstanceStatus::Completed), killed: None, died_at: Instant::now() };
        guard.certify(&certificate).unwrap();
        drop(guard);
        let (who, how) = InstanceFile::try_lock(&path).unwrap().unwrap().read().unwrap();
        assert_eq!(who.unwrap().secret, vec![7; 32]);
        assert_eq!(how, Some(certificate));
    }

    #[test]
    fn a_certificate_cut_off_by_a_full_disk_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("i");
        let mut guard = InstanceFile::create(&path, &header()).unwrap();
        guard.file.seek(SeekFrom::End(0)).unwrap();
        guard.file.write_all(b"{\"end\":{\"status\":\"COMPL").unwrap();
        drop(guard);
        let (who, how) = InstanceFile::try_lock(&path).unwrap().unwrap().read().unwrap();
        assert!(who.is_some() && how.is_none());
    }
}
