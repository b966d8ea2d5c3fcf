//! The anchor: a file by which somebody answers for parallel work on one repository.
//!
//! It is read once, and what it said is known again by its digest. What it means is decided without looking at anything else.
//! One worker needs no anchor. The JSON schema is docs/anchor.schema.json.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

/// No anchor is longer; it is read by everybody who starts something.
const BYTES_MAX: u64 = 64 * 1024;

/// More run on no machine, and a typing error is one digit more.
const WORKERS_MAX: u32 = 1024;

const PATHS_MAX: usize = 1000;

/// What an anchor says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Anchor {
    text: Text,
    /// The folder that `repo` names, if it does.
    repo: Option<Repo>,
    digest: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(rename = "$schema", default, deserialize_with = "given")]
    _schema: Option<String>,
    #[serde(rename = "version", deserialize_with = "version_2")]
    _version: (),
    parallelism_isolation: Parallelism,
    #[serde(default, deserialize_with = "given")]
    repo: Option<Named>,
    #[serde(default, deserialize_with = "moment")]
    expires_at: Option<DateTime<Utc>>,
    #[serde(default, deserialize_with = "given")]
    paths: Option<Paths>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parallelism {
    allowed: bool,
    #[serde(default, deserialize_with = "workers")]
    max_workers: Option<u32>,
    #[serde(rename = "isolation", default, deserialize_with = "given")]
    _isolation: Option<Isolation>,
}

/// How workers are kept apart. There is one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Isolation {
    Worktree,
}

/// A path with something in it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
struct Named(PathBuf);

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Vec<Below>")]
struct Paths(Vec<PathBuf>);

/// A path below the root of the repository.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
struct Below(PathBuf);

/// A folder, by its name and by what no second name changes: a link, a bind mount, another case.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Repo {
    name: PathBuf,
    /// Device and inode; `None` if it is not there.
    identity: Option<(u64, u64)>,
}

/// What somebody is about to do.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(crate) workers: u32,
    pub(crate) repo: Option<&'a Repo>,
    pub(crate) now: DateTime<Utc>,
}

/// Why parallel work is not allowed: the key, and the remedy. Exit code 77.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAllowed {
    #[error(
        "{workers} workers on one repository need an anchor, in which somebody allows it: --anchor-path FILE \
         (docs/anchor.md). One worker needs none"
    )]
    NoAnchor { workers: u32 },
    #[error("the anchor {path} cannot be read: {reason}")]
    Unreadable { path: String, reason: String },
    #[error("the anchor {path} cannot be used: {reason}. docs/anchor.md says what goes into it")]
    Malformed { path: String, reason: String },
    #[error(
        "parallelism_isolation.allowed is false in the anchor: {workers} workers are not allowed. Use one, or have whoever \
         answers for the anchor set it to true"
    )]
    Forbidden { workers: u32 },
    #[error(
        "parallelism_isolation.max_workers is {most} in the anchor, and {workers} were asked for: use at most {most}"
    )]
    TooMany { workers: u32, most: u32 },
    #[error(
        "expires_at is {at} in the anchor, which is over: have whoever answers for the anchor look at it again, and set a later one"
    )]
    Expired { at: String },
    #[error("repo is {anchored} in the anchor, and {asked}: take the anchor of that repository")]
    AnotherRepository { anchored: String, asked: String },
    #[error("paths in the anchor do not allow {path} to be touched, only {allowed}")]
    OutOfBounds { path: String, allowed: String },
}

impl Anchor {
    /// Reads an anchor, and looks which folder its `repo` names: a relative one starts at the anchor's own folder.
    pub(crate) fn read(path: &Path) -> Result<Anchor, NotAllowed> {
        let shown = path.display().to_string();
        let unreadable = |reason: String| NotAllowed::Unreadable { path: shown.clone(), reason };
        let bytes = read_bounded(path).map_err(|error| unreadable(error.to_string()))?;
        if bytes.len() as u64 > BYTES_MAX {
            let reason = format!("it is longer than {} kB", BYTES_MAX / 1024);
            return Err(NotAllowed::Malformed { path: shown, reason });
        }
        let text = parse(&bytes).map_err(|reason| NotAllowed::Malformed { path: shown, reason })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let repo = text.repo.as_ref().map(|Named(name)| Repo::at(&folder.join(name)));
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Anchor { text, repo, digest })
    }

    /// SHA-256 of the file as it was read, in hexadecimal: for the history of what was done by it.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// The most workers that it allows; `None` is no bound of its own.
    pub(crate) fn max_workers(&self) -> Option<u32> {
        self.text.parallelism_isolation.max_workers
    }

    /// Until when.
    pub(crate) fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.text.expires_at
    }

    /// Whether it allows only some paths to be touched.
    pub(crate) fn bounds_paths(&self) -> bool {
        self.text.paths.is_some()
    }

    /// Whether a path, from the root of the repository, may be touched. Without `paths` all may.
    pub(crate) fn may_touch(&self, path: &Path) -> Result<(), NotAllowed> {
        let Some(Paths(allowed)) = &self.text.paths else { return Ok(()) };
        if is_below(path) && allowed.iter().any(|allowed| path.starts_with(allowed)) {
            return Ok(());
        }
        Err(NotAllowed::OutOfBounds { path: format!("{:?}", path.display().to_string()), allowed: list(allowed) })
    }

    fn permits(&self, work: &Work<'_>) -> Result<(), NotAllowed> {
        let (workers, parallelism) = (work.workers, &self.text.parallelism_isolation);
        if !parallelism.allowed {
            return Err(NotAllowed::Forbidden { workers });
        }
        if let Some(most) = parallelism.max_workers.filter(|most| workers > *most) {
            return Err(NotAllowed::TooMany { workers, most });
        }
        if let Some(at) = self.text.expires_at.filter(|at| *at <= work.now) {
            return Err(NotAllowed::Expired { at: at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true) });
        }
        match (&self.repo, work.repo) {
            (Some(anchored), asked) if !asked.is_some_and(|asked| asked.is(anchored)) => {
                let gone = if anchored.identity.is_none() { ", which is not there," } else { "" };
                Err(NotAllowed::AnotherRepository {
                    anchored: format!("{}{gone}", anchored.shown()),
                    asked: asked.map_or("no repository was named".to_owned(), |asked| {
                        format!("the work is on {}", asked.shown())
                    }),
                })
            }
            _ => Ok(()),
        }
    }
}

