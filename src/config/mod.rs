//! What was configured, and where each value came from: flags over environment over file over defaults.

mod file;
mod http;
mod keys;
mod workspace;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::db::{Schema, holds_password};
use crate::elapsed::parse_duration;
use crate::identity::Identity;
use crate::ids::NodeName;
use crate::instance::{Timing, UnsafeTiming};
use crate::log::Format;
use crate::node::Catalogue;
use crate::state_dir::StateDir;
pub(crate) use file::FileError;
#[cfg(fuzzing)]
pub use file::fuzz;
pub(crate) use http::Http;
pub(crate) use keys::{KEYS, Key};

/// Half of it holds what is put into the database of a log, and a few of the longest lines.
const LOG_BYTES_MIN: u64 = 128 * 1024;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Flag(&'static str),
    Environment(&'static str),
    File(PathBuf),
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(name) => write!(f, "--{name}"),
            Source::Environment(name) => f.write_str(name),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Default => f.write_str("default"),
        }
    }
}

/// A configuration that cannot be used; names the value, its source and the remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{key} from {source_name} is {value:?}, but should be {expected}")]
    Value { key: &'static str, source_name: String, value: String, expected: &'static str },
    #[error(transparent)]
    Timing(#[from] UnsafeTiming),
    #[error(
        "--{flag} holds a password, and everybody on this machine can read it there (ps). Leave it out, and put it into \
         ~/.pgpass, or give the whole URL as SYSTOLE_{} or in systole.toml", .flag.replace('-', "_").to_uppercase()
    )]
    SecretInArgument { flag: &'static str },
    #[error(
        "http.listen from {source_name} is {listen}, which others than this machine can reach: that takes a token. Put one \
         into a file (openssl rand -hex 32) and name it with --http-token-file FILE, or token_file in [http], or set \
         SYSTOLE_HTTP_TOKEN; or listen at 127.0.0.1:{}", .listen.port()
    )]
    Unprotected { listen: SocketAddr, source_name: String },
    #[error("{place} {problem}: it should hold the token that is asked for over HTTP (openssl rand -hex 32)")]
    Token { place: String, problem: String },
    #[error(
        "no database is configured. Use your own with --database-url URL or SYSTOLE_DATABASE_URL, \
         or a private PostgreSQL on this machine with --embedded"
    )]
    NoDatabase,
}

/// All values as text, each with its source.
#[derive(Debug)]
pub(crate) struct Config {
    values: BTreeMap<&'static str, (String, Source)>,
    commands: BTreeMap<String, Vec<String>>,
}

/// Which database to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Database {
    Url {
        url: String,
        /// A way to it that passes no pooler.
        direct: Option<String>,
    },
    Embedded,
}

impl Config {
    /// Collects from all sources. `flags` are the values given on the command line, by key.
    pub(crate) fn read(flags: &BTreeMap<&'static str, String>, file: Option<&Path>) -> Result<Config, ConfigError> {
        Config::collect(flags, |name| std::env::var(name).ok(), file::read(file)?)
    }

