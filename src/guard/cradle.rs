//! Where init is born: in the strongest containment that can be had here.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, WaitOptions, geteuid, waitpid};

use super::containment::birth::{self, Born};
use super::containment::{Cgroup, Containment, Secured, Shortcoming, can_be_listed};
use super::init::{self, Stage};
use super::wire::{FromInit, receive};

/// An init that waits for its order, and what contains it.
pub(super) struct Cradle {
    pub(super) secured: Secured,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) init: Pid,
    pub(super) socket: UnixStream,
}

/// In a cgroup, and in a PID namespace: from the strongest down.
const TRIED: [(bool, bool); 4] = [(true, true), (true, false), (false, true), (false, false)];

/// Makes the strongest containment that can be had, at most the wished one, with an init waiting in it.
///
/// What looks possible may still fail at the birth itself (threaded cgroups, filters, limits), so births are tried.
pub(super) fn make(name: &str, wish: Option<Containment>, stage: &Stage) -> io::Result<Cradle> {
    let strongest = wish.unwrap_or(Containment::PidNamespace);
    let (cgroup, mut no_cgroup) = match strongest {
        Containment::Subreaper => (None, Some(not_wished("cgroup"))),
        _ => Cgroup::create(name).map_or_else(|why| (None, Some(why)), |cgroup| (Some(cgroup), None)),
    };
    let mut no_namespace = match strongest {
        Containment::PidNamespace if geteuid().is_root() => None,
        Containment::PidNamespace => Some(Shortcoming::new("no PID namespace: that takes root", "run it as root")),
        _ => Some(not_wished("PID namespace")),
    };
    let namespace = no_namespace.is_none();
    for (in_cgroup, in_namespace) in TRIED {
        if (in_cgroup && cgroup.is_none()) || (in_namespace && !namespace) {
            continue;
        }
        let parent = cgroup.as_ref().filter(|_| in_cgroup);
        match fork_init(parent, in_namespace, stage) {
            Ok((init, socket)) => {
                let freezer = parent.is_some_and(Cgroup::can_freeze);
                let shortcomings = [
                    no_cgroup.filter(|_| !in_cgroup),
                    (in_cgroup && !freezer).then(no_freezer),
                    no_namespace.filter(|_| !in_namespace),
                ];
                let level = match (in_cgroup, in_namespace) {
                    (_, true) => Containment::PidNamespace,
                    (true, false) => Containment::Cgroup,
                    (false, false) => Containment::Subreaper,
                };
                let location = parent.map(Cgroup::location);
                let unused = cgroup.as_ref().filter(|_| !in_cgroup);
                unused.map(Cgroup::remove);
                let secured = Secured {
                    level,
                    cgroup: location,
                    freezer,
                    shortcomings: shortcomings.into_iter().flatten().collect(),
                };
                return Ok(Cradle { secured, cgroup: cgroup.filter(|_| in_cgroup), init, socket });
            }
            Err(error) if in_namespace => no_namespace = Some(namespace_refused(&error)),
            Err(error) if in_cgroup => no_cgroup = Some(cgroup_refused(&error)),
            Err(error) => return Err(error),
        }
    }
    unreachable!("the last one is always tried, and its error returned")
}

fn not_wished(what: &str) -> Shortcoming {
    Shortcoming::new(format!("no {what}: the setting asks for less"), "set containment to auto")
}

fn no_freezer() -> Shortcoming {
    Shortcoming::new("no freezer: this kernel's cgroups have none", "use Linux 5.2 or newer")
}

fn namespace_refused(error: &io::Error) -> Shortcoming {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Shortcoming::new(
            "no PID namespace: that takes CAP_SYS_ADMIN",
            "give it that capability (docker run --cap-add SYS_ADMIN)",
        );
    }
    Shortcoming::new(format!("no PID namespace: {error}"), "run it outside of a container")
}

fn cgroup_refused(error: &io::Error) -> Shortcoming {
    Shortcoming::new(
        format!("no cgroup: ours takes no process in one below it: {error}"),
        "run it in a cgroup of its own: systemd-run --scope -p Delegate=yes",
    )
}

/// Forks init, born in its cgroup and namespaces.
fn fork_init(cgroup: Option<&Cgroup>, namespaces: bool, stage: &Stage) -> io::Result<(Pid, UnixStream)> {
    if cgroup.is_none() && !namespaces && !can_be_listed() {
        return Err(io::Error::other("this kernel does not list the children of a process (CONFIG_PROC_CHILDREN)"));
    }
    let (ours, theirs) = UnixStream::pair()?;
    let pid = match birth::fork(cgroup, namespaces)? {
        Born::Child => init::live(&theirs, stage),
        Born::Parent(pid) => pid,
    };
    drop(theirs);
    match receive(&ours)? {
        Some(FromInit::Ready) => Ok((pid, ours)),
        said => {
            let _ = waitpid(Some(pid), WaitOptions::empty());
            let Some(FromInit::Unready { reason }) = said else {
                return Err(io::Error::other("its first process ended before it was ready"));
            };
            Err(io::Error::other(reason))
        }
    }
}
