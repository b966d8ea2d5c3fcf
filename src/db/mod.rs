//! The only door to PostgreSQL: how it is reached, within which bounds, and what its errors mean to us.
//!
//! A dropped or timed-out call does not stop its statement: its outcome is *unknown*, and its connection is thrown
//! away. Whoever needs to know asks again; every transition can be asked again.

pub mod embedded;
mod error;
mod link;
mod migrate;
mod target;

pub use error::DbError;
pub use link::Link;
pub use migrate::{MigrateError, Migrated, migrate};
pub use target::{InvalidTarget, Target};

pub(crate) use link::Hello;
