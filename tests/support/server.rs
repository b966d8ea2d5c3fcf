//! One private PostgreSQL per test process, ended when that process ends, however it ends; a database per test.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use systole::db::embedded::{Cluster, Endpoint, Options, StopMode};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::eventually;
use super::process::{children, state};

struct Server {
    endpoint: Endpoint,
    /// While this is open, the server lives.
    _leash: ChildStdin,
}

/// A database of a test's own, migrated. Dropped with the server.
#[derive(Debug, Clone)]
pub struct Database {
    pub url: String,
    pub name: String,
    endpoint: Endpoint,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("systole-test-{}", std::process::id()));
        let cluster = Cluster::at(dir.clone()).with(Options { durable: false });
        let endpoint = cluster.ensure_running().expect("a private PostgreSQL for the tests");
        let leash = leash(cluster.status().expect("status").running.expect("it runs"), &dir);
        let server = Server { endpoint, _leash: leash };
        runtime().block_on(async {
            let target = url(&server.endpoint, "systole").parse().expect("a url");
            systole::db::migrate(&target, &Default::default()).await.expect("the template is migrated");
        });
        server
    })
}

/// A process that ends the server when this one has ended.
fn leash(pid: i32, dir: &std::path::Path) -> ChildStdin {
    // A test that died may have left the server stopped.
    let script = format!("cat >/dev/null; kill -QUIT {pid}; kill -CONT {pid}; rm -rf '{}'", dir.display());
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("setsid and sh are everywhere").stdin.expect("piped")
}

fn url(endpoint: &Endpoint, database: &str) -> String {
    endpoint.url().replace("/systole?", &format!("/{database}?"))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

impl Database {
    /// A clone of the migrated template.
    pub fn new() -> Database {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Database::named("postgres").sql(&format!("CREATE DATABASE {name} TEMPLATE systole STRATEGY FILE_COPY"));
        Database::named(&name)
    }

    /// An empty database, not migrated.
    pub fn empty() -> Database {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("empty_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Database::named("postgres").sql(&format!("CREATE DATABASE {name} TEMPLATE template0"));
        Database::named(&name)
    }

    /// One of the tests' common server.
    fn named(name: &str) -> Database {
        let endpoint = server().endpoint.clone();
        Database { url: url(&endpoint, name), name: name.to_owned(), endpoint }
    }

    /// A whole server of a test's own, for tests that restart it. The folder is removed with the returned guard.
    pub fn on_own_server() -> (Database, OwnServer) {
        let (database, own) = OwnServer::started(OwnServer::empty_folder());
        runtime().block_on(async {
            systole::db::migrate(&database.url.parse().expect("a url"), &Default::default()).await.expect("migrated");
        });
        (database, own)
    }

    /// The same for whoever cannot enter the folder of the server's socket.
    pub fn over_tcp(&self) -> Database {
        let url = self.endpoint.tcp_url_with_password().expect("a password");
        let url = url.strip_suffix("/systole").expect("the name of the database comes last");
        Database { url: format!("{url}/{}", self.name), ..self.clone() }
    }

    /// A connection of the caller's own.
    pub async fn connect(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.expect("connect");
        tokio::spawn(async move {
            let _ = connection.await;
        });
        client
    }

    /// Runs SQL and returns all rows as text, NULL as the empty text.
    #[track_caller]
    pub fn sql(&self, text: &str) -> Vec<Vec<String>> {
        self.try_sql(text).unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    /// The same, with the error as a value.
    pub fn try_sql(&self, text: &str) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
        // On a thread of its own: a caller may be within a runtime.
        std::thread::scope(|scope| {
            let query = || {
                runtime().block_on(async {
                    let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
                    tokio::spawn(async move {
                        let _ = connection.await;
                    });
                    client.simple_query(text).await
                })
            };
            let messages = scope.spawn(query).join().expect("the query does not panic")?;
            let row = |message: &SimpleQueryMessage| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|n| row.get(n).unwrap_or_default().to_owned()).collect())
                }
                _ => None,
            };
            Ok(messages.iter().filter_map(row).collect())
        })
    }

    /// The only value of the only row.
    #[track_caller]
    pub fn value(&self, text: &str) -> String {
        let rows = self.sql(text);
        assert_eq!(rows.len(), 1, "{text}: {rows:?}");
        rows[0][0].clone()
    }

    /// The folder and the port of the server's socket.
    pub fn socket(&self) -> (PathBuf, u16) {
        let (folder, port) =
            self.url.rsplit_once("?host=").expect("by a socket").1.split_once("&port=").expect("a port");
        (folder.replace("%2F", "/").into(), port.parse().expect("a number"))
    }

    /// The same database, by another way.
    pub fn at(&self, url: String) -> Database {
        Database { url, ..self.clone() }
    }

    /// The same database, as another role: over TCP, by a password that is its own name.
    pub fn as_role(&self, role: &str) -> Database {
        let (_, port) = self.socket();
        self.at(format!("postgresql://{role}:{role}@127.0.0.1:{port}/{}", self.name))
    }

    /// Makes a role that may log in so, with these clauses of CREATE ROLE.
    pub fn create_role(&self, role: &str, clauses: &str) -> Database {
        self.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD '{role}' {clauses}"));
        self.as_role(role)
    }

    /// Makes the heartbeat of a run's holder look this old.
    pub fn age_heartbeat(&self, run_id: &str, seconds: f64) {
        self.sql(&format!(
            "UPDATE systole.executor_instances SET last_heartbeat = clock_timestamp() - interval '{seconds} seconds'
              WHERE run_id = '{run_id}' AND status = 'RUNNING'"
        ));
    }

    /// Makes the server look as if it had accepted writes for a day, so that takeovers by age are possible in a test.
    pub fn pretend_old_server(&self) {
        self.sql(
            "CREATE OR REPLACE FUNCTION systole.rw_since() RETURNS timestamptz LANGUAGE sql STABLE SECURITY DEFINER
             AS $$ SELECT clock_timestamp() - interval '1 day' $$",
        );
    }
}

