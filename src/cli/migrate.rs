//! `systole migrate`: create or update the schema.

use super::context;
use super::exit::{Failure, code};
use super::print;
use super::settings::Settings;
use crate::config::Database;
use crate::db::{embedded, migrate};

/// Migrates the configured database, and says what was done.
pub(super) fn execute(settings: &Settings) -> Result<u8, Failure> {
    let config = context::config(settings)?;
    context::block_on(async {
        let target = match config.database()? {
            Database::Url(url) => url.parse()?,
            Database::Embedded => embedded::Cluster::of_this_user()?.ensure_running()?.url().parse()?,
        };
        let done = migrate(&target).await?;
        for name in &done.applied {
            print::text(&format!("applied {name}"));
        }
        if done.functions_installed {
            print::text("installed the functions");
        } else if done.applied.is_empty() {
            print::text("nothing to do: the schema is up to date");
        }
        Ok(code::OK)
    })
}
