//! A cgroup of the tree's own: it holds whatever the command starts, and can be frozen, killed and seen to be empty.
//!
//! Made inside our own cgroup, so that whatever contains us (a systemd scope, an outer systole) contains it as well.
//! No controller is enabled: freezing and killing are part of every cgroup v2.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::process::{Pid, Signal, kill_process};

/// How long a freeze may take: 32 spinning processes took 18 ms.
const FREEZE_PATIENCE: Duration = Duration::from_secs(2);

/// Every cgroup of ours is named so; no other is ever touched, whatever a state file says.
const PREFIX: &str = "systole-";

/// In a location: a mount that we have to make for ourselves.
const PRIVATE_MOUNT: &str = "private:";

/// A directory of the cgroup v2 hierarchy.
#[derive(Debug)]
pub(crate) struct Cgroup {
    directory: OwnedFd,
    parent: OwnedFd,
    name: String,
    location: String,
}

impl Cgroup {
    /// Makes a new one for the tree of this name. The error says why there can be none here.
    pub(crate) fn create(name: &str) -> io::Result<Cgroup> {
        let (parent, base) = own_cgroup()?;
        let name = format!("{PREFIX}{name}");
        mkdirat(&parent, &name, Mode::from_raw_mode(0o755))?;
        let directory = open_directory(&parent, &name)?;
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

    /// Freezes everything in it, and waits until it is; false if it was not within two seconds (a process stuck in the
    /// kernel: it runs no code of its own, and freezes when it returns).
    pub(crate) fn freeze(&self) -> io::Result<bool> {
        self.write("cgroup.freeze", "1")?;
        self.wait_for_event("frozen 1", FREEZE_PATIENCE)
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
            self.freeze()?;
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

/// Our own cgroup: opened, and as the beginning of a location.
fn own_cgroup() -> io::Result<(OwnedFd, String)> {
    let own = own_path(&fs::read_to_string("/proc/self/cgroup")?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "this process is in no cgroup v2"))?;
    let mounts = mounts(&fs::read_to_string("/proc/self/mountinfo")?);
    let mut reason = io::Error::new(io::ErrorKind::NotFound, "no cgroup v2 is mounted");
    for mount in mounts {
        // In a container the mount may show only a part of the hierarchy; without a cgroup namespace our path is from the
        // top of it all.
        let inside = own.strip_prefix(mount.root.trim_end_matches('/')).unwrap_or(&own);
        let path = mount.point.join(inside.trim_start_matches('/'));
        match writable_directory(&path) {
            Ok(directory) => return Ok((directory, path.display().to_string().trim_end_matches('/').to_owned())),
            Err(error) => reason = io::Error::new(error.kind(), format!("{}: {error}", path.display())),
        }
    }
    if reason.kind() == io::ErrorKind::NotFound && rustix::process::geteuid().is_root() {
        let top = private_mount()?;
        let directory = open_directory(&top, own.trim_start_matches('/'))?;
        return Ok((directory, format!("{PRIVATE_MOUNT}{}", own.trim_end_matches('/'))));
    }
    Err(reason)
}

fn writable_directory(path: &Path) -> io::Result<OwnedFd> {
    let directory = open_directory(CWD, path)?;
    // Moving a process takes the right to write here, and a read-only mount says so too.
    openat(&directory, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(directory)
}

fn open_directory(at: impl AsFd, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let path = path.as_ref();
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    Ok(openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The whole hierarchy, mounted for nobody but the holder of this descriptor.
fn private_mount() -> io::Result<OwnedFd> {
    let filesystem = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(filesystem.as_fd())?;
    Ok(fsmount(filesystem.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// Our path in the v2 hierarchy, from /proc/self/cgroup.
fn own_path(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    root: String,
    point: PathBuf,
}

/// The mounts of cgroup v2, from /proc/self/mountinfo: `id parent dev root point options … - cgroup2 source options`.
fn mounts(text: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        if after.split(' ').next()? != "cgroup2" {
            return None;
        }
        let mut fields = before.split(' ').skip(3);
        Some(Mount { root: unescaped(fields.next()?), point: PathBuf::from(unescaped(fields.next()?)) })
    };
    text.lines().filter_map(parse).collect()
}

/// The kernel writes space, tab, newline and backslash in octal.
fn unescaped(text: &str) -> String {
    let replaced = text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
    replaced.replace("\\134", "\\")
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
    fn the_hierarchy_is_found_wherever_it_is_mounted() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      38 31 0:35 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(mounts(hybrid), [Mount { root: "/".into(), point: "/sys/fs/cgroup/unified".into() }]);
        let container = "9 8 0:26 /docker/abc /mnt/with\\040space ro master:4 - cgroup2 cgroup rw,nsdelegate\n";
        assert_eq!(mounts(container), [Mount { root: "/docker/abc".into(), point: "/mnt/with space".into() }]);
        assert_eq!(mounts("31 23 0:28 / /proc rw - proc proc rw\n"), []);
        assert_eq!(own_path("9:name=systemd:/x\n0::/user.slice\n").as_deref(), Some("/user.slice"));
    }

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
