//! What of this host a run depends on: its name, its files.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::statvfs;

use super::Check;
use crate::config::Config;
use crate::db::holds_password;
use crate::identity::Identity;
use crate::state_dir::StateDir;

/// Below this a certificate of death may find no room.
const FREE_MIN: u64 = 64 << 20;

/// File systems on which a lock may be another host's: NFS, SMB, SMB2, CIFS, Ceph, FUSE (linux/magic.h).
#[cfg(target_os = "linux")]
const REMOTE: &[i64] = &[0x6969, 0x517b, 0xfe53_4d42, 0xff53_4d42, 0x00c3_6400, 0x6573_5546];

#[cfg(target_os = "linux")]
fn may_be_shared(path: &std::path::Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|system| REMOTE.contains(&system.f_type))
}

/// Those numbers are Linux's.
#[cfg(not(target_os = "linux"))]
fn may_be_shared(_: &std::path::Path) -> bool {
    false
}

pub(super) fn examine(config: &Config) -> Vec<Check> {
    let mut checks = vec![name(), state(config)];
    checks.extend(configuration(config));
    checks
}

fn name() -> Check {
    let host = Identity::of_this_process().host;
    if host.starts_with("localhost") {
        let found = format!("this host calls itself {host}, as others may: nobody can tell where PID@{host} is");
        return Check::bad("host", found, "give it a name of its own (hostnamectl), or set SYSTOLE_HOST");
    }
    Check::good("host", format!("executors of this host are PID@{host}"))
}

fn state(config: &Config) -> Check {
    let state = match StateDir::open(&config.state_dir()) {
        Ok(state) => state,
        Err(error) => return Check::bad("state", error.to_string(), "see there"),
    };
    let path = state.root().display();
    if may_be_shared(state.root()) {
        let found =
            format!("{path} is on a file system that other hosts may share: a certificate there proves nothing");
        return Check::bad("state", found, "name a folder on a local disk with --state-dir or SYSTOLE_STATE_DIR");
    }
    if let Ok(system) = statvfs(state.root()) {
        let free = system.f_bavail * system.f_frsize;
        if free < FREE_MIN {
            let found = format!("{path} has {} MiB left: a death may not be certified there", free >> 20);
            return Check::bad(
                "state",
                found,
                "make room, or name another folder with --state-dir or SYSTOLE_STATE_DIR",
            );
        }
    }
    Check::good("state", format!("{path} is private, local and writable"))
}

/// A password in a file is for its owner alone.
fn configuration(config: &Config) -> Option<Check> {
    let path = config.file_with(|key, value| key.is_secret && holds_password(value))?;
    let mode = fs::metadata(path).ok()?.permissions().mode();
    let shown = path.display();
    Some(if mode & 0o077 == 0 {
        Check::good("secrets", format!("{shown} holds a password, and is private"))
    } else {
        Check::bad(
            "secrets",
            format!("{shown} holds a password, and others can read it"),
            format!("chmod 0600 {shown}"),
        )
    })
}
