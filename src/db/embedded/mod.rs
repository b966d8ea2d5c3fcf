//! The private PostgreSQL behind `--embedded`: one cluster of this user on this machine, started on demand.
//!
//! It promises: [`Cluster::ensure_running`] by any number of processes at once ends in one server; a `kill -9` at any
//! moment leaves nothing that the next call cannot use or clear away; the server outlives the command that started it,
//! in a session of its own; only its user and root can reach it without the password.
//!
//! It does not promise: to outlive the cgroup or container it was started in (systemd ends it with a service that
//! started it); to be the same database as that of another user or another machine; a TCP port that stays the same
//! when somebody else takes it while the server is down.
//!
//! All calls block. None needs a client library: a server that accepts is found by one `connect()`.
//!
//! ```text
//! DIR/               0700, owned by the server's account: `postgres` if we are root, else ourselves
//!   systole.lock     held while somebody makes, starts or stops the cluster
//!   data/            made as new-RANDOM/ and renamed when complete
//!   s/               the unix socket, if its path fits; else in /tmp/systole-HASH
//!   port  password   for 127.0.0.1, by scram-sha-256; 0600
//!   server.log       of this start; server.log.1 is that of the start before
//! ```

mod account;
mod binaries;
mod cluster;
mod create;
mod endpoint;
mod error;
mod folder;
mod place;
mod postmaster;
#[cfg(target_os = "linux")]
mod standby;
mod start;

pub use cluster::{Cluster, Options, Status, StopMode};
pub use endpoint::Endpoint;
pub use error::EmbeddedError;
