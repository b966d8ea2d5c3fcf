//! The configuration file: one flat TOML table, with a section for HTTP and one for workspaces. An unknown key is an error, so that a misspelt one is not silently lost.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::keys::KEYS;

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("the configuration file {} cannot be read: {error}", .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("the configuration file {} is not TOML: {error}", .path.display())]
    Malformed { path: PathBuf, error: String },
    #[error("the configuration file {} has a key \"{key}\", which does not exist. Known are: {known}", .path.display())]
    UnknownKey { path: PathBuf, key: String, known: String },
    #[error("the configuration file {}, [commands.NAME] argv = [\"program\", \"argument\"]: {error}", .path.display())]
    Commands { path: PathBuf, error: String },
    #[error("the configuration file {} has a {kind} for \"{key}\", but should have text in quotes", .path.display())]
    WrongType { path: PathBuf, key: String, kind: &'static str },
}

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Values {
    /// Each key's value.
    pub(super) keys: BTreeMap<String, String>,
    /// `[commands.NAME] argv = […]`: what a node may start, by name.
    pub(super) commands: BTreeMap<String, Vec<String>>,
}

/// A command that a node may start.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    argv: Vec<String>,
}

/// The file's values, and which file that was: the named one, else `./systole.toml`, else the user's.
pub(super) fn read(named: Option<&Path>) -> Result<Option<(PathBuf, Values)>, FileError> {
    let candidates = match named {
        Some(path) => vec![path.to_owned()],
        None => [Some(PathBuf::from("systole.toml")), users_file()].into_iter().flatten().collect(),
    };
    for path in candidates {
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(Some((path.clone(), parse(&path, &text)?))),
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(FileError::Unreadable { path, error }),
        }
    }
    Ok(None)
}

fn users_file() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(base.join("systole/systole.toml"))
}

fn parse(path: &Path, text: &str) -> Result<Values, FileError> {
    let path = || path.to_owned();
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        // Not its whole text: that shows the line, and there may be a password in it.
        let line = text[..error.span().map_or(0, |span| span.start)].matches('\n').count() + 1;
        FileError::Malformed { path: path(), error: format!("line {line}: {}", error.message()) }
    })?;
    let flat = table.into_iter().flat_map(|(key, value)| match (key.as_str(), value) {
        ("http" | "workspace", toml::Value::Table(section)) => {
            section.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)).collect()
        }
        (_, value) => vec![(key, value)],
    });
    let mut values = Values::default();
    for (key, value) in flat {
        if key == "commands" {
            let commands: BTreeMap<String, Command> = value
                .try_into()
                .map_err(|error: toml::de::Error| FileError::Commands { path: path(), error: error.to_string() })?;
            if let Some((name, _)) = commands.iter().find(|(_, command)| command.argv.is_empty()) {
                let error = format!("the argv of \"{name}\" has no program");
                return Err(FileError::Commands { path: path(), error });
            }
            values.commands = commands.into_iter().map(|(name, command)| (name, command.argv)).collect();
            continue;
        }
        if !KEYS.iter().any(|known| known.name == key) {
            let known: Vec<&str> = KEYS.iter().map(|known| known.name).collect();
            return Err(FileError::UnknownKey { path: path(), key, known: known.join(", ") });
        }
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Boolean(truth) => truth.to_string(),
            // The only ones without a unit, or with one in their name.
            toml::Value::Integer(number) if ["slots", "log_bytes_max", "workspace.keep"].contains(&key.as_str()) => {
                number.to_string()
            }
            other => return Err(FileError::WrongType { path: path(), key, kind: other.type_str() }),
        };
        values.keys.insert(key, text);
    }
    Ok(values)
}

/// Values, or a refusal.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
    if let Ok(values) = parse(Path::new("systole.toml"), text) {
        assert!(values.keys.keys().all(|key| KEYS.iter().any(|known| known.name == key)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_an_error() {
        let error = parse(Path::new("systole.toml"), "stale_afer = \"30s\"").unwrap_err().to_string();
        assert!(error.contains("\"stale_afer\"") && error.contains("stale_after"), "{error}");
    }

    #[test]
    fn commands_are_named_with_their_argv() {
        let read = |text: &str| parse(Path::new("systole.toml"), text);
        let values = read("slots = 4\n[commands.train]\nargv = [\"python\", \"{run_id}\"]").unwrap();
        assert_eq!(values.commands["train"], ["python", "{run_id}"]);
        assert_eq!(values.keys["slots"], "4");
        for bad in ["[commands.x]\nargv = []", "[commands.x]\nargs = [\"x\"]", "[commands]\nx = 1"] {
            assert!(read(bad).unwrap_err().to_string().contains("[commands.NAME]"), "{bad}");
        }
    }

    #[test]
    fn http_has_a_section() {
        let read = |text: &str| parse(Path::new("systole.toml"), text);
        let values = read("slots = 4\n[http]\nlisten = \"off\"").unwrap();
        assert_eq!(values.keys["http.listen"], "off");
        for bad in ["[http]\nlisen = \"off\"", "http = \"off\""] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("http.listen"), "{error}");
        }
    }

    #[test]
    fn a_number_has_no_unit_and_is_refused() {
        let error = parse(Path::new("systole.toml"), "stale_after = 30").unwrap_err().to_string();
        assert!(error.contains("integer") && error.contains("stale_after"), "{error}");
    }
}
