//! The database of the drill: a private PostgreSQL of its own that may be killed, or somebody's that may not.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use std::os::unix::process::CommandExt;

use rustix::process::{Pid, Signal, kill_process};

use super::error::DrillError;
use super::network::{Network, SERVER_ADDRESS};
use super::{LEDGER_SCHEMA, SCHEMA};
use crate::db::embedded::{Cluster, Endpoint, Options, StopMode};
use crate::db::{Link, MigrateOptions, Schema, Target, drop_schema, migrate};

/// How long one statement of the drill's own may take while its database is broken on purpose.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The database, ready to be worked with.
#[derive(Debug)]
pub(super) struct Server {
    /// For the drill itself.
    pub(super) target: Target,
    /// The same as text.
    pub(super) local_url: String,
    /// For nodes and probes.
    pub(super) url: String,
    /// Its process and its network, if it is our own.
    own: Option<Cluster>,
    pub(super) network: Option<Network>,
}

impl Server {
    /// A PostgreSQL of its own below `folder`; with a network, in the middle of that.
    pub(super) fn own(folder: &Path, network: Option<Network>) -> Result<Server, DrillError> {
        let cluster = Cluster::at(folder.to_owned()).with(Options { durable: false });
        start(&cluster, network.as_ref())?;
        if network.is_some() {
            let data = folder.join("data");
            // The last of two words about a setting counts.
            append(&data.join("postgresql.conf"), &format!("listen_addresses = '127.0.0.1,{SERVER_ADDRESS}'\n"))?;
            append(&data.join("pg_hba.conf"), "host all all 198.18.0.0/15 scram-sha-256\n")?;
            cluster.stop(StopMode::Fast)?;
        }
        let endpoint = start(&cluster, network.as_ref())?;
        let local_url = endpoint.url();
        let url = match network {
            // Between namespaces of one machine there is nobody to listen.
            Some(_) => {
                format!("{}?sslmode=disable", endpoint.tcp_url_with_password()?.replace("127.0.0.1", SERVER_ADDRESS))
            }
            None => local_url.clone(),
        };
        let target = local_url.parse::<Target>()?.in_schema(schema());
        Ok(Server { target, local_url, url, own: Some(cluster), network })
    }

    /// Somebody's.
    pub(super) fn given(url: &str) -> Result<Server, DrillError> {
        let target = url.parse::<Target>()?.in_schema(schema());
        Ok(Server { target, local_url: url.to_owned(), url: url.to_owned(), own: None, network: None })
    }

    pub(super) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    pub(super) fn link(&self) -> Link {
        Link::new(self.target.clone(), PATIENCE)
    }

    /// Makes the tables; what an earlier drill has left of them goes first.
    pub(super) async fn prepare(&self) -> Result<(), DrillError> {
        self.clear().await?;
        migrate(&self.target, &MigrateOptions::default()).await?;
        Ok(())
    }

    /// Drops all that a drill makes in a database.
    pub(super) async fn clear(&self) -> Result<(), DrillError> {
        for schema in [SCHEMA, LEDGER_SCHEMA] {
            drop_schema(&self.target.clone().in_schema(schema.parse().expect("it is a name"))).await?;
        }
        Ok(())
    }

    /// Starts it, if it does not run. Blocks.
    pub(super) fn start(&self) -> Result<(), DrillError> {
        self.own.as_ref().map_or(Ok(()), |cluster| start(cluster, self.network.as_ref()).map(drop))
    }

    /// kill -9 of the postmaster.
    pub(super) fn kill(&self) -> Result<(), DrillError> {
        let Some(cluster) = &self.own else { return Ok(()) };
        if let Some(pid) = cluster.status()?.running.and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        Ok(())
    }
}

/// Starts it in the middle of its network.
fn start(cluster: &Cluster, network: Option<&Network>) -> Result<Endpoint, DrillError> {
    let cluster = cluster.clone();
    let start = move || cluster.ensure_running();
    Ok(match network {
        Some(network) => network.middle.run(start)?,
        None => start()?,
    })
}

fn schema() -> Schema {
    SCHEMA.parse().expect("it is a name")
}

fn append(file: &Path, text: &str) -> Result<(), DrillError> {
    let written = OpenOptions::new().append(true).open(file).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(DrillError::at(format!("write {}", file.display())))
}

/// The folder of a drill, and a process that stops the server in it and removes it when this one has gone, however it went.
#[derive(Debug)]
pub(super) struct Leash {
    pub(super) folder: PathBuf,
    holder: Child,
}

impl Leash {
    /// Makes the folder. Its server is the one in `postgres`.
    pub(super) fn make() -> Result<Leash, DrillError> {
        const HOLD: &str = "read -r word
            SYSTOLE_EMBEDDED_DIR=\"$1/postgres\" \"$0\" embedded stop
            [ \"$word\" = keep ] || rm -rf \"$1\"";
        let folder = std::env::temp_dir().join(format!("systole-drill-{}", std::process::id()));
        let failed = || DrillError::at(format!("make the folder {}", folder.display()));
        fs::create_dir(&folder).map_err(failed())?;
        let program = std::env::current_exe().map_err(failed())?;
        let mut holder = Command::new("sh");
        holder.args(["-c", HOLD]).arg(program).arg(&folder).process_group(0);
        holder.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let holder = holder.spawn().map_err(failed())?;
        Ok(Leash { folder, holder })
    }

    /// Lets go: the server ends, and unless somebody wants to look into it, the folder goes. Blocks until then.
    pub(super) fn let_go(mut self, is_kept: bool) -> io::Result<()> {
        if let (true, Some(stdin)) = (is_kept, &mut self.holder.stdin) {
            stdin.write_all(b"keep\n")?;
        }
        drop(self.holder.stdin.take());
        self.holder.wait().map(drop)
    }
}
