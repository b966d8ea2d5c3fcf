//! Cgroups made by hand as systemd makes them, and taken down again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What systemd hands over of a cgroup that it delegates, besides the folder.
const DELEGATED: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];

/// A part of the hierarchy. Whatever is in it when this is dropped is killed, and it is removed.
#[derive(Debug)]
pub struct Cgroup {
    top: PathBuf,
    path: PathBuf,
}

impl Cgroup {
    /// A service of the system, which is root's.
    pub fn service() -> Cgroup {
        Cgroup::make("system.slice/nightly.service")
    }

    /// A service with `Delegate=yes` and `User=`.
    pub fn delegated_service(uid: u32) -> Cgroup {
        let cgroup = Cgroup::service();
        delegate(&cgroup.path, uid);
        cgroup
    }

    /// What `systemd-run --user --scope -p Delegate=yes` makes: the manager of a user is delegated to, and makes the rest.
    pub fn user_scope(uid: u32) -> Cgroup {
        let cgroup = Cgroup::make(&format!("user.slice/user-{uid}.slice/user@{uid}.service/app.slice/run-1.scope"));
        for path in cgroup.path.ancestors().take(3) {
            delegate(path, uid);
        }
        cgroup
    }

    /// A service whose manager has handed over the folder, and nothing in it: processes cannot be moved there.
    pub fn half_delegated_service(uid: u32) -> Cgroup {
        let cgroup = Cgroup::service();
        std::os::unix::fs::chown(&cgroup.path, Some(uid), Some(uid)).expect("we are root");
        cgroup
    }

    /// One of threads, below which no cgroup can hold processes.
    pub fn threaded() -> Cgroup {
        let cgroup = Cgroup::make("threads");
        std::fs::write(cgroup.path.join("cgroup.type"), "threaded").expect("we are root");
        cgroup
    }

    /// Whether there is one below where the processes are.
    pub fn has_below(&self) -> bool {
        let mut entries = std::fs::read_dir(&self.path).expect("it lives").flatten();
        entries.any(|entry| entry.file_type().expect("a type").is_dir())
    }

    /// Stops all of it at once, as a machine that is paused; returns when nothing in it runs.
    pub fn freeze(&self) {
        std::fs::write(self.top.join("cgroup.freeze"), "1").expect("we are root");
        super::eventually("a frozen cgroup", Duration::from_secs(5), || {
            let events = std::fs::read_to_string(self.top.join("cgroup.events")).expect("it lives");
            events.contains("frozen 1").then_some(())
        });
    }

    /// All of it goes on at once.
    pub fn thaw(&self) {
        std::fs::write(self.top.join("cgroup.freeze"), "0").expect("we are root");
    }

    fn make(below: &str) -> Cgroup {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("systole-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let top = own().expect("a cgroup v2").join(name);
        let path = top.join(below);
        std::fs::create_dir_all(&path).expect("a cgroup");
        Cgroup { top, path }
    }

    /// Where the processes are.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn delegate(path: &Path, uid: u32) {
    let files = DELEGATED.iter().map(|file| path.join(file));
    for path in files.chain([path.to_owned()]) {
        std::os::unix::fs::chown(path, Some(uid), Some(uid)).expect("we are root");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Before Linux 5.14 there is none; nothing is left in it unless a test has failed.
        let _ = std::fs::write(self.top.join("cgroup.kill"), "1");
        let started = Instant::now();
        while remove(&self.top).is_err() {
            let patient = started.elapsed() < Duration::from_secs(5);
            assert!(patient || std::thread::panicking(), "{} does not get empty", self.top.display());
            if !patient {
                return;
            }
            std::thread::sleep(Duration::from_millis(5)); // between two looks at a condition
        }
    }
}

/// Removes a cgroup and those below it, if they are empty.
fn remove(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    std::fs::remove_dir(path)
}

/// The cgroup of this process, where there is one that is shown.
pub fn own() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?.to_owned();
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(PathBuf::from(mount).join(own))
}
