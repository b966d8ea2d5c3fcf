//! Where the kernel has nothing to hold a tree with (anything but Linux, so far): there is no guard, and so no run.
//!
//! What looks at runs, stops them, and holds leases as a library works all the same.

use std::time::Duration;

use super::containment::Secured;
use super::error::GuardError;
use super::outlet::Outlet;
use super::wire::{Arming, FromGuard, Preparation, ToGuard};

/// There is none.
#[derive(Debug)]
pub(crate) enum Guard {}

/// Nobody is started as one here.
pub(super) fn serve() -> i32 {
    70
}

/// Nothing ends as our child.
pub(crate) fn reap() {}

/// The same, for ever.
pub(crate) async fn reap_orphans() {}

impl Guard {
    pub(crate) fn start(_: Preparation, _: Outlet) -> Result<Guard, GuardError> {
        Err(GuardError::Unready("containment takes Linux. Run it in a Linux container or virtual machine".to_owned()))
    }

    pub(crate) async fn ready(&mut self) -> Result<Secured, GuardError> {
        match *self {}
    }

    pub(crate) async fn arm(&mut self, _: Arming) -> Result<(), GuardError> {
        match *self {}
    }

    pub(crate) async fn tell(&mut self, _: &ToGuard) -> Result<(), GuardError> {
        match *self {}
    }

    pub(crate) async fn hear(&mut self) -> Result<FromGuard, GuardError> {
        match *self {}
    }

    pub(crate) fn has_spoken(&self) -> bool {
        match *self {}
    }

    pub(crate) fn is_gone(&self) -> bool {
        match *self {}
    }

    pub(crate) fn destroy(&mut self, _: Duration) -> bool {
        match *self {}
    }

    pub(crate) async fn dismiss(self) {
        match self {}
    }
}
