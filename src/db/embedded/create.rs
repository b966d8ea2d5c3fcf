//! Makes a cluster complete with its database, aside, and then gives it its name in one step.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::account::{Account, run};
use super::binaries::Binaries;
use super::cluster::Options;
use super::endpoint::NAME;
use super::error::EmbeddedError;
use super::folder::{remove_leftovers, write_private};

/// The whole configuration, in place of initdb's sample. Port and socket are given at start, since they may change.
const SETTINGS: &str = "\
# Written by systole when it made this cluster; yours to change.
max_connections = 300
shared_buffers = 64MB
listen_addresses = '127.0.0.1'
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
log_destination = 'stderr'
logging_collector = off
log_checkpoints = off
";

/// What an interrupted creation leaves behind begins so.
pub(super) const NURSERY: &str = "new-";

/// Makes the cluster in `dir` if there is none, or refuses one of another version. Only under the lock.
pub(super) fn create_if_missing(
    dir: &Path,
    binaries: &Binaries,
    account: &Account,
    options: Options,
) -> Result<(), EmbeddedError> {
    // At every start: what an orphan still writes to resists the first time.
    remove_leftovers(dir, NURSERY);
    let data = dir.join("data");
    match fs::read_to_string(data.join("PG_VERSION")) {
        Ok(version) if version.trim() == binaries.major => return Ok(()),
        Ok(version) => {
            let (made_by, found) = (version.trim(), &binaries.major);
            let problem = format!(
                "was made by PostgreSQL {made_by}, which alone can read it, but {} is PostgreSQL {found}. Set \
                 SYSTOLE_POSTGRES_BIN to the bin folder of PostgreSQL {made_by}, or remove {} to begin anew (its runs \
                 are lost)",
                binaries.dir.display(),
                dir.display()
            );
            return Err(EmbeddedError::unusable(&data, problem));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(EmbeddedError::io("read PG_VERSION in", &data)(error)),
    }
    if fs::read_dir(&data).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(EmbeddedError::unusable(
            &data,
            "holds files, but no PG_VERSION: it is no database of ours. Move it away, or set SYSTOLE_EMBEDDED_DIR to \
             another folder",
        ));
    }
    // Never the same name again: the initdb of a killed command may go on for a while in its own.
    let nursery = format!("{NURSERY}{:032x}", rand::random::<u128>());
    let made = fill(dir, &nursery, binaries, account, options).and_then(|()| {
        fs::rename(dir.join(&nursery), &data).map_err(EmbeddedError::io("give its name to", &data))?;
        File::open(dir).and_then(|folder| folder.sync_all()).map_err(EmbeddedError::io("flush", dir))
    });
    if made.is_err() {
        remove_leftovers(dir, &nursery);
    }
    made
}

/// All paths are relative to `dir`, as whose owner the programs run: no name of a folder needs quoting.
fn fill(
    dir: &Path,
    nursery: &str,
    binaries: &Binaries,
    account: &Account,
    options: Options,
) -> Result<(), EmbeddedError> {
    let initdb = |arguments: &[&str]| {
        let mut command = account.command(&binaries.program("initdb"), dir);
        command.args(["-D", nursery]).args(arguments);
        run("initdb", dir, command, "")
    };
    write_private(&dir.join("password"), &format!("{:032x}\n", rand::random::<u128>()), account)?;
    initdb(&[
        "--no-sync", // at the end, once
        "--encoding=UTF8",
        "--locale=C",
        "--auth-local=trust",
        "--auth-host=scram-sha-256",
        "--pwfile=password",
        &format!("--username={NAME}"),
    ])?;
    // Without a server and a client tool. `--single` must be the first argument.
    let mut single = account.command(&binaries.program("postgres"), dir);
    single.args(["--single", "-D", nursery, "-F", "-c", "exit_on_error=on", "template1"]);
    run("postgres --single", dir, single, &format!("CREATE DATABASE {NAME};\n"))?;
    let fsync = if options.durable { "on" } else { "off" };
    write_private(&dir.join(nursery).join("postgresql.conf"), &format!("{SETTINGS}fsync = {fsync}\n"), account)?;
    if options.durable {
        initdb(&["--sync-only"])?;
    }
    Ok(())
}
