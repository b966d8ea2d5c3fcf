//! What `postmaster.pid` says, and whether that is still true: it outlives a crash, and pids are used again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::account::Account;
use super::error::EmbeddedError;
use super::folder::write_private;

/// A pid above any `pid_max`.
const NOBODY: i32 = i32::MAX;

/// The server of a data folder, by its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Postmaster {
    pub(super) pid: Pid,
    /// Not yet there while it starts.
    pub(super) port: Option<u16>,
    /// Whether it takes connections; its socket is there before and after that.
    pub(super) ready: bool,
}

impl Postmaster {
    /// What stands in the file, be it true or left over. Costs one read.
    pub(super) fn recorded(data: &Path) -> Option<Postmaster> {
        parse(&fs::read_to_string(data.join("postmaster.pid")).ok()?)
    }

    /// The server that runs on `data` now.
    pub(super) fn running(data: &Path) -> Option<Postmaster> {
        Postmaster::recorded(data)
            .filter(|postmaster| works_in(postmaster.pid, data).unwrap_or_else(|| is_named_postgres(postmaster.pid)))
    }

    /// Whether it is still there: it removes its file somewhat before it ends.
    pub(super) fn lives(self, data: &Path) -> bool {
        Postmaster::running(data).is_some_and(|running| running.pid == self.pid)
            || works_in(self.pid, data) == Some(true)
    }
}

/// Lines: pid, folder, start time, port, socket folder, listen address, shared memory, status. The later ones are
/// added while the server starts.
fn parse(text: &str) -> Option<Postmaster> {
    let mut lines = text.lines();
    let pid = Pid::from_raw(lines.next()?.trim().parse().ok().filter(|pid| *pid > 0)?)?;
    let port = lines.nth(2).and_then(|line| line.trim().parse().ok());
    let ready = lines.nth(3).is_some_and(|status| status.trim() == "ready");
    Some(Postmaster { pid, port, ready })
}

/// Whether a process lives and has its working folder, which for a postmaster is its data folder, in `data`. `None`:
/// root without CAP_SYS_PTRACE (Docker's default) may not look, and macOS has no /proc.
fn works_in(pid: Pid, data: &Path) -> Option<bool> {
    if test_kill_process(pid).is_err() {
        // Gone, or of another user: then it never was ours.
        return Some(false);
    }
    match (fs::metadata(format!("/proc/{pid}/cwd")), fs::metadata(data)) {
        (Ok(cwd), Ok(data)) => Some((cwd.dev(), cwd.ino()) == (data.dev(), data.ino())),
        (Err(error), _) if error.kind() == io::ErrorKind::PermissionDenied => None,
        // A zombie has no folder any more.
        _ => cfg!(target_os = "linux").then_some(false),
    }
}

/// Kills what has outlived its postmaster. Backends end by themselves when theirs has gone, but for one that waits for a lock in shared
/// memory whose holder was killed: for ever, deaf to SIGTERM, and no server can be started beside it. Only when nothing is
/// [`Postmaster::running`].
pub(super) fn kill_the_bereaved(data: &Path) {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    for pid in pids.filter(|pid| is_named_postgres(*pid) && works_in(*pid, data) == Some(true)) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn is_named_postgres(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).map_or(!cfg!(target_os = "linux"), |name| name.trim() == "postgres")
}

/// Makes a left-over `postmaster.pid` harmless. Only under the lock, and when nothing is [`Postmaster::running`].
///
/// PostgreSQL clears it away itself, unless its pid now belongs to another process of the same user, as happens after
/// every restart of a container. The file stays, since it also names the shared memory by which PostgreSQL finds
/// backends that outlived their postmaster; only the pid is replaced. A file cut short by a full disk says nothing and
/// goes.
pub(super) fn clear_stale(data: &Path, account: &Account) -> Result<(), EmbeddedError> {
    let path = data.join("postmaster.pid");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(EmbeddedError::io("read", &path)(error)),
    };
    match (parse(&text), text.split_once('\n')) {
        (Some(postmaster), Some((_, rest))) if test_kill_process(postmaster.pid).is_ok() => {
            write_private(&path, &format!("{NOBODY}\n{rest}"), account)
        }
        (Some(_), _) => Ok(()),
        (None, _) => fs::remove_file(&path).map_err(EmbeddedError::io("clear away the stale", &path)),
    }
}

/// Removes the lock files of sockets that nobody listens on any more. Only under the lock, and when nothing is
/// [`Postmaster::running`].
///
/// Like `postmaster.pid` they name a pid, and PostgreSQL does not start while a process of its user has that: another one
/// that was given it, or the killed server itself for as long as nobody has waited for it. Whether backends have outlived
/// their postmaster is told by `postmaster.pid` alone.
pub(super) fn clear_stale_locks(socket_dir: &Path) -> Result<(), EmbeddedError> {
    for entry in fs::read_dir(socket_dir).map_err(EmbeddedError::io("list", socket_dir))? {
        let path = entry.map_err(EmbeddedError::io("list", socket_dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(".s.PGSQL.") && name.ends_with(".lock") {
            fs::remove_file(&path).map_err(EmbeddedError::io("clear away the stale", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str = "5745\n/tmp/d\n1795237720\n7777\n../s\n127.0.0.1\n 10010657        11\nready   \n";

    #[test]
    fn a_server_is_ready_only_when_it_says_so() {
        let postmaster = parse(READY).unwrap();
        assert_eq!(
            (postmaster.pid.as_raw_nonzero().get(), postmaster.port, postmaster.ready),
            (5745, Some(7777), true)
        );
        assert!(!parse(&READY.replace("ready   ", "stopping")).unwrap().ready);
        let half = parse("5745\n/tmp/d\n").unwrap();
        assert_eq!((half.port, half.ready), (None, false));
        assert_eq!(parse(""), None);
        assert_eq!(parse("-5745\n"), None);
    }

    #[test]
    fn a_pid_that_was_given_to_another_process_is_no_server_and_is_made_harmless() {
        let me = Account { uid: 0, gid: 0, switch: false };
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("postmaster.pid");
        fs::write(&file, READY.replace("5745", &std::process::id().to_string())).unwrap();
        assert!(Postmaster::recorded(data.path()).is_some());
        if cfg!(target_os = "linux") {
            assert_eq!(Postmaster::running(data.path()), None);
        }
        clear_stale(data.path(), &me).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), READY.replace("5745", "2147483647"));
        fs::write(&file, "").unwrap();
        clear_stale(data.path(), &me).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn the_lock_of_a_dead_servers_socket_keeps_nobody_from_starting() {
        let sockets = tempfile::tempdir().unwrap();
        let (lock, other) = (sockets.path().join(".s.PGSQL.5432.lock"), sockets.path().join("notes.lock"));
        // A pid that lives: PostgreSQL would believe it, and refuse.
        fs::write(&lock, format!("{}\n/tmp/d\n", std::process::id())).unwrap();
        fs::write(&other, "").unwrap();
        clear_stale_locks(sockets.path()).unwrap();
        assert!(!lock.exists() && other.exists());
    }
}
