//! What most commands need first: the configuration, the database it names, a runtime.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;

use tokio::sync::mpsc;

use super::exit::{Failure, code};
use super::settings::Settings;
use crate::attempt::Outbox;
use crate::config::{Config, Database};
use crate::db::{DbError, Hint, Link, MigrateOptions, Target, embedded, migrate};

/// Reads the configuration from all its sources.
pub(super) fn config(settings: &Settings) -> Result<Config, Failure> {
    config_with(settings, BTreeMap::new())
}

/// The same, with a command's own flags.
pub(super) fn config_with(settings: &Settings, mut given: BTreeMap<&'static str, String>) -> Result<Config, Failure> {
    given.extend(settings.given());
    Ok(Config::read(&given, settings.config.as_deref())?)
}

/// The repository that is named, or else that of the environment's AUTOPACK_REPO_PATH, or of the current folder.
pub(super) fn repository(named: Option<PathBuf>) -> PathBuf {
    let from_environment = || std::env::var_os("AUTOPACK_REPO_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(from_environment).unwrap_or_else(|| PathBuf::from("."))
}

/// The database that is configured, as it is. The embedded one is started, if it is not.
pub(super) fn named_target(config: &Config) -> Result<Target, Failure> {
    let target = match config.database()? {
        Database::Url { url, direct: None } => url.parse()?,
        Database::Url { url, direct: Some(direct) } => url.parse::<Target>()?.with_direct(direct.parse()?),
        Database::Embedded => embedded::Cluster::of_this_user()?.ensure_running()?.url().parse()?,
    };
    // A former primary is known again by what this host has seen.
    for history in Outbox::at(&config.state_dir()).histories() {
        target.saw(history);
    }
    Ok(target.in_schema(config.schema()?))
}

/// The database that is configured, to be worked with. The embedded one is migrated, if it is not. What is unsafe about
/// the way to it is said aloud.
pub(super) async fn target(config: &Config) -> Result<Target, Failure> {
    let target = named_target(config)?;
    if config.database()? == Database::Embedded {
        let mut link = Link::new(target.clone(), config.timing()?.attempt_timeout);
        if let Err(DbError::NotMigrated { .. }) = link.hello().await {
            migrate(&target, &MigrateOptions::default()).await?;
        }
    }
    for warning in target.warnings() {
        eprintln!("systole: {warning}");
    }
    Ok(target)
}

/// Connects to the configured database; at most one try.
pub(super) async fn link(config: &Config) -> Result<Link, Failure> {
    let mut link = Link::new(target(config).await?, config.timing()?.attempt_timeout);
    link.hello().await?;
    Ok(link)
}

/// The same, hearing hints.
pub(super) async fn listening_link(config: &Config) -> Result<(Link, mpsc::Receiver<Hint>), Failure> {
    let (mut link, hints) = Link::listening(target(config).await?, config.timing()?.attempt_timeout);
    link.hello().await?;
    Ok((link, hints))
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
