//! What is put into the queue: one run's description, from flags or from a line of JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::ids::RunId;

/// A run as its submitter describes it. Durations are text in JSON (`"10s"`), and seconds on their way into the database.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Submission {
    pub(crate) run_id: RunId,
    /// What to start: program and arguments ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) argv: Option<Vec<String>>,
    /// ... or the name of a command that nodes know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<String>,
    #[serde(default = "default_queue")]
    pub(crate) queue: String,
    #[serde(default)]
    pub(crate) priority: i32,
    #[serde(default, deserialize_with = "duration", serialize_with = "seconds")]
    pub(crate) after: Option<Duration>,
    /// What a node must have.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "duration", serialize_with = "seconds_if_any")]
    pub(crate) timeout: Option<Duration>,
    #[serde(default, deserialize_with = "duration", serialize_with = "seconds_if_any")]
    pub(crate) stall_timeout: Option<Duration>,
    #[serde(default = "one")]
    pub(crate) max_attempts: i32,
    #[serde(default = "default_backoff", deserialize_with = "duration", serialize_with = "seconds")]
    pub(crate) backoff: Option<Duration>,
    #[serde(default = "three")]
    pub(crate) crashes_max: i32,
    /// Exit codes that mean: do not retry.
    #[serde(default)]
    pub(crate) no_retry: Vec<i32>,
    #[serde(default)]
    pub(crate) purpose: Option<String>,
    #[serde(default)]
    pub(crate) meta: Value,
    /// Where it stands in its file.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<usize>,
}

impl Submission {
    /// With all the defaults of a line of JSON, and nothing to start yet.
    pub(crate) fn of(run_id: RunId) -> Submission {
        Submission {
            run_id,
            argv: None,
            command: None,
            queue: default_queue(),
            priority: 0,
            after: None,
            labels: BTreeMap::new(),
            env: BTreeMap::new(),
            timeout: None,
            stall_timeout: None,
            max_attempts: one(),
            backoff: default_backoff(),
            crashes_max: three(),
            no_retry: Vec::new(),
            purpose: None,
            meta: Value::Null,
            line: None,
        }
    }

    /// With a NUL in one of its texts: PostgreSQL keeps none, and would not say where it stands.
    pub(crate) fn has_nul(&self) -> bool {
        serde_json::to_value(self).is_ok_and(|all| has_nul(&all))
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(values) => values.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}

fn default_queue() -> String {
    "default".to_owned()
}

fn default_backoff() -> Option<Duration> {
    Some(Duration::from_secs(10))
}

fn one() -> i32 {
    1
}

fn three() -> i32 {
    3
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    crate::elapsed::parse_duration(&text)
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no duration such as 500ms, 30s or 5m")))
}

fn seconds<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.unwrap_or_default().as_secs_f64())
}

fn seconds_if_any<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match span {
        Some(span) => serializer.serialize_some(&span.as_secs_f64()),
        None => serializer.serialize_none(),
    }
}
