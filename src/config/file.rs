//! The configuration file: one flat TOML table. An unknown key is an error, so that a misspelt one is not silently lost.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

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
    #[error("the configuration file {} has a {kind} for \"{key}\", but should have text in quotes", .path.display())]
    WrongType { path: PathBuf, key: String, kind: &'static str },
}

/// The file's values by key.
pub(super) type Values = BTreeMap<String, String>;

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
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| FileError::Malformed { path: path(), error: error.to_string() })?;
    table
        .into_iter()
        .map(|(key, value)| {
            if !KEYS.iter().any(|known| known.name == key) {
                let known: Vec<&str> = KEYS.iter().map(|known| known.name).collect();
                return Err(FileError::UnknownKey { path: path(), key, known: known.join(", ") });
            }
            match value {
                toml::Value::String(text) => Ok((key, text)),
                toml::Value::Boolean(truth) => Ok((key, truth.to_string())),
                other => Err(FileError::WrongType { path: path(), key, kind: other.type_str() }),
            }
        })
        .collect()
}

/// Values, or a refusal.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
    if let Ok(values) = parse(Path::new("systole.toml"), text) {
        assert!(values.keys().all(|key| KEYS.iter().any(|known| known.name == key)));
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
    fn a_number_has_no_unit_and_is_refused() {
        let error = parse(Path::new("systole.toml"), "stale_after = 30").unwrap_err().to_string();
        assert!(error.contains("integer") && error.contains("stale_after"), "{error}");
    }
}
