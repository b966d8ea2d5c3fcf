//! What commands write: read through pipes, kept in files on the host that never outgrow their bound, the newest of it
//! in PostgreSQL.
//!
//! A thread per attempt moves bytes from the pipes into the file, with a buffer of fixed size: a disk that is slow makes
//! the command wait, and nobody else. What is not on the disk when the node dies is what was not read yet. A disk that is
//! full costs output, and never the run.

mod line;
mod place;
mod plain;
mod reader;
mod recorder;
mod rotating;
pub(crate) mod store;
mod tail;

pub(crate) use place::{forget, log_of, newest_log};
pub(crate) use plain::Plain;
pub(crate) use reader::{Follower, Found};
pub(crate) use recorder::{Pipes, Recorder, Recording, Written};
pub(crate) use tail::{TAIL_MAX, continued_at};
