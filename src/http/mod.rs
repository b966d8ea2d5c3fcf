//! What a process answers over HTTP: whether it lives, whether it is ready, its metrics.
//!
//! All of it happens on a thread of its own, with bounds on how many may ask, and for how long: whoever asks too much, or too
//! slowly, delays others who ask, and neither a heartbeat nor a claim. The port is taken by [`Door::open`] before anything else
//! is, and answered at from [`serve`] on.
//!
//! Whoever wants more than one route makes one router of several: [`routes::of_node`] merged with his own.

mod gate;
pub(crate) mod routes;
mod server;

pub(crate) use routes::Readiness;
pub(crate) use server::{Door, DoorError, serve};
