//! Attempts to break what stands between a run and a second executor of it: the guard, the containment and the
//! supervision. Real processes, real signals, at every level of containment that can be had here.
//!
//! | file | tries to |
//! |---|---|
//! | `death` | kill the supervisor, the guard, or both |
//! | `stopped` | stop the supervisor or the guard, and let it come back |
//! | `paused` | pause the whole machine, and let it wake up into a run that is another's |
//! | `database_away` | hang, crash and restart the server under a running command |
//! | `clocks` | set the server's clock forward, back, and a day off, under a running command |
//! | `signals` | stop a command that does not want to, by signal, by request and by the clock |
//! | `terminal` | type at it: Ctrl-C, Ctrl-Z |
//! | `stdio` | get between a command and its input, output, environment and descriptors |
//! | `ends` | lose how a command ended |
//! | `delegation` | run it in cgroups that are delegated, half delegated, or not at all |
//! | `containers` | run it as PID 1, without capabilities, cgroups, system calls or a proper /proc |
//! | `footprint` | be a burden |

mod levels;
#[path = "../support/mod.rs"]
mod support;
mod trees;

mod clocks;
mod containers;
mod database_away;
mod death;
mod delegation;
mod ends;
mod footprint;
mod paused;
mod signals;
mod stdio;
mod stopped;
mod terminal;

use std::time::Duration;

/// Longer than anything here takes that is not a fault.
const SOON: Duration = Duration::from_secs(20);
