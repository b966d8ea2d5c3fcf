//! The SQL protocol under attack: every promise of its functions, on a real PostgreSQL, by racers with connections of
//! their own.
//!
//! Nothing here goes through our own client: what holds here holds for every language that calls the functions.

#![allow(clippy::unwrap_used)] // it is a test

#[path = "../support/mod.rs"]
mod support;

mod asking;
mod atomicity;
mod batches;
mod beating;
mod brake;
mod claiming;
mod commit_modes;
mod ending;
mod evicting;
mod failover;
mod fencing;
mod hinting;
mod looking;
mod migrating;
mod planning;
mod racing;
mod retrying;
mod sequences;
mod staleness;
mod steering;
mod watching;
