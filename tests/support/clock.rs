//! A server whose clock a test may set while it runs: PostgreSQL under libfaketime.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use systole::db::embedded::StopMode;

use super::server::OwnServer;
use super::{Database, eventually, is_root};

/// How far the server's clock may be from where it was set to, as a test sees it on a busy machine.
const SLACK: f64 = 2.0;

/// The wall clock of a server. What counts elapsed time there goes on as ever.
#[derive(Debug)]
pub struct ServerClock {
    file: PathBuf,
    database: Database,
}

impl ServerClock {
    /// Restarts a server so that its clock can be set; at first it is `ahead` by so many seconds.
    pub fn of(database: &Database, server: &mut OwnServer, ahead: i64) -> ServerClock {
        let clock = ServerClock { file: server.folder().join("clock"), database: database.clone() };
        clock.write(ahead);
        server.cluster.stop(StopMode::Fast).expect("stop");
        let cluster = server.folder().join("cluster");
        let owner = std::fs::metadata(cluster.join("data")).expect("its data");
        // What it was started with last time stands there, the program first.
        let before = std::fs::read_to_string(cluster.join("data/postmaster.opts")).expect("it has run before");
        let program = Path::new(before.split_whitespace().next().expect("a program")).with_file_name("pg_ctl");
        let mut restart = Command::new(program);
        restart.args(["restart", "-D", "data", "-l", "server.log", "-w", "-s"]).current_dir(&cluster);
        restart.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").env("TZ", "UTC");
        restart.env("LD_PRELOAD", library()).env("FAKETIME_TIMESTAMP_FILE", &clock.file);
        restart.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        restart.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if is_root() {
            restart.uid(owner.uid()).gid(owner.gid());
        }
        let status = restart.status().expect("pg_ctl stands beside postgres");
        let log = || std::fs::read_to_string(cluster.join("server.log")).unwrap_or_default();
        assert!(status.success(), "it does not start under libfaketime: {}", log());
        server.started_by_another();
        clock.wait_until(ahead);
        clock
    }

    /// Sets it to what it should be and so many seconds, for all of the server's processes at once.
    pub fn set(&self, ahead: i64) {
        self.write(ahead);
        self.wait_until(ahead);
    }

    fn write(&self, ahead: i64) {
        // A file that is half written would be another time.
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{ahead:+}\n")).expect("write");
        std::fs::rename(&next, &self.file).expect("rename");
    }

    fn wait_until(&self, ahead: i64) {
        eventually(format!("a clock {ahead} s ahead"), Duration::from_secs(5), || {
            let shown: f64 =
                self.database.value("SELECT extract(epoch FROM clock_timestamp())").parse().expect("seconds");
            let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64();
            ((shown - wall - ahead as f64).abs() < SLACK).then_some(())
        });
    }
}

/// Where Debian puts it.
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten().map(|entry| entry.path());
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketime.so.1"));
    libraries
        .find(|library| library.exists())
        .expect("these tests set the clock of a server by libfaketime: apt-get install libfaketime")
}
