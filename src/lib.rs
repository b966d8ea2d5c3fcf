//! At most one executor per run, across machines.
//!
//! A program that wants to be the only one at its work starts with [`Coordinator`]; the `systole` command starts with
//! [`cli`]. The chapters, in reading order:
//!
//! 1. [`ids`], [`outcome`], [`identity`], [`elapsed`], [`backoff`], `tenure`, [`state_dir`]: the words everything else uses.
//!    `metrics`: what is counted of them; `log`: what is said. `anchor`: who may work in parallel. `baseline`: how tests fared.
//! 2. [`db`]: the only door to PostgreSQL.
//! 3. [`guard`]: the dead man's switch between a supervisor and the tree it started.
//! 4. [`instance`]: who may act on a run, and until when. `supervise`: the command's surroundings;
//!    `workspace`: its place. `run`: what people ask.
//!    [`node`]: what is queued, and a [`Worker`] for programs that take it from there.
//! 5. `config`: what was configured, and where. `http`: what is answered there. `attempt`: one attempt, from its claim to its finish.
//!    `daemon`: a node. `drill`: a fleet that is broken on purpose, and judged.
//! 6. [`cli`]: what a person types.

#![deny(unsafe_code)]

mod anchor;
mod attempt;
pub mod backoff;
mod baseline;
pub mod cli;
mod config;
mod daemon;
pub mod db;
#[cfg(target_os = "linux")]
mod drill;
pub mod elapsed;
mod fleet;
pub mod guard;
mod http;
pub mod identity;
pub mod ids;
pub mod instance;
mod log;
mod metrics;
pub mod node;
pub mod outcome;
mod output;
mod run;
pub mod state_dir;
mod supervise;
mod tenure;
mod workspace;

pub use ids::{Fence, InstanceId, RunId};
pub use instance::{Coordinator, Lease};
pub use node::Worker;

/// What `fuzz/` tries. Only there in a build for fuzzing.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::config::fuzz as configuration;
    pub use crate::db::fuzz as connection_string;
    pub use crate::guard::fuzz as guard_pipe;
    pub use crate::ids::fuzz as run_id;
}
