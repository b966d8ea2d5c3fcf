//! The command and its surroundings, seen from the supervisor: its environment, the signals meant for it, the ladder by
//! which it is stopped, and the socket by which it tells how far it is. Knows no database.

mod environment;
mod ladder;
mod progress;
mod signals;

pub(crate) use environment::{Surroundings, environment};
pub(crate) use ladder::{Ladder, Rung};
pub(crate) use progress::{BoundSocket, Message, ProgressSocket, Report, tell_progress};
pub(crate) use signals::{Origin, Signals};
