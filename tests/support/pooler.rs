//! A pgbouncer in transaction mode before a database of the tests: few sessions, lent to many.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Database, eventually, is_root};

/// As in Debian; elsewhere it is on the path.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// In the name of its socket.
const PORT: u16 = 6432;

/// So few that everybody has to share.
pub const SESSIONS_MAX: usize = 3;

/// A running pgbouncer. Ended when dropped, and with the thread that started it.
#[derive(Debug)]
pub struct Pooler {
    folder: tempfile::TempDir,
    account: (u32, u32),
    child: Child,
    behind: Database,
}

impl Pooler {
    /// One that ignores these startup parameters beyond those it knows, and refuses all others.
    pub fn before(database: &Database, ignored: &str) -> Pooler {
        let folder = tempfile::Builder::new().prefix("sy-pool").tempdir().expect("a folder");
        let (socket_dir, port) = database.socket();
        // It does not run as root, and only the server's account may enter the folder of the server's socket.
        let owner = std::fs::metadata(&socket_dir).expect("the server's folder");
        let account = (owner.uid(), owner.gid());
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let here = folder.path().display();
        let configuration = format!(
            "[databases]\n* = host={} port={port}\n\
             [pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\nunix_socket_dir = {here}\nauth_type = trust\n\
             auth_file = {here}/users\npool_mode = transaction\ndefault_pool_size = {SESSIONS_MAX}\n\
             max_client_conn = 300\nignore_startup_parameters = {ignored}\nlogfile = {here}/log\n",
            socket_dir.display()
        );
        std::fs::write(folder.path().join("pgbouncer.ini"), configuration).expect("it can be written");
        std::fs::write(folder.path().join("users"), "\"systole\" \"\"\n").expect("it can be written");
        if is_root() {
            chown(folder.path(), Some(account.0), None).expect("chown");
        }
        let child = spawn(&folder, account);
        let pooler = Pooler { folder, account, child, behind: database.clone() };
        pooler.wait_until_it_serves();
        pooler
    }

    /// The same database, through it.
    pub fn database(&self) -> Database {
        let folder = self.folder.path().display().to_string().replace('/', "%2F");
        self.behind.at(format!("postgresql://systole@/{}?host={folder}&port={PORT}", self.behind.name))
    }

    /// The database behind it.
    pub fn behind(&self) -> &Database {
        &self.behind
    }

    /// Ends it at once, and all connections through it.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    /// Ends it as an administrator would.
    pub fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
        let child = &mut self.child;
        eventually("the end of pgbouncer", Duration::from_secs(10), || child.try_wait().expect("it is ours"));
    }

    /// Starts it again, in the same place.
    pub fn start(&mut self) {
        self.child = spawn(&self.folder, self.account);
        self.wait_until_it_serves();
    }

    fn wait_until_it_serves(&self) {
        let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let socket = self.folder.path().join(format!(".s.PGSQL.{PORT}"));
        eventually("pgbouncer serves", Duration::from_secs(10), || UnixStream::connect(&socket).ok())
            .peer_addr()
            .unwrap_or_else(|error| panic!("{error}: {}", log()));
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &tempfile::TempDir, account: (u32, u32)) -> Child {
    let program = if std::path::Path::new(PROGRAM).exists() { PROGRAM } else { "pgbouncer" };
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if is_root() {
        let (user, group) = (account.0.to_string(), account.1.to_string());
        command.args(["--reuid", &user, "--regid", &group, "--clear-groups"]);
    }
    command.arg(program).arg("--quiet").arg(folder.path().join("pgbouncer.ini"));
    // Its folder is its own; ours may be closed to it.
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("setpriv and pgbouncer are installed: .ci/run does it")
}
