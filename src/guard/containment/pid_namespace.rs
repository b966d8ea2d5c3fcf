//! A PID namespace of the tree's own: when its first process dies, the kernel kills all of it, whoever else is dead.

use std::io;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;

/// The next child of this process becomes PID 1 of a new namespace. Root only.
pub(crate) fn unshare_for_children() -> io::Result<()> {
    unshare(UnshareFlags::NEWPID)
}

/// As PID 1: gives the tree a /proc of its own namespace, in a mount namespace of its own.
///
/// Mounts made outside still arrive inside; those made inside stay there.
pub(crate) fn mount_own_proc() -> io::Result<()> {
    unshare(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    Ok(())
}

#[allow(unsafe_code)]
fn unshare(what: UnshareFlags) -> io::Result<()> {
    debug_assert!(!what.contains(UnshareFlags::FILES));
    // SAFETY: what makes unshare unsafe is CLONE_FILES, after which threads would see different descriptors. It is never
    // asked for here, and guard and init have one thread.
    unsafe { rustix::thread::unshare_unsafe(what) }?;
    Ok(())
}
