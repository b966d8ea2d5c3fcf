//! The names and tokens of the protocol, each a type of its own all the way into SQL.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest run id, in characters (all of them ASCII, so also in bytes).
pub const RUN_ID_LENGTH_MAX: usize = 200;

/// The name of a unit of work: letters, digits and `._:@-`, up to 200 characters, starting with a letter or digit.
///
/// The database holds the same rule as a CHECK. A run id is safe to print, but never becomes part of a path unhashed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

/// Why a text is not a [`RunId`]; the message shows the text with every control character escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{shown} is not a run id: {why}. Allowed are letters, digits and ._:@- , up to {RUN_ID_LENGTH_MAX} characters, \
     starting with a letter or digit, for example nightly or build-42"
)]
pub struct InvalidRunId {
    shown: String,
    why: String,
}

impl RunId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = InvalidRunId;

    fn from_str(text: &str) -> Result<RunId, InvalidRunId> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._:@-".contains(c);
        let why = if text.is_empty() {
            "it is empty".to_owned()
        } else if let Some(stranger) = text.chars().find(|c| !allowed(*c)) {
            format!("{stranger:?} is not allowed in it")
        } else if text.len() > RUN_ID_LENGTH_MAX {
            format!("it has {} characters", text.len())
        } else if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            format!("it starts with {:?}", &text[..1])
        } else {
            return Ok(RunId(text.to_owned()));
        };
        let mut shown: String = text.chars().take(60).flat_map(char::escape_default).collect();
        if text.chars().count() > 60 {
            shown.push('…');
        }
        Err(InvalidRunId { shown: format!("\"{shown}\""), why })
    }
}

impl TryFrom<String> for RunId {
    type Error = InvalidRunId;

    fn try_from(text: String) -> Result<RunId, InvalidRunId> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One tenure of one executor over one run. Made by the client before it claims, so that a claim can be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceId(pub Uuid);

impl InstanceId {
    /// A new id, ordered by time, so that instances of one age lie together in the table and its index.
    pub fn fresh() -> InstanceId {
        InstanceId(Uuid::now_v7())
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The fencing token of an instance: it only grows per run, is never given twice, and is no secret. Below 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fence(pub i64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What people and metrics call a node: letters, digits and `._-`, up to 63 characters. The database holds the same rule as a CHECK.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(String);

/// Why a text is not a [`NodeName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("1 to {NODE_NAME_LENGTH_MAX} letters, digits and ._-")]
pub struct InvalidNodeName;

/// The longest name of a node.
pub const NODE_NAME_LENGTH_MAX: usize = 63;

impl NodeName {
    /// The name of a node that nobody has named: its host's, with a hyphen for whatever a name cannot have.
    pub fn of_host(host: &str) -> NodeName {
        let fit = |c: char| if is_in_a_node_name(c) { c } else { '-' };
        let name: String = host.chars().take(NODE_NAME_LENGTH_MAX).map(fit).collect();
        NodeName(if name.is_empty() { "localhost".to_owned() } else { name })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = InvalidNodeName;

    fn from_str(text: &str) -> Result<NodeName, InvalidNodeName> {
        let is_one = (1..=NODE_NAME_LENGTH_MAX).contains(&text.len()) && text.chars().all(is_in_a_node_name);
        if is_one { Ok(NodeName(text.to_owned())) } else { Err(InvalidNodeName) }
    }
}

fn is_in_a_node_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-".contains(c)
}

/// A run id is what the database's CHECK allows, and a refusal cannot steer a terminal.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
    match text.parse::<RunId>() {
        Ok(id) => {
            assert!(id.as_str() == text && text.len() <= RUN_ID_LENGTH_MAX && !text.contains(['/', '\'', '"', ' ']))
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_run_ids_are_refused_by_name() {
        let long = "x".repeat(201);
        for (text, why) in [
            ("", "empty"),
            ("a/b", "'/'"),
            ("../etc", "'/'"),
            ("..", "starts with"),
            ("-rf", "starts with"),
            ("a\0b", "'\\0'"),
            ("a\nb", "'\\n'"),
            ("\u{1b}[31mred", "'\\u{1b}'"),
            ("it's", "'\\''"),
            ("a b", "' '"),
            ("crab🦀", "'🦀'"),
            (long.as_str(), "201 characters"),
        ] {
            let error = text.parse::<RunId>().unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
            assert!(!error.contains(['\u{1b}', '\n', '\0']), "{error:?} would reach the terminal raw");
        }
    }

    #[test]
    fn every_host_gives_a_name_that_a_node_may_have() {
        for host in ["build3", "a.b_c-D", "", "höst name\n", &"x".repeat(300)] {
            let name = NodeName::of_host(host);
            assert_eq!(name.as_str().parse(), Ok(name.clone()), "{host:?}");
        }
        assert_eq!(NodeName::of_host("build3.example.com").as_str(), "build3.example.com");
        for text in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(64)] {
            assert!(text.parse::<NodeName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn ordinary_run_ids_pass() {
        for text in ["nightly", "0", "a.b_c:d@e-f", &"x".repeat(200)] {
            assert_eq!(text.parse::<RunId>().unwrap().as_str(), text);
        }
    }
}
