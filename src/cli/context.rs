//! What most commands need first: the configuration, the database it names, a runtime.

use std::future::Future;

use super::exit::{Failure, code};
use super::settings::Settings;
use crate::config::{Config, Database};
use crate::db::{Link, Target, embedded, migrate};

/// Reads the configuration from all its sources.
pub(super) fn config(settings: &Settings) -> Result<Config, Failure> {
    Ok(Config::read(&settings.given(), settings.config.as_deref())?)
}

/// The database that is configured. The embedded one is started, and migrated, if it is not.
pub(super) async fn target(config: &Config) -> Result<Target, Failure> {
    match config.database()? {
        Database::Url(url) => Ok(url.parse()?),
        Database::Embedded => {
            let cluster = embedded::Cluster::of_this_user()?;
            let target: Target = cluster.ensure_running()?.url().parse()?;
            let mut link = Link::new(target.clone(), config.timing()?.attempt_timeout);
            if let Err(crate::db::DbError::NotMigrated { .. }) = link.hello().await {
                migrate(&target).await?;
            }
            Ok(target)
        }
    }
}

/// Connects to the configured database; at most one try.
pub(super) async fn link(config: &Config) -> Result<Link, Failure> {
    let mut link = Link::new(target(config).await?, config.timing()?.attempt_timeout);
    link.hello().await?;
    Ok(link)
}

/// Runs a command on a runtime of one thread.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(code::BUG, format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(future);
    // What still blocks in a thread of the runtime is not worth waiting for.
    runtime.shutdown_background();
    result
}
