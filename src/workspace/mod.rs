//! A place of its own for every attempt: a git worktree that nobody has used before, or a folder that nobody else uses meanwhile.
//!
//! It promises that two attempts never share a worktree, and that no work is lost with one: before a worktree is removed, what was
//! not committed, and what was committed there, is a commit under `refs/systole/RUN/ATTEMPT`; and a worktree is removed only when
//! its attempt is over, no process is in it, and that commit is made. What git ignores is not kept. It does not promise that a lease
//! on a folder holds beyond this host and this user, or against those who do not ask for one.
//!
//! ```text
//! Workspace::open → [lease on the folder · worktree made] → the command → keep() [snapshot] → … → reclaim::remove
//! ```

pub(crate) mod artifacts;
mod crew;
mod error;
mod git;
mod lease;
mod listing;
mod occupancy;
pub(crate) mod path;
mod patience;
mod policy;
mod reclaim;
mod record;
mod repository;
mod snapshot;
mod tenancy;
mod tidy;
mod wish;
mod work;
mod worktree;

pub(crate) use crew::Crew;
pub(crate) use error::WorkspaceError;
pub(crate) use listing::{View, diff, list};
pub(crate) use patience::Patience;
pub(crate) use policy::Policy;
pub(crate) use reclaim::{over, remove};
pub(crate) use record::Record;
pub(crate) use repository::Repository;
pub(crate) use tenancy::{NO_ATTEMPT, Place, Tenant, Workspace};
pub(crate) use tidy::{Tidied, tidy};
pub(crate) use wish::{BASE_VARIABLE, BRANCH_VARIABLE, Defaults, REPO_VARIABLE, Wish, WorktreeWish};
pub(crate) use work::{Work, works};
