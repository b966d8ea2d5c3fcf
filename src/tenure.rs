//! A tenure as it was granted: all that its holder has to say to a database that has forgotten it in a failover.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::ids::{Fence, InstanceId, RunId};

/// Who claims, apart from which run: the same for all claims of one executor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Executor {
    pub(crate) identity: Identity,
    pub(crate) stale_after: Duration,
    pub(crate) containment: String,
    /// SHA-256 of the secret in the certificate of death; `None` where there is no guard to write one.
    pub(crate) death_secret_hash: Option<[u8; 32]>,
}

/// One executor's hold on one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tenure {
    pub(crate) run_id: RunId,
    pub(crate) instance_id: InstanceId,
    pub(crate) fence: Fence,
    pub(crate) attempt: i32,
    pub(crate) executor: Executor,
    pub(crate) purpose: Option<String>,
    /// In which it was granted, or an older one. `None` if the server did not say.
    pub(crate) history: Option<History>,
}

/// Which line of commits a server continues, as history.sql tells it: `SYSTEM-TIMELINE`, the latter in eight hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct History {
    system: u64,
    timeline: u32,
}

impl History {
    /// Whether a standby of the same cluster was promoted since. Of two clusters nobody can say which is the older one.
    pub(crate) fn is_older_than(self, other: History) -> bool {
        self.system == other.system && self.timeline < other.timeline
    }

    /// The number of its timeline, which each promotion raises.
    pub(crate) fn timeline(self) -> u32 {
        self.timeline
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08X}", self.system, self.timeline)
    }
}

/// A text that is no history.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not SYSTEM-TIMELINE")]
pub(crate) struct InvalidHistory(String);

impl FromStr for History {
    type Err = InvalidHistory;

    fn from_str(text: &str) -> Result<History, InvalidHistory> {
        let parts = text.split_once('-').filter(|(_, timeline)| timeline.len() == 8);
        let read = parts.and_then(|(system, timeline)| {
            Some(History { system: system.parse().ok()?, timeline: u32::from_str_radix(timeline, 16).ok()? })
        });
        read.ok_or_else(|| InvalidHistory(text.to_owned()))
    }
}

impl TryFrom<String> for History {
    type Error = InvalidHistory;

    fn try_from(text: String) -> Result<History, InvalidHistory> {
        text.parse()
    }
}

impl From<History> for String {
    fn from(history: History) -> String {
        history.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(text: &str) -> History {
        text.parse().unwrap()
    }

    #[test]
    fn a_history_is_written_as_it_is_read() {
        for text in ["7710626496172521346-00000001", "18446744073709551615-FFFFFFFF"] {
            assert_eq!(history(text).to_string(), text);
        }
        for text in ["", "1", "-00000001", "x-00000001", "1-1", "1-0000000G", "../1-00000001"] {
            assert!(text.parse::<History>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_timelines_of_one_cluster_have_an_order() {
        assert!(history("1-00000009").is_older_than(history("1-0000000A")));
        assert!(!history("1-0000000A").is_older_than(history("1-0000000A")));
        assert!(!history("2-00000001").is_older_than(history("1-0000000A")));
    }
}
