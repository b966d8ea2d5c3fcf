//! What this host has for a node.

use rustix::process::{Resource, getrlimit};

use super::{Node, Setup};
use crate::attempt::AttemptError;
use crate::guard::{Guard, Outlet, Preparation};
use crate::ids::InstanceId;
use crate::log::{self, What};

/// What a run takes of our file descriptors: to its guard, for its progress, its output and the file of that.
const DESCRIPTORS_EACH: u64 = 8;

/// What a node takes without any run, with some to spare for connections that are made anew.
const DESCRIPTORS_BESIDE: u64 = 64;

/// Which containment there is here, found out as a run would.
pub(super) async fn containment(setup: &Setup) -> Result<String, AttemptError> {
    let preparation = Preparation { instance_id: InstanceId::fresh(), wish: setup.containment, own_session: true };
    let mut guard = Guard::start(preparation, Outlet::ours())?;
    let secured = guard.ready().await;
    guard.dismiss().await;
    Ok(secured?.label())
}

/// Without descriptors no connection can be made anew, and heartbeats would be missed for it.
pub(super) fn say_what_is_scarce(setup: &Setup) {
    let wanted = setup.slots.unsigned_abs() as u64 * DESCRIPTORS_EACH + DESCRIPTORS_BESIDE;
    if let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < wanted) {
        log::say(
            What::Scarce,
            format_args!(
                "{} slots may take {wanted} file descriptors, and this process may have {limit}: raise it (ulimit -n, \
                 LimitNOFILE=), or have fewer slots",
                setup.slots
            ),
        );
    }
}

impl Node {
    /// For people, when it is ready.
    pub(super) fn describe(&self) -> String {
        let setup = &self.shared.setup;
        let slots = if setup.slots == 1 { "1 slot".to_owned() } else { format!("{} slots", setup.slots) };
        let commands: Vec<&str> = setup.catalogue.commands.keys().map(String::as_str).collect();
        let may = match (setup.catalogue.allow_submitted_commands, commands.is_empty()) {
            (true, _) => "starts any submitted command".to_owned(),
            (false, false) => format!("starts {}", commands.join(", ")),
            (false, true) => "starts nothing: name commands in systole.toml, or allow_submitted_commands".to_owned(),
        };
        format!(
            "node {} with {slots} for queue {}, {}, {may}",
            self.claimer.registration().identity.executor_id,
            setup.catalogue.queues.join(", "),
            self.claimer.containment()
        )
    }
}
