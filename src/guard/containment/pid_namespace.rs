//! A PID namespace of the tree's own: when its first process dies, the kernel kills all of it, whoever else is dead.

use std::io;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

/// As PID 1, in a mount namespace of our own: gives the tree a /proc that shows its own processes.
///
/// Mounts made outside still arrive inside; those made inside stay there.
pub(crate) fn mount_own_proc() -> io::Result<()> {
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    Ok(())
}
