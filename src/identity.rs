//! Who this process is: `PID@host` for people; boot id, pid namespace, pid and start time for truth.

use std::fs;

use serde::{Deserialize, Serialize};

/// The identity under which a process registers as an executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `PID@host`, for people. Not unique: two hosts may bear one name, and pids are used again.
    pub executor_id: String,
    /// The host's name as the kernel has it, or what `SYSTOLE_HOST` says (containers often bear meaningless names).
    pub host: String,
    /// Process id in the pid namespace of this process.
    pub pid: i32,
    /// The kernel's random id of this boot, where there is one.
    pub boot_id: Option<String>,
    /// The pid namespace that `pid` belongs to, such as `pid:[4026531836]`.
    pub pid_namespace: Option<String>,
    /// Start of this process in clock ticks since the boot (field 22 of /proc/PID/stat).
    pub process_started: Option<i64>,
}

impl Identity {
    /// The identity of this process.
    pub fn of_this_process() -> Identity {
        let host = std::env::var("SYSTOLE_HOST")
            .ok()
            .filter(|name| !name.is_empty())
            .or_else(|| hostname::get().ok().map(|name| name.to_string_lossy().into_owned()))
            .unwrap_or_else(|| "localhost".to_owned());
        let pid = std::process::id() as i32;
        Identity {
            executor_id: format!("{pid}@{host}"),
            host,
            pid,
            boot_id: boot_id(),
            pid_namespace: fs::read_link("/proc/self/ns/pid").ok().map(|link| link.to_string_lossy().into_owned()),
            process_started: process_started("self"),
        }
    }
}

/// Who asks for something, and why: for the history.
#[derive(Debug, Clone)]
pub(crate) struct By {
    /// `USER@host`.
    pub(crate) who: String,
    pub(crate) reason: Option<String>,
}

impl By {
    /// The user of this process.
    pub(crate) fn this_user(reason: Option<String>) -> By {
        let user = whoami::username().unwrap_or_else(|_| "unknown".to_owned());
        By { who: format!("{user}@{}", Identity::of_this_process().host), reason }
    }
}

/// The kernel's random id of this boot; `None` where the system has none.
pub fn boot_id() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

fn process_started(process: &str) -> Option<i64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The command name may hold spaces and parentheses; the numbers start behind its last one.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_knows_when_it_started() {
        let identity = Identity::of_this_process();
        assert!(identity.process_started.unwrap() > 0);
        assert_eq!(identity.executor_id, format!("{}@{}", std::process::id(), identity.host));
    }
}
