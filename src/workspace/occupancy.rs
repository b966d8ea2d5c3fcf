//! Who is in a folder: processes that stand in it, or have something in it open.
//!
//! Of the processes of other users only root can say it. What was started in a worktree by its attempt has ended with that, whoever
//! it belonged to; this finds the shell that somebody has opened there since.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, fstat, open, openat};

/// Opens a folder to see which one it is, also one that may not be read.
#[cfg(target_os = "linux")]
const LOOK: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const LOOK: OFlags = OFlags::RDONLY;

/// The processes in this folder, as far as can be seen. An error where it cannot be seen at all.
pub(super) fn occupants(folder: &Path) -> io::Result<Vec<u32>> {
    let path = folder.canonicalize()?;
    let own = std::process::id();
    let target = identity(&open(&path, LOOK | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let process = entry.path();
        // Whatever cannot be read has ended, or is another user's.
        let stands = ["cwd", "root"].iter().any(|link| is_below(&process.join(link), target).unwrap_or(false));
        // What we have open is the lease's.
        if stands || (pid != own && has_open(&process, &path)) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Whether a folder is this one or below it: upwards by inodes, because a bind mount has other names.
fn is_below(folder: &Path, target: (u64, u64)) -> io::Result<bool> {
    let flags = LOOK | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, folder, flags, Mode::empty())?;
    let mut last = (0, 0);
    loop {
        let here = identity(&at)?;
        if here == target {
            return Ok(true);
        }
        if here == last {
            return Ok(false);
        }
        last = here;
        at = openat(&at, "..", flags, Mode::empty())?;
    }
}

fn has_open(process: &Path, folder: &Path) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|path| path.starts_with(folder)))
}

fn identity(folder: &OwnedFd) -> io::Result<(u64, u64)> {
    let found = fstat(folder)?;
    Ok((found.st_dev as u64, found.st_ino as u64))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn whoever_stands_in_it_or_has_it_open_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "").unwrap();
        assert_eq!(occupants(folder.path()).unwrap(), [0; 0]);
        let mut stands = Command::new("cat").current_dir(&deep).stdin(Stdio::piped()).spawn().unwrap();
        let file = fs::File::open(deep.join("file")).unwrap();
        let mut reads = Command::new("sleep").arg("60").stdin(file).current_dir("/").spawn().unwrap();
        let mut found = occupants(folder.path()).unwrap();
        found.sort_unstable();
        let mut expected = [stands.id(), reads.id()];
        expected.sort_unstable();
        assert_eq!(found, expected);
        for child in [&mut stands, &mut reads] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(occupants(folder.path()).unwrap(), [0; 0]);
    }
}