/// Whether this work may be done in parallel, by this anchor, if there is one.
pub(crate) fn decide(anchor: Option<&Anchor>, work: &Work<'_>) -> Result<(), NotAllowed> {
    match anchor {
        _ if work.workers <= 1 => Ok(()),
        Some(anchor) => anchor.permits(work),
        None => Err(NotAllowed::NoAnchor { workers: work.workers }),
    }
}

impl Repo {
    /// The folder at this path, whatever else it is called.
    pub(crate) fn at(path: &Path) -> Repo {
        let name = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let identity = fs::metadata(&name).ok().filter(fs::Metadata::is_dir).map(|found| (found.dev(), found.ino()));
        Repo { name, identity }
    }

    fn shown(&self) -> String {
        harmless(&self.name.display().to_string())
    }

    fn is(&self, other: &Repo) -> bool {
        self.identity.is_some() && self.identity == other.identity
    }
}

/// One byte more than is allowed, at most. Never waits for a pipe.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is wrong is said with the key that it is about.
fn parse(bytes: &[u8]) -> Result<Text, String> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let text: Text = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let key = error.path().to_string();
        let said = error.inner().to_string();
        harmless(&if key == "." { said } else { format!("{key}: {said}") })
    })?;
    json.end().map_err(|error| error.to_string())?;
    Ok(text)
}

/// Nothing of what stands in a file steers a terminal.
fn harmless(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| harmless(&path.display().to_string())).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// A key that is there has a value: null is none.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A whole number, however it is written: for JSON Schema 2.0 is one.
fn whole<'de, D: Deserializer<'de>>(from: D, most: u32, expected: &str) -> Result<u32, D::Error> {
    let number = serde_json::Number::deserialize(from)?;
    let wrong =
        |number: &serde_json::Number| D::Error::custom(format_args!("it is {number}, but should be {expected}"));
    let value = number.as_f64().ok_or_else(|| wrong(&number))?;
    if value.fract() == 0.0 && (1.0..=f64::from(most)).contains(&value) {
        Ok(value as u32)
    } else {
        Err(wrong(&number))
    }
}

fn version_2<'de, D: Deserializer<'de>>(from: D) -> Result<(), D::Error> {
    match whole(from, u32::MAX, "2")? {
        2 => Ok(()),
        other => Err(D::Error::custom(format_args!("it is {other}, but should be 2, the one that this systole reads"))),
    }
}

fn workers<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    whole(from, WORKERS_MAX, "a whole number from 1 to 1024").map(Some)
}

fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let text = String::deserialize(from)?;
    // What chrono reads beyond that (blanks, small letters, leap seconds) the schema does not.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"-:.+TZ".contains(&byte))
        && text.get(10..11) == Some("T")
        && text.get(17..19) != Some("60");
    let at = DateTime::parse_from_rfc3339(&text).ok().filter(|_| is_plain);
    let wrong = || D::Error::invalid_value(Unexpected::Str(&text), &"a moment such as 2026-12-31T23:59:59Z");
    at.map(|at| Some(at.to_utc())).ok_or_else(wrong)
}

impl TryFrom<String> for Named {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Named, &'static str> {
        if text.is_empty() || text.contains('\0') {
            return Err("it should be the path of a repository, from the folder of the anchor");
        }
        Ok(Named(PathBuf::from(text)))
    }
}

impl TryFrom<String> for Below {
    type Error = String;

    fn try_from(text: String) -> Result<Below, String> {
        if text.is_empty() || text.contains('\0') || !is_below(Path::new(&text)) {
            let wrong = format_args!(
                "{text:?} should be a path from the root of the repository, without .. in it, such as src/web"
            );
            return Err(wrong.to_string());
        }
        Ok(Below(Path::new(&text).components().filter(|part| *part != Component::CurDir).collect()))
    }
}

impl TryFrom<Vec<Below>> for Paths {
    type Error = String;

    fn try_from(paths: Vec<Below>) -> Result<Paths, String> {
        if paths.len() > PATHS_MAX {
            return Err(format!("it has {} paths, and {PATHS_MAX} are the most: name folders", paths.len()));
        }
        Ok(Paths(paths.into_iter().map(|Below(path)| path).collect()))
    }
}

/// Whether a path stays below where it starts.
fn is_below(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// For people: what it allows.
impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max_workers() {
            _ if !self.text.parallelism_isolation.allowed => f.write_str("allows one worker")?,
            Some(most) => write!(f, "allows up to {most} workers")?,
            None => f.write_str("allows any number of workers")?,
        }
        match &self.repo {
            Some(repo) => write!(f, " on {}", repo.shown())?,
            None => f.write_str(" on any repository")?,
        }
        if let Some(at) = self.expires_at() {
            write!(f, " until {}", at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))?;
        }
        if let Some(Paths(paths)) = &self.text.paths {
            write!(f, ", touching {}", list(paths))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
