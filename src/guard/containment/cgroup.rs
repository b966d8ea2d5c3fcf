//! A cgroup of the tree's own: it holds whatever the command starts, and can be frozen, killed and seen to be empty.
//!
//! Made inside our own cgroup, so that whatever contains us (a systemd scope, an outer systole) contains it as well.
//! No controller is enabled: freezing and killing are part of every cgroup v2.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::hierarchy::{PRIVATE_MOUNT, open_directory, own_cgroup, private_mount, unusable};
use super::shortcoming::Shortcoming;

/// How long a freeze before a kill one by one may take: 32 spinning processes took 18 ms.
const FREEZE_PATIENCE: Duration = Duration::from_secs(2);

/// Every cgroup of ours is named so; no other is ever touched, whatever a state file says.
const PREFIX: &str = "systole-";

/// How long the sweep waits for a killed tree: a claim is waiting behind it.
const EMPTYING_PATIENCE: Duration = Duration::from_secs(1);

/// A directory of the cgroup v2 hierarchy.
#[derive(Debug)]
pub(crate) struct Cgroup {
    directory: OwnedFd,
    parent: OwnedFd,
    name: String,
    location: String,
}

impl Cgroup {
    /// Makes a new one for the tree of this name, or says why there can be none here.
    pub(crate) fn create(name: &str) -> Result<Cgroup, Shortcoming> {
        let (parent, base) = own_cgroup()?;
        let name = format!("{PREFIX}{name}");
        let make = || {
            mkdirat(&parent, &name, Mode::from_raw_mode(0o755))?;
            open_directory(&parent, &name)
        };
        let directory = make().map_err(|error| unusable(Path::new(&base), &error))?;
        Ok(Cgroup { directory, parent, location: format!("{base}/{name}"), name })
    }

