//! Where our own cgroup is: found among the mounts, whoever made them, and whether a tree's cgroup can be made in it.
//!
//! What a tree needs is the right to make a folder there and to write `cgroup.procs`: root's everywhere, anybody's where
//! a manager has delegated it. No controller is enabled, so the rule that inner cgroups hold no processes is not ours.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::process::geteuid;

use super::shortcoming::Shortcoming;

/// In a location: a mount that we have to make for ourselves.
pub(super) const PRIVATE_MOUNT: &str = "private:";

/// Our own cgroup: opened, and as the beginning of a location.
pub(super) fn own_cgroup() -> Result<(OwnedFd, String), Shortcoming> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let Some(own) = own_path(&read("/proc/self/cgroup")) else {
        return Err(Shortcoming::new(
            "no cgroup: this system has no cgroup v2",
            "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1)",
        ));
    };
    if own.split('/').any(|part| part == "..") {
        return Err(Shortcoming::new(
            format!("no cgroup: ours ({own}) lies outside of our cgroup namespace"),
            "enter the cgroup together with its namespace",
        ));
    }
    let paths = mounts(&read("/proc/self/mountinfo")).into_iter().filter_map(|mount| mount.path_of(&own));
    for path in paths {
        match writable_directory(&path) {
            Ok(directory) => return Ok((directory, path.display().to_string().trim_end_matches('/').to_owned())),
            // Something else is mounted over it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Whoever mounted it read-only or kept it for himself has meant it: no mount of our own gets around that.
            Err(error) => return Err(unusable(&path, &error)),
        }
    }
    let inside = || open_directory(private_mount()?, own.trim_start_matches('/'));
    match inside() {
        Ok(directory) => Ok((directory, format!("{PRIVATE_MOUNT}{}", own.trim_end_matches('/')))),
        Err(_) => Err(Shortcoming::new(
            "no cgroup: no cgroup v2 is mounted here",
            "mount it: mount -t cgroup2 none /sys/fs/cgroup",
        )),
    }
}

/// Why the cgroup at this path is of no use to us.
pub(super) fn unusable(path: &Path, error: &io::Error) -> Shortcoming {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => Shortcoming::new(
            format!("no cgroup: {path} is mounted read-only"),
            "mount cgroups writable (in docker: --privileged, in podman: --systemd=always)",
        ),
        io::ErrorKind::PermissionDenied => Shortcoming::new(
            format!("no cgroup: {path} is not delegated to user {}", geteuid().as_raw()),
            "run it within systemd-run --user --scope -p Delegate=yes, or in a unit with Delegate=yes",
        ),
        _ => Shortcoming::new(
            format!("no cgroup: {path}: {error}"),
            "run it in a cgroup of its own: systemd-run --scope -p Delegate=yes",
        ),
    }
}

fn writable_directory(path: &Path) -> io::Result<OwnedFd> {
    let directory = open_directory(CWD, path)?;
    // Moving a process takes the right to write here, and a read-only mount says so too.
    openat(&directory, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(directory)
}

pub(super) fn open_directory(at: impl AsFd, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let path = path.as_ref();
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    Ok(openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The whole hierarchy, mounted for nobody but the holder of this descriptor. Takes CAP_SYS_ADMIN.
pub(super) fn private_mount() -> io::Result<OwnedFd> {
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
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// Where this mount shows the cgroup of this path. In a container it may show only a part of the hierarchy, while without
    /// a cgroup namespace our path is from the top of it all.
    fn path_of(&self, cgroup: &str) -> Option<PathBuf> {
        let inside = Path::new(cgroup).strip_prefix(&self.root).ok()?;
        Some(self.point.components().chain(inside.components()).collect())
    }
}

/// The mounts of cgroup v2, from /proc/self/mountinfo: `id parent dev root point options … - cgroup2 source options`.
fn mounts(text: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        if after.split(' ').next()? != "cgroup2" {
            return None;
        }
        let mut fields = before.split(' ').skip(3).map(|field| PathBuf::from(unescaped(field)));
        Some(Mount { root: fields.next()?, point: fields.next()? })
    };
    text.lines().filter_map(parse).collect()
}

/// The kernel writes space, tab, newline and backslash in octal.
fn unescaped(text: &str) -> String {
    let replaced = text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
    replaced.replace("\\134", "\\")
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
    fn a_mount_that_does_not_show_our_cgroup_is_not_searched_for_it() {
        let mount = |root: &str| Mount { root: root.into(), point: "/cg".into() };
        assert_eq!(mount("/").path_of("/a/b"), Some("/cg/a/b".into()));
        assert_eq!(mount("/").path_of("/").unwrap().display().to_string(), "/cg");
        assert_eq!(mount("/docker/abc").path_of("/docker/abc/x"), Some("/cg/x".into()));
        for other in ["/docker/ab", "/docker/abcd", "/../..", "/docker/abc/x/y"] {
            assert_eq!(mount(other).path_of("/docker/abc/x"), None, "{other}");
        }
    }
}