    fn collect(
        flags: &BTreeMap<&'static str, String>,
        environment: impl Fn(&str) -> Option<String>,
        file: Option<(PathBuf, file::Values)>,
    ) -> Result<Config, ConfigError> {
        let mut values = BTreeMap::new();
        for key in KEYS {
            let from_flag = || flags.get(key.name).map(|value| (value.clone(), Source::Flag(key.flag)));
            let from_environment = || {
                let found = |name: &&'static str| {
                    environment(name).filter(|value| !value.is_empty()).map(|value| (value, Source::Environment(name)))
                };
                key.environment.iter().find_map(found)
            };
            let from_file = || {
                let (path, values) = file.as_ref()?;
                Some((values.keys.get(key.name)?.clone(), Source::File(path.clone())))
            };
            let by_default = || key.default.map(|value| (value.to_owned(), Source::Default));
            // What others call it: a number of seconds, and only a default.
            let by_custom = || {
                let set = |value: &String| key.name == "poll_interval" && !value.trim().is_empty();
                let seconds = environment("WORKER_CHECK_INTERVAL").filter(set)?;
                Some((format!("{}s", seconds.trim()), Source::Environment("WORKER_CHECK_INTERVAL")))
            };
            let found = from_flag().or_else(from_environment).or_else(from_file).or_else(by_custom).or_else(by_default);
            if let Some(found) = found {
                values.insert(key.name, found);
            }
        }
        let commands = file.map(|(_, values)| values.commands).unwrap_or_default();
        Ok(Config { values, commands })
    }

    /// Every key with its value and source; secrets are not shown.
    pub(crate) fn explain(&self) -> Vec<(&'static str, String, String)> {
        let shown = |key: &Key| match self.values.get(key.name) {
            Some((_, source)) if key.is_secret => (key.name, "(set)".to_owned(), source.to_string()),
            Some((value, source)) => (key.name, value.clone(), source.to_string()),
            None => (key.name, "-".to_owned(), "-".to_owned()),
        };
        KEYS.iter().map(shown).collect()
    }

    /// The configuration file, if it gives a value of this kind.
    pub(crate) fn file_with(&self, kind: impl Fn(&Key, &str) -> bool) -> Option<&Path> {
        KEYS.iter().find_map(|key| match self.values.get(key.name) {
            Some((value, Source::File(path))) if kind(key, value) => Some(path.as_path()),
            _ => None,
        })
    }

    /// Which database, or how to say which.
    pub(crate) fn database(&self) -> Result<Database, ConfigError> {
        let rank = |name: &str| self.values.get(name).map_or(0, |(_, source)| source.rank());
        let embedded = self.truth("embedded")?;
        // The nearer source wins; on a par, a database that was named is never replaced by a private one.
        match self.text("database_url") {
            Some(url) if !embedded || rank("database_url") >= rank("embedded") => {
                for key in ["database_url", "direct_url"] {
                    self.refuse_secret_in_argument(key)?;
                }
                Ok(Database::Url { url: url.to_owned(), direct: self.text("direct_url").map(str::to_owned) })
            }
            _ if embedded => Ok(Database::Embedded),
            _ => Err(ConfigError::NoDatabase),
        }
    }

    /// Everybody on this machine can read the arguments of everybody's commands.
    fn refuse_secret_in_argument(&self, key: &'static str) -> Result<(), ConfigError> {
        match self.values.get(key) {
            Some((url, Source::Flag(flag))) if holds_password(url) => Err(ConfigError::SecretInArgument { flag }),
            _ => Ok(()),
        }
    }

    /// The schema of our tables.
    pub(crate) fn schema(&self) -> Result<Schema, ConfigError> {
        let text = self.text("schema").expect("it has a default");
        text.parse().map_err(|_| {
            let expected = "1 to 48 lower-case letters, digits and _, beginning with no digit and not with pg_, for a schema \
                            that is systole's alone (so not public)";
            self.refuse("schema", expected)
        })
    }

    /// The intervals, checked against each other.
    pub(crate) fn timing(&self) -> Result<Timing, ConfigError> {
        let timing = Timing {
            heartbeat_interval: self.duration("heartbeat_interval")?,
            attempt_timeout: self.duration("attempt_timeout")?,
            fence_after: self.duration("fence_after")?,
            kill_grace: self.duration("kill_grace")?,
            stale_after: self.duration("stale_after")?,
            freeze_max: self.duration("freeze_max")?,
        };
        Ok(timing.checked()?)
    }

    /// TERM to KILL.
    pub(crate) fn stop_grace(&self) -> Result<Duration, ConfigError> {
        self.duration("stop_grace")
    }

    /// `auto` or a level.
    pub(crate) fn containment(&self) -> Result<Option<crate::guard::containment::Containment>, ConfigError> {
        match self.text("containment") {
            None | Some("auto") => Ok(None),
            Some(name) => match crate::guard::containment::Containment::named(name) {
                Some(level) => Ok(Some(level)),
                None => Err(self.refuse("containment", "auto, pid_namespace, cgroup or subreaper")),
            },
        }
    }

    /// How lines of a process look that writes `auto` for itself.
    pub(crate) fn log_format(&self, auto: Format) -> Result<Format, ConfigError> {
        match self.text("log_format") {
            None | Some("auto") => Ok(auto),
            Some("text") => Ok(Format::Text),
            Some("json") => Ok(Format::Json),
            Some(_) => Err(self.refuse("log_format", "auto, text or json")),
        }
    }

    /// What a node may take, and how much of it.
    pub(crate) fn catalogue(&self) -> Result<Catalogue, ConfigError> {
        let list = |key: &str| {
            let text = self.text(key).unwrap_or_default();
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let pair = |item: &String| item.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let labels: Option<_> = list("labels").iter().map(pair).collect();
        Ok(Catalogue {
            queues: list("queues"),
            labels: labels.ok_or_else(|| self.refuse("labels", "KEY=VALUE, and a comma before the next"))?,
            commands: self.commands.clone(),
            // A private database has no other users to be careful of.
            allow_submitted_commands: match self.text("allow_submitted_commands") {
                None => self.database()? == Database::Embedded,
                Some(_) => self.truth("allow_submitted_commands")?,
            },
        })
    }

    /// What a node is called by people and metrics: its host's name, unless somebody names it.
    pub(crate) fn node_name(&self) -> Result<NodeName, ConfigError> {
        match self.text("node_name") {
            None => Ok(NodeName::of_host(&Identity::of_this_process().host)),
            Some(text) => text.parse().map_err(|_| self.refuse("node_name", "1 to 63 letters, digits and ._-")),
        }
    }

    /// How many runs a node works on at once.
    pub(crate) fn slots(&self) -> Result<i32, ConfigError> {
        let slots = self.text("slots").and_then(|text| text.parse().ok()).filter(|slots| (1..=1000).contains(slots));
        slots.ok_or_else(|| self.refuse("slots", "a number from 1 to 1000"))
    }

    /// Between two looks into the queue, if nothing is heard of it before.
    pub(crate) fn poll_interval(&self) -> Result<Duration, ConfigError> {
        self.duration("poll_interval")
    }

    /// How long a draining node waits for its runs before it gives them back.
    pub(crate) fn drain_timeout(&self) -> Result<Duration, ConfigError> {
        self.duration("drain_timeout")
    }

    /// How much of an attempt's output is kept on the node's host.
    pub(crate) fn log_bytes_max(&self) -> Result<u64, ConfigError> {
        let bytes = self.text("log_bytes_max").and_then(parse_bytes).filter(|bytes| *bytes >= LOG_BYTES_MIN);
        bytes.ok_or_else(|| self.refuse("log_bytes_max", "a size such as 64MiB or 2GiB, at least 128KiB"))
    }

    /// Where the output of runs is kept.
    pub(crate) fn runs_dir(&self) -> PathBuf {
        self.text("runs_dir").map_or_else(|| self.state_dir().join("runs"), PathBuf::from)
    }

    /// Where certificates and local locks are.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.text("state_dir").map_or_else(StateDir::default_path, PathBuf::from)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|(value, _)| value.as_str())
    }

    fn truth(&self, key: &'static str) -> Result<bool, ConfigError> {
        match self.text(key) {
            None | Some("false" | "0" | "no") => Ok(false),
            Some("true" | "1" | "yes") => Ok(true),
            Some(_) => Err(self.refuse(key, "true or false")),
        }
    }

    fn duration(&self, key: &'static str) -> Result<Duration, ConfigError> {
        let text = self.text(key).expect("it has a default, or was looked for");
        parse_duration(text).ok_or_else(|| self.refuse(key, "a duration such as 500ms, 30s or 5m"))
    }

    fn refuse(&self, key: &'static str, expected: &'static str) -> ConfigError {
        let (value, source) = &self.values[key];
        ConfigError::Value { key, source_name: source.to_string(), value: value.clone(), expected }
    }
}

/// Bytes, or with a unit: k, M, G by thousands, with an i by 1024.
fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim_start().trim_end_matches('B') {
        "" => 1,
        "k" | "K" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

impl Source {
    fn rank(&self) -> u8 {
        match self {
            Source::Flag(_) => 3,
            Source::Environment(_) => 2,
            Source::File(_) => 1,
            Source::Default => 0,
        }
    }
}

#[cfg(test)]
mod tests;
