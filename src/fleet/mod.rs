//! The whole fleet as the database knows it, for those who watch it from outside: `/metrics/fleet`, and whom to scrape.
//!
//! A process that has died says nothing of it, so what is here comes from the tables, and one process is enough to say it for all.
//! [`View`] asks at most once a second, however many ask it, and goes on showing what it saw last while the database is away, with
//! its age. Nothing is ever written.

mod page;
pub(crate) mod routes;
mod snapshot;
mod targets;
mod view;

pub(crate) use view::View;
