//! The database of a drill: on private servers that may be killed, or somebody's that may not.

use std::path::Path;
use std::time::Duration;

use super::clock::Clock;
use super::error::DrillError;
use super::network::Network;
use super::servers::{Servers, Ways};
use super::{LEDGER_SCHEMA, SCHEMA};
use crate::db::{Link, MigrateOptions, Schema, Target, drop_schema, migrate};

/// How long one statement of the drill's own may take while its database is broken on purpose.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long nothing is granted behind a failover: longer than stale_after, and no longer than it takes to see that it works.
const SETTLE: &str = "-- drill.settle
    UPDATE systole.settings SET stale_after_max = '5 seconds'";

/// The database, ready to be worked with.
#[derive(Debug)]
pub(super) struct Server {
    /// For the drill itself.
    pub(super) target: Target,
    /// The same as text.
    pub(super) local_url: String,
    /// For nodes and probes.
    pub(super) url: String,
    /// Unless it is somebody else's.
    pub(super) own: Option<Servers>,
}

impl Server {
    /// On servers of its own below `folder`.
    pub(super) fn own(folder: &Path, network: Option<Network>) -> Result<Server, DrillError> {
        let (servers, Ways { local, remote }) = Servers::start(folder, network)?;
        let target = local.parse::<Target>()?.in_schema(schema());
        Ok(Server { target, local_url: local, url: remote, own: Some(servers) })
    }

    /// Somebody's.
    pub(super) fn given(url: &str) -> Result<Server, DrillError> {
        let target = url.parse::<Target>()?.in_schema(schema());
        Ok(Server { target, local_url: url.to_owned(), url: url.to_owned(), own: None })
    }

    pub(super) fn network(&self) -> Option<&Network> {
        self.own.as_ref()?.network.as_ref()
    }

    pub(super) fn clock(&self) -> Option<&Clock> {
        self.own.as_ref()?.clock.as_ref()
    }

    pub(super) fn link(&self) -> Link {
        Link::new(self.target.clone(), PATIENCE)
    }

    /// Makes the tables; what an earlier drill has left of them goes first.
    pub(super) async fn prepare(&self) -> Result<(), DrillError> {
        self.clear().await?;
        migrate(&self.target, &MigrateOptions::default()).await?;
        self.link().call(async |session| session.query(SETTLE, &[]).await).await?;
        Ok(())
    }

    /// Drops all that a drill makes in a database.
    pub(super) async fn clear(&self) -> Result<(), DrillError> {
        for schema in [SCHEMA, LEDGER_SCHEMA] {
            drop_schema(&self.target.clone().in_schema(schema.parse().expect("it is a name"))).await?;
        }
        Ok(())
    }
}

fn schema() -> Schema {
    SCHEMA.parse().expect("it is a name")
}
