//! What the command finds in its environment.

use std::ffi::OsString;
use std::path::Path;

use crate::ids::{Fence, InstanceId, RunId};

/// What the supervisor knows and the command may want to.
pub(crate) struct Surroundings<'a> {
    pub(crate) run_id: &'a RunId,
    pub(crate) instance_id: InstanceId,
    pub(crate) fence: Fence,
    pub(crate) attempt: i32,
    pub(crate) executor_id: &'a str,
    /// Whose work this attempt takes over: who it was, and how it is known to have died.
    pub(crate) predecessor: Option<(&'a str, &'a str)>,
    /// Where what is to be kept of the run goes, if there is such a place.
    pub(crate) run_dir: Option<&'a Path>,
    pub(crate) socket: Option<&'a Path>,
}

/// The changes to the environment that is handed down: our variables in, our secrets out.
pub(crate) fn environment(of: &Surroundings<'_>) -> Vec<(OsString, Option<OsString>)> {
    let set = |value: String| Some(OsString::from(value));
    [
        ("SYSTOLE_RUN_ID", set(of.run_id.to_string())),
        ("SYSTOLE_INSTANCE_ID", set(of.instance_id.to_string())),
        ("SYSTOLE_FENCE", set(of.fence.to_string())),
        ("SYSTOLE_ATTEMPT", set(of.attempt.to_string())),
        ("SYSTOLE_EXECUTOR_ID", set(of.executor_id.to_owned())),
        ("SYSTOLE_PREDECESSOR", of.predecessor.and_then(|(who, _)| set(who.to_owned()))),
        ("SYSTOLE_PREDECESSOR_CAUSE", of.predecessor.and_then(|(_, cause)| set(cause.to_owned()))),
        ("SYSTOLE_RUN_DIR", of.run_dir.map(|path| path.as_os_str().to_owned())),
        ("SYSTOLE_SOCKET", of.socket.map(|path| path.as_os_str().to_owned())),
        // The guard was started without them. The command's own database, DATABASE_URL, is its own business.
        ("SYSTOLE_DATABASE_URL", None),
        ("SYSTOLE_DIRECT_URL", None),
        ("SYSTOLE_HTTP_TOKEN", None),
    ]
    .into_iter()
    .map(|(name, value)| (OsString::from(name), value))
    .collect()
}
