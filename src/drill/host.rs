//! One machine of the drill: a thread, if we are root in a network and with mounts of its own, in which its processes are born.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{Pid, UnshareFlags, gettid};

use super::error::DrillError;

/// How much a host's own disk holds.
const DISK_BYTES: u64 = 16 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// The thread. What it has made for itself is gone when it ends and its processes have.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) name: String,
    thread_id: Pid,
    jobs: mpsc::Sender<Job>,
}

impl Host {
    /// `is_apart`: in a network and with mounts of its own. Takes root.
    pub(super) fn start(name: &str, is_apart: bool) -> Result<Host, DrillError> {
        let (jobs, incoming) = mpsc::channel::<Job>();
        let (answer, started) = mpsc::channel();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let left = if is_apart { leave() } else { Ok(()) };
                let is_ready = left.is_ok();
                let _ = answer.send(left.map(|()| gettid()));
                if is_ready {
                    incoming.into_iter().for_each(|job| job());
                }
            })
            .and_then(|_| started.recv().map_err(io::Error::other)?)
            .map(|thread_id| Host { name: name.to_owned(), thread_id, jobs })
            .map_err(DrillError::at(format!("start host {name}")))
    }

    /// Does it on this host, and waits for it.
    pub(super) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = mpsc::channel();
        let job = Box::new(move || {
            let _ = answer.send(job());
        });
        self.jobs.send(job).expect("the thread lives as long as its sender");
        answered.recv().expect("a job that panics is a bug of ours")
    }

    /// By which others find its network.
    pub(super) fn thread_id(&self) -> Pid {
        self.thread_id
    }

    /// Runs `ip` there.
    pub(super) fn ip(&self, arguments: &str) -> Result<(), DrillError> {
        let (told, arguments) = (arguments.to_owned(), arguments.to_owned());
        let failed = move |error| DrillError::at(format!("ip {told}"))(error);
        self.run(move || {
            let output = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).output()?;
            let words = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if output.status.success() { Ok(()) } else { Err(io::Error::other(words())) }
        })
        .map_err(failed)
    }

    /// Puts a small disk of its own at `folder`, seen by this host alone.
    pub(super) fn mount_disk(&self, folder: &Path) -> Result<(), DrillError> {
        let at = folder.to_owned();
        let size = std::ffi::CString::new(format!("size={DISK_BYTES},mode=0700")).expect("no NUL");
        self.run(move || mount("none", &at, "tmpfs", MountFlags::NODEV, size.as_c_str()))
            .map_err(|error| DrillError::at(format!("mount a disk at {}", folder.display()))(error.into()))
    }
}

/// Into a network with nothing in it, and with mounts that nobody else sees.
#[allow(unsafe_code)]
fn leave() -> io::Result<()> {
    // SAFETY: of what is unshared, descriptors and memory are no part; this thread has just begun and holds nothing else.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS)? };
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(())
}
