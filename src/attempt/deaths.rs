//! Tells the database how tenures of this host have ended: what their guards have certified, and behind a failover what may be
//! missing there since.

use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use super::outbox::Outbox;
use super::socket_name;
use crate::db::DbError;
use crate::elapsed::Instant;
use crate::guard::remains;
use crate::ids::InstanceId;
use crate::instance::{CertificateFiling, Coordinator, FilingVerdict};
use crate::state_dir::StateDir;
use crate::tenure::History;

/// How long one sweep may go on filing deaths.
const FILING_MAX: Duration = Duration::from_secs(1);

/// What became of the deaths of this host.
#[derive(Debug, Default)]
pub(crate) struct Filed {
    /// How many the database had not known of.
    pub(crate) news: usize,
    /// How many of those had crashed.
    pub(crate) crashes: usize,
    /// Why one could not be filed. It stays where it is, for the next time.
    pub(crate) trouble: Option<DbError>,
    /// What the dead have written, where that is recorded: nobody has its end in memory any more.
    pub(crate) logs: Vec<(InstanceId, PathBuf)>,
}

/// Tells the database of every death on this host that it may not know of.
pub(crate) async fn file_deaths(
    coordinator: &Coordinator,
    state: &StateDir,
    fleet_id: Uuid,
    history: Option<History>,
) -> Filed {
    let outbox = Outbox::of(state);
    // However slow the disk is: others have deadlines to keep in this thread. A folder that cannot be read has nothing to tell.
    let (kept, instances) = (outbox.clone(), state.instances());
    let look = tokio::task::spawn_blocking(move || {
        let mut deaths = remains::sweep(&instances, fleet_id).unwrap_or_default();
        deaths.extend(history.into_iter().flat_map(|history| kept.missing_in(history, fleet_id)));
        deaths
    });
    let deaths = look.await.unwrap_or_default();
    let mut filed = Filed::default();
    let begun = Instant::now();
    for death in deaths {
        let filing = CertificateFiling {
            run_id: death.header.run_id.clone(),
            tenure: death.header.tenure.clone(),
            instance_id: death.header.instance_id,
            secret: death.header.secret.clone(),
            end: death.end.clone(),
            filed_by: coordinator.identity().executor_id.clone(),
        };
        if Instant::now().since(begun) > FILING_MAX {
            // Whoever files has other things to do as well. The rest waits for the next time.
            break;
        }
        match coordinator.file(filing).await {
            Ok(FilingVerdict::Locked) => {}
            Ok(verdict) => {
                filed.news += usize::from(verdict == FilingVerdict::Ok);
                filed.crashes += usize::from(verdict == FilingVerdict::Ok && death.end.cause.is_some());
                if matches!(verdict, FilingVerdict::Ok | FilingVerdict::Already) {
                    filed.logs.extend(death.header.log.clone().map(|log| (death.header.instance_id, log)));
                }
                // Nobody is there any more to speak to.
                if let Ok(socket) = state.socket(&socket_name(death.header.instance_id)) {
                    let _ = std::fs::remove_file(socket);
                }
                // Whatever the verdict: it has nothing more to say to this history.
                outbox.keep(history, &death.path);
            }
            // The others may still be filed; not over a connection that has just failed.
            Err(error) => {
                let is_over = !matches!(error, DbError::Statement { .. } | DbError::Unavailable { .. });
                filed.trouble = Some(error);
                if is_over {
                    break;
                }
            }
        }
    }
    filed
}
