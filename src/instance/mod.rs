//! Who may act on a run, and until when.
//!
//! An *instance* is one tenure of one executor over one run. While it is RUNNING nobody else may act on the run; once
//! it has left RUNNING it never returns. Its *fence* grows from each instance of a run to the next, so that whoever
//! checks it (`systole.fence` in a transaction) turns a superseded holder away.
//!
//! What a lease promises: at most one holder at any moment, *if* the holder stops by itself when its trust ends
//! ([`Lease::lost`]) and clock rates differ by less than 10 %. What it does not: that the work happens exactly once.
//!
//! - [`timing`](Timing) the relations between intervals, without which nothing here is safe
//! - [`trust`](Trust) until when our last answer may be believed (pure)
//! - [`witness`](Witness) since when the database's clock may be believed (pure)
//! - `store` the typed calls of the SQL functions; `failover` those for a database that has forgotten something
//! - `heartbeat` the loop that keeps leases alive, on a thread and connection of its own; `operation` what else it does
//! - [`coordinator`](Coordinator), [`lease`](Lease) what a program holds in its hands

mod coordinator;
mod counting;
mod failover;
mod heartbeat;
mod lease;
mod message;
mod operation;
mod state;
pub(crate) mod store;
mod timing;
mod trust;
mod witness;

pub use coordinator::{AcquireError, ConnectError, Coordinator};
pub use lease::{FinishError, Lease};
pub use state::{LeaseState, Loss};
pub use store::{ClaimVerdict, Holder};
pub use timing::{CLOCK_RATE_ERROR, Timing, UNDETECTED_STEP, UnsafeTiming};
pub use trust::Trust;
pub use witness::{Testimony, Witness};

pub(crate) use store::{CertificateFiling, ClaimRequest, FilingVerdict};
