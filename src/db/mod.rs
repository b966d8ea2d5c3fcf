//! The only door to PostgreSQL: how it is reached, within which bounds, and what its errors mean to us.
//!
//! A dropped or timed-out call does not stop its statement: its outcome is *unknown*, and its connection is thrown
//! away. Whoever needs to know asks again; every transition can be asked again.

mod conninfo;
mod counting;
pub mod embedded;
mod endpoint;
mod error;
mod hints;
mod link;
mod migrate;
mod roles;
mod schema;
mod session;
mod step;
mod target;
mod tls;
mod turns;
mod version;

#[cfg(fuzzing)]
pub use conninfo::fuzz;
pub use conninfo::{InvalidTarget, holds_password};
pub use error::DbError;
pub use hints::{Hint, HintKind};
pub use link::Link;
pub use migrate::{MigrateError, MigrateOptions, Migrated, migrate};
pub use schema::{InvalidSchema, Schema};
pub use session::Session;
pub use target::Target;

pub(crate) use link::Hello;
pub(crate) use migrate::drop_schema;
pub(crate) use roles::Rights;
