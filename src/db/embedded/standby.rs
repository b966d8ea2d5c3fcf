//! A cluster that follows another one of this machine, and may take its place. For those who try out failovers.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use rustix::process::{Signal, kill_process};

use super::account::{Account, run};
use super::binaries::Binaries;
use super::cluster::Cluster;
use super::create::NURSERY;
use super::error::EmbeddedError;
use super::folder::{self, write_private};
use super::postmaster::Postmaster;

impl Cluster {
    /// Makes this cluster anew, as a copy of `primary` that will follow it when it is started. Whatever was in it is gone. Neither
    /// may be started or stopped by others meanwhile; `primary` runs, this one does not. Takes pg_basebackup.
    pub(crate) fn follow(&self, primary: &Cluster) -> Result<(), EmbeddedError> {
        let account = Account::of_the_server()?;
        let source = primary.ensure_running()?;
        folder::prepare(&self.dir, &account)?;
        let _lock = self.lock(&account)?;
        let data = self.data();
        if Postmaster::running(&data).is_some() {
            return Err(EmbeddedError::unusable(&data, "is in use by a running server. Stop that first"));
        }
        folder::remove_leftovers(&self.dir, NURSERY);
        folder::remove_leftovers(&self.dir, "data");
        let password = primary.dir.join("password");
        let password = fs::read_to_string(&password).map_err(EmbeddedError::io("read", &password))?;
        write_private(&self.dir.join("password"), &password, &account)?;
        let nursery = format!("{NURSERY}{:032x}", rand::random::<u128>());
        let mut copy = account.command(&pg_basebackup(&Binaries::find(&account)?)?, &self.dir);
        copy.args(["-D", &nursery, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-w", "-U", source.user]);
        copy.arg("-h").arg(&source.socket_dir).arg("-p").arg(source.port.to_string());
        run("pg_basebackup", &self.dir, copy, "")?;
        fs::rename(self.dir.join(&nursery), &data).map_err(EmbeddedError::io("give its name to", &data))
    }

    /// From here on this standby hears nothing of its primary.
    pub(crate) fn deafen(&self) -> Result<(), EmbeddedError> {
        let file = self.data().join("postgresql.auto.conf");
        // The last of several words about a setting counts.
        let written =
            OpenOptions::new().append(true).open(&file).and_then(|mut file| file.write_all(b"primary_conninfo = ''\n"));
        written.map_err(EmbeddedError::io("write", &file))?;
        if let Some(postmaster) = Postmaster::running(&self.data()) {
            // One that has ended hears nothing either.
            let _ = kill_process(postmaster.pid, Signal::HUP);
        }
        Ok(())
    }

    /// Has this standby accept writes, and waits until it does. Whoever was its primary has to be dead.
    pub(crate) fn promote(&self) -> Result<(), EmbeddedError> {
        let account = Account::of_the_server()?;
        let _lock = self.lock(&account)?;
        let mut promote = account.command(&Binaries::find(&account)?.program("pg_ctl"), &self.dir);
        promote.args(["promote", "-D", "data", "-s", "-w", "-t", "30"]);
        run("pg_ctl promote", &self.dir, promote, "").map(drop)
    }
}

/// Which is no program of the server's: where those are only linked to, it is beside the real ones.
fn pg_basebackup(binaries: &Binaries) -> Result<PathBuf, EmbeddedError> {
    let beside = binaries.program("pg_basebackup");
    if beside.exists() {
        return Ok(beside);
    }
    let server = binaries.program("postgres");
    let real = fs::canonicalize(&server).map_err(EmbeddedError::io("follow the link", &server))?;
    Ok(real.with_file_name("pg_basebackup"))
}
