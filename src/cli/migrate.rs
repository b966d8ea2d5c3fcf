//! `systole migrate`: create or update the schema, and the roles.

use clap::Args;

use super::context;
use super::exit::{Failure, code};
use super::print;
use super::settings::Settings;
use crate::db::{MigrateOptions, Migrated, migrate};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Also create the roles (owner, worker, client, viewer), and give each its rights; needs a superuser
    #[arg(long)]
    roles: bool,
    /// From now on, only this version of systole and newer ones may take up work
    #[arg(long, value_name = "VERSION")]
    oldest_allowed: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Migrates the configured database, and says what was done.
pub(super) fn execute(arguments: Arguments, settings: &Settings) -> Result<u8, Failure> {
    let config = context::config(settings)?;
    let options = MigrateOptions {
        roles: arguments.roles,
        replace_functions: true,
        oldest_allowed: arguments.oldest_allowed,
        dry_run: arguments.dry_run,
    };
    context::block_on(async {
        let done = migrate(&context::named_target(&config)?, &options).await?;
        let would = |done: &'static str, would: &'static str| if options.dry_run { would } else { done };
        for role in &done.roles_created {
            print::text(&format!("{} role {role}", would("created", "would create")));
        }
        if done.handed_over {
            let schema = config.schema()?;
            print::text(&format!("{} schema {schema} to {schema}_owner", would("handed", "would hand")));
        }
        for name in &done.applied {
            print::text(&format!("{} {name}", would("applied", "would apply")));
        }
        if done.functions_differed {
            let verb = would("replaced", "would replace");
            print::text(&format!("{verb} the functions, of the same version but of another build, by this build's"));
        } else if done.functions_installed {
            print::text(would("installed the functions", "would install the functions"));
        }
        if let (Some(version), false) = (&options.oldest_allowed, options.dry_run) {
            print::text(&format!("systole {version} is the oldest that may take up work from now on"));
        }
        if done == (Migrated { warnings: done.warnings.clone(), ..Migrated::default() }) {
            print::text("nothing to do: the schema is up to date");
        }
        for warning in &done.warnings {
            eprintln!("systole: {warning}");
        }
        Ok(code::OK)
    })
}
