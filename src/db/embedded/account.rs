//! Whom the server runs as: ourselves, or `postgres` if we are root, whom PostgreSQL refuses.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, io};

use super::error::{EmbeddedError, last_lines};

/// Closes what our caller left open to us: a server would hold a caller's `flock`, or the end of its pipe, for days. (Our
/// own descriptors close on exec.) A shell does it without unsafe code; other shells than bash can name only 3 to 9.
const CLOSE_AND_EXEC: &str = "
    for fd in /dev/fd/*; do
        fd=${fd##*/}
        if [ \"$fd\" -gt 2 ] && { [ \"$fd\" -lt 10 ] || [ -n \"$BASH_VERSION\" ]; }; then eval \"exec $fd>&-\"; fi
    done
    exec \"$@\"";

/// The account of the server and of every program that touches its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether we are somebody else (root), and must become it.
    pub(super) switch: bool,
}

impl Account {
    pub(super) fn of_the_server() -> Result<Account, EmbeddedError> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if !uid.is_root() {
            return Ok(Account { uid: uid.as_raw(), gid: gid.as_raw(), switch: false });
        }
        let passwd = Path::new("/etc/passwd");
        let text = fs::read_to_string(passwd).map_err(EmbeddedError::io("read", passwd))?;
        let (uid, gid) = ids_of("postgres", &text).ok_or(EmbeddedError::NoAccount)?;
        Ok(Account { uid, gid, switch: true })
    }

    /// A program that will run under this account in `cwd`, with nothing of our environment that PostgreSQL would read
    /// (PGDATA, PGPORT, NOTIFY_SOCKET) or keep in memory for days (secrets), and no descriptor but the first three.
    pub(super) fn command(&self, program: &Path, cwd: &Path) -> Command {
        let shell = ["/bin/bash", "/bin/sh"].into_iter().find(|shell| Path::new(shell).exists()).unwrap_or("sh");
        let mut command = Command::new(shell);
        command
            .args(["-c", CLOSE_AND_EXEC, "sh"])
            .arg(program)
            .current_dir(cwd)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "UTC");
        if let Some(libraries) = std::env::var_os("LD_LIBRARY_PATH") {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        if self.switch {
            // std drops the supplementary groups too, and changes folder only as the new user.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }
}

/// Runs `command`, which is `program` for people, with `input`, and returns what it printed.
pub(super) fn run(
    program: &'static str,
    dir: &Path,
    mut command: Command,
    input: &str,
) -> Result<String, EmbeddedError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => EmbeddedError::unusable(
            dir,
            "the user `postgres`, as whom root runs the server, cannot reach it. Open every folder above it \
             (chmod o+x), or set SYSTOLE_EMBEDDED_DIR to one that is open, such as /var/lib/systole/embedded",
        ),
        _ => EmbeddedError::io("run a program of PostgreSQL in", dir)(error),
    })?;
    let mut stdin = child.stdin.take().expect("stdin was just set to a pipe");
    // It fits into the pipe, so this cannot block. A program that ends before it has read it says why on stderr; the
    // broken pipe tells nothing more.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(EmbeddedError::io("wait for a program in", dir))?;
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(EmbeddedError::Program { program, dir: dir.to_owned(), output: last_lines(&printed) });
    }
    Ok(printed)
}

/// The user and group id of `name` in the text of /etc/passwd.
fn ids_of(name: &str, passwd: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostgresql:x:7:7::/:\n# postgres:x:1:1\n\npostgres:x:101:104:Postgre\
                      SQL administrator,,,:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(ids_of("postgres", passwd), Some((101, 104)));
        assert_eq!(ids_of("nobody", passwd), None);
        assert_eq!(ids_of("postgres", "postgres:x:many:104::/:\npostgres"), None);
    }
}