    /// Opens one by its location; `None` if there is no such cgroup (any more).
    pub(crate) fn open(location: &str) -> io::Result<Option<Cgroup>> {
        let ours = location.rsplit_once('/').filter(|(_, name)| name.starts_with(PREFIX));
        let Some((base, name)) = ours.filter(|(base, _)| !base.split('/').any(|part| part == "..")) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{location:?} is no cgroup of ours")));
        };
        let open = || -> Result<Cgroup, io::Error> {
            let parent = match base.strip_prefix(PRIVATE_MOUNT) {
                Some(inside) => open_directory(&private_mount()?, inside.trim_start_matches('/'))?,
                None => open_directory(CWD, base)?,
            };
            let directory = open_directory(&parent, name)?;
            Ok(Cgroup { directory, parent, location: location.to_owned(), name: name.to_owned() })
        };
        match open() {
            Ok(cgroup) => Ok(Some(cgroup)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// By which another process of this user can open it, as long as this boot lasts.
    pub(crate) fn location(&self) -> String {
        self.location.clone()
    }

    /// The directory, for a process that is born into it.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Moves a process, and all it will start, into it. Takes some 10 ms: see [`super::birth`].
    pub(crate) fn add(&self, pid: Pid) -> io::Result<()> {
        self.write("cgroup.procs", &pid.as_raw_pid().to_string())
    }

    /// Whether the kernel can freeze it (since Linux 5.2).
    pub(crate) fn can_freeze(&self) -> bool {
        self.open_file("cgroup.freeze", OFlags::WRONLY).is_ok()
    }

    /// Freezes everything in it, and waits until it is; false if it was not within `patience` (a process stuck in the
    /// kernel: it runs no code of its own, and freezes when it returns).
    pub(crate) fn freeze(&self, patience: Duration) -> io::Result<bool> {
        self.write("cgroup.freeze", "1")?;
        self.wait_for_event("frozen 1", patience)
    }

    /// Lets everything in it go on.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        self.write("cgroup.freeze", "0")
    }

    /// Kills everything in it, frozen or not, also what is just being forked.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match self.write("cgroup.kill", "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.kill_one_by_one(),
            other => other,
        }
    }

    /// Before Linux 5.14: frozen, nothing can fork while the list is walked. SIGKILL ends the frozen as well.
    fn kill_one_by_one(&self) -> io::Result<()> {
        if self.can_freeze() {
            self.freeze(FREEZE_PATIENCE)?;
        }
        self.signal_all(Signal::KILL)?;
        if self.can_freeze() {
            self.thaw()?;
        }
        Ok(())
    }

    /// Waits until no process is left in it, nor below it; false if some still are.
    pub(crate) fn wait_empty(&self, patience: Duration) -> io::Result<bool> {
        self.wait_for_event("populated 0", patience)
    }

    /// Sends a signal to each process in it and below it. One that forks just now may be missed.
    pub(crate) fn signal_all(&self, signal: Signal) -> io::Result<()> {
        for pid in self.pids()? {
            // Gone already, or another user's: the others still have to hear it.
            let _ = kill_process(pid, signal);
        }
        Ok(())
    }

    /// All processes in it and below it.
    pub(crate) fn pids(&self) -> io::Result<Vec<Pid>> {
        let mut pids = Vec::new();
        collect_pids(self.directory.as_fd(), &mut pids)?;
        Ok(pids)
    }

    /// Removes it with all that the tree made below it. Fails while a process is left.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove_below(self.directory.as_fd())?;
        Ok(unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR)?)
    }

    fn wait_for_event(&self, line: &str, patience: Duration) -> io::Result<bool> {
        let mut events = self.open_file("cgroup.events", OFlags::RDONLY)?;
        let deadline = Instant::now() + patience;
        loop {
            let mut text = String::new();
            io::Seek::rewind(&mut events)?;
            events.read_to_string(&mut text)?;
            if text.lines().any(|found| found == line) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // The kernel announces a change of this file as exceptional. It may be late, so no single wait is long.
            let slice = left.min(Duration::from_millis(20));
            let timeout = Timespec { tv_sec: 0, tv_nsec: slice.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<fs::File> {
        Ok(openat(&self.directory, name, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?.into())
    }

    fn write(&self, name: &str, value: &str) -> io::Result<()> {
        self.open_file(name, OFlags::WRONLY)?.write_all(value.as_bytes())
    }
}

/// Kills and removes what is left at this location; true if there was something, and it is provably empty now.
pub(crate) fn sweep_cgroup(location: &str) -> bool {
    let Ok(Some(cgroup)) = Cgroup::open(location) else { return false };
    let emptied = cgroup.kill().is_ok() && cgroup.wait_empty(EMPTYING_PATIENCE).unwrap_or(false);
    if emptied {
        let _ = cgroup.remove();
    }
    emptied
}

fn collect_pids(directory: BorrowedFd<'_>, pids: &mut Vec<Pid>) -> io::Result<()> {
    let mut text = String::new();
    let procs = openat(directory, "cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // A threaded cgroup below cannot be listed by process; whatever is in it is killed with the rest.
    if fs::File::from(procs).read_to_string(&mut text).is_ok() {
        // 0 is a process of another PID namespace that we cannot name.
        pids.extend(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)));
    }
    for below in directories(directory)? {
        if let Ok(child) = open_directory(directory, &below) {
            collect_pids(child.as_fd(), pids)?;
        }
    }
    Ok(())
}

fn remove_below(directory: BorrowedFd<'_>) -> io::Result<()> {
    for below in directories(directory)? {
        if let Ok(child) = open_directory(directory, &below) {
            remove_below(child.as_fd())?;
        }
        unlinkat(directory, &below, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

fn directories(directory: BorrowedFd<'_>) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type() == FileType::Directory && name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_location_touches_no_strangers_cgroup() {
        for location in
            ["/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/../systole-x", "systole-x", "", "/a/systole-x/b"]
        {
            assert!(Cgroup::open(location).is_err(), "{location}");
        }
        assert!(Cgroup::open("/nowhere/systole-x").unwrap().is_none());
    }
}