/// A server that a test may stop and start.
pub struct OwnServer {
    pub cluster: Cluster,
    pub endpoint: Endpoint,
    _leashes: Vec<ChildStdin>,
    folder: tempfile::TempDir,
}

impl OwnServer {
    fn empty_folder() -> tempfile::TempDir {
        let folder = tempfile::Builder::new().prefix("systole-own-").tempdir().expect("a folder");
        // The server's account must be able to walk there.
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
        folder
    }

    fn started(folder: tempfile::TempDir) -> (Database, OwnServer) {
        let cluster = Cluster::at(folder.path().join("cluster")).with(Options { durable: false });
        let endpoint = cluster.ensure_running().expect("a server of its own");
        let leash = leash(cluster.status().expect("status").running.expect("it runs"), folder.path());
        let database = Database { url: endpoint.url(), name: "systole".to_owned(), endpoint: endpoint.clone() };
        (database, OwnServer { cluster, endpoint, _leashes: vec![leash], folder })
    }

    /// A server that follows this one, from a copy of it. This one is down for a moment.
    pub fn standby(&mut self) -> (Database, OwnServer) {
        let folder = OwnServer::empty_folder();
        self.cluster.stop(StopMode::Fast).expect("stop");
        let copied = Command::new("cp").arg("-a").arg(self.folder.path().join("cluster")).arg(folder.path()).status();
        assert!(copied.expect("cp is everywhere").success(), "it cannot be copied");
        // It takes one of its own.
        fs::remove_file(folder.path().join("cluster/port")).expect("remove");
        self.start();
        let Endpoint { socket_dir, port, user, .. } = &self.endpoint;
        let primary = format!("primary_conninfo = 'host={} port={port} user={user}'\n", socket_dir.display());
        write_as_the_server(&folder.path().join("cluster/data"), "postgresql.auto.conf", &primary);
        write_as_the_server(&folder.path().join("cluster/data"), "standby.signal", "");
        OwnServer::started(folder)
    }

    /// Writes a file into the data folder, for nobody but the server.
    pub fn write(&self, name: &str, text: &str) {
        write_as_the_server(&self.folder.path().join("cluster/data"), name, text);
    }

    /// Ends it at once, as a crash would.
    pub fn crash(&self) {
        self.cluster.stop(StopMode::Immediate).expect("stop");
    }

    /// Starts it again, on the same socket and port.
    pub fn start(&mut self) {
        let endpoint = self.cluster.ensure_running().expect("start");
        assert_eq!(endpoint, self.endpoint, "somebody took its port");
        self.started_by_another();
    }

    /// It has been started again: that one ends with this process as well.
    pub(super) fn started_by_another(&mut self) {
        self._leashes.push(leash(self.pid(), self.folder.path()));
    }

    /// Stops all its processes, until what is returned is dropped: connections stay, and nothing answers.
    pub fn hang(&self) -> Hung {
        let postmaster = Pid::from_raw(self.pid()).expect("a pid is positive");
        kill_process(postmaster, Signal::STOP).expect("the server runs");
        eventually("a stopped server", Duration::from_secs(5), || (state(postmaster) == Some('T')).then_some(()));
        // From here on it makes no new ones.
        let backends = children(postmaster);
        for pid in &backends {
            // One that has ended by itself is not missed.
            let _ = kill_process(*pid, Signal::STOP);
        }
        let stopped = |pid: &Pid| matches!(state(*pid), Some('T' | 'Z') | None);
        eventually("stopped backends", Duration::from_secs(5), || backends.iter().all(stopped).then_some(()));
        Hung { pids: backends.into_iter().chain([postmaster]).collect() }
    }

    /// The server's process.
    pub fn pid(&self) -> i32 {
        self.cluster.status().expect("status").running.expect("it runs")
    }

    /// Where its files are.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

/// A server whose processes are stopped.
#[derive(Debug)]
pub struct Hung {
    pids: Vec<Pid>,
}

impl Drop for Hung {
    fn drop(&mut self) {
        for pid in &self.pids {
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}

fn write_as_the_server(data: &std::path::Path, name: &str, text: &str) {
    let (path, owner) = (data.join(name), fs::metadata(data).expect("it was made"));
    fs::write(&path, text).expect("write");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("chmod");
    chown(&path, Some(owner.uid()), Some(owner.gid())).expect("chown");
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let _ = self.cluster.stop(StopMode::Immediate);
    }
}
