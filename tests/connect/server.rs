//! Servers that a test may change: their settings, who is let in, and as whom.

use std::sync::{Mutex, PoisonError};

use systole::db::MigrateOptions;
use systole::db::embedded::StopMode;

use super::support::{Database, OwnServer, eventually};
use super::{PASSWORD, SOON};

/// A whole server, with the database `systole` in it.
pub(crate) struct Server {
    pub(crate) database: Database,
    pub(crate) own: OwnServer,
}

impl Server {
    pub(crate) fn new() -> Server {
        let (database, own) = Database::on_own_server();
        Server { database, own }
    }

    /// One that follows this one, and has what it has.
    pub(crate) fn standby(&mut self) -> Server {
        let (database, own) = self.own.standby();
        Server { database, own }
    }

    pub(crate) fn port(&self) -> u16 {
        self.own.endpoint.port
    }

    /// Changes settings, and waits until whoever connects from now on has them.
    pub(crate) fn set(&self, settings: &[(&str, &str)]) {
        for (name, value) in settings {
            self.database.sql(&format!("ALTER SYSTEM SET {name} = '{value}'"));
        }
        self.reload();
    }

    /// Lets in by TCP whom these lines of pg_hba.conf say, and by the socket everybody who can reach it.
    pub(crate) fn admit(&self, lines: &[&str]) {
        let socket = ["local all all trust", "local replication all trust"];
        self.own.write("pg_hba.conf", &format!("{}\n", [&socket, lines].concat().join("\n")));
        self.reload();
    }

    /// New sessions are made only after the postmaster has read everything again.
    pub(crate) fn reload(&self) {
        let before = self.database.sql("SELECT clock_timestamp(), pg_reload_conf()")[0][0].clone();
        let loaded = format!("SELECT pg_conf_load_time() > '{before}'");
        eventually("a reload", SOON, || (self.database.value(&loaded) == "t").then_some(()));
    }

    /// Ends it in good order and starts it again, with settings that only a start takes up.
    pub(crate) fn restart(&mut self) {
        self.own.cluster.stop(StopMode::Fast).unwrap();
        self.own.start();
    }
}

/// Makes a role that may run commands in `database`, and logs in with [`PASSWORD`].
pub(crate) fn worker(database: &Database, name: &str) {
    // Roles are the whole server's, and two that make them at once may each find the other in the way.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = MigrateOptions { roles: true, ..MigrateOptions::default() };
    runtime.block_on(systole::db::migrate(&database.url.parse().unwrap(), &options)).unwrap();
    database.sql(&format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' IN ROLE systole_worker"));
}

/// How to reach `database` on 127.0.0.1, without a user.
pub(crate) fn by_tcp(database: &Database) -> String {
    let (_, port) = database.url.rsplit_once("port=").unwrap();
    format!("host=127.0.0.1 port={port} dbname={}", database.name)
}

/// Ends all sessions of a role, as an administrator would.
pub(crate) fn terminate(database: &Database, role: &str) {
    database.sql(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}' AND pid <> pg_backend_pid()"
    ));
}
