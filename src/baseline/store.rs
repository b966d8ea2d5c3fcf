//! The baselines of a run, one file a commit, in the order in which they were first captured.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::results::Results;
use crate::state_dir::make_folders;

/// What was captured at one commit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// Of this file's form.
    pub(crate) version: u32,
    pub(crate) commit: String,
    /// When the last time.
    pub(crate) captured_at: DateTime<Utc>,
    pub(crate) took_seconds: f64,
    /// Of the test command.
    pub(crate) exit_code: i32,
    pub(crate) tests: Results,
}

/// Why they cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the baselines in {} cannot be used: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("the baseline {} cannot be read: {error}. Capture it again", .path.display())]
    Malformed { path: PathBuf, error: String },
    #[error(
        "no baseline was captured of commit {commit}; there are: {known}. systole baseline capture RUN --commit {commit} -- COMMAND"
    )]
    Unknown { commit: String, known: String },
    #[error("{commit} are several commits with a baseline: give more of it")]
    Ambiguous { commit: String },
}

/// Those of one run.
#[derive(Debug)]
pub(crate) struct Baselines {
    folder: PathBuf,
}

impl Baselines {
    /// In the folder of the run.
    pub(crate) fn of(run_folder: &Path) -> Baselines {
        Baselines { folder: run_folder.join("baselines") }
    }

    /// All, the first one first.
    pub(crate) fn all(&self) -> Result<Vec<Baseline>, StoreError> {
        self.files()?.into_iter().map(|(_, _, path)| self.read(&path)).collect()
    }

    /// That of a commit, or of the one that begins like this.
    pub(crate) fn find(&self, commit: &str) -> Result<Baseline, StoreError> {
        let files = self.files()?;
        let mut found = files.iter().filter(|(_, name, _)| name.starts_with(commit));
        match (found.next(), found.next()) {
            (Some((_, _, path)), None) => self.read(path),
            (Some(_), Some(_)) => Err(StoreError::Ambiguous { commit: commit.to_owned() }),
            (None, _) => {
                let known: Vec<&str> = files.iter().map(|(_, name, _)| &name[..name.len().min(12)]).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(StoreError::Unknown { commit: commit.to_owned(), known })
            }
        }
    }

    /// Keeps one, instead of what there is of its commit. Whoever reads meanwhile has the old one or the new one.
    pub(crate) fn keep(&self, baseline: &Baseline) -> Result<PathBuf, StoreError> {
        make_folders(&self.folder).map_err(|error| self.io(error))?;
        let files = self.files()?;
        let known = files.iter().find(|(_, name, _)| *name == baseline.commit).map(|(number, _, _)| *number);
        let number = known.unwrap_or_else(|| files.last().map_or(1, |(number, _, _)| number + 1));
        let path = self.folder.join(format!("{number}-{}.json", baseline.commit));
        // Beside it, under a name of this process: two captures at once do not write into each other.
        let draft = self.folder.join(format!(".{}-{}", baseline.commit, std::process::id()));
        let written = fs::File::create(&draft).and_then(|mut file| {
            file.write_all(&serde_json::to_vec(baseline)?)?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        });
        written.map_err(|error| {
            let _ = fs::remove_file(&draft);
            self.io(error)
        })?;
        Ok(path)
    }

    /// Number, commit and path.
    fn files(&self) -> Result<Vec<(u64, String, PathBuf)>, StoreError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| self.io(error))?,
        };
        let mut files: Vec<(u64, String, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (number, commit) = name.strip_suffix(".json")?.split_once('-')?;
                Some((number.parse().ok()?, commit.to_owned(), entry.path()))
            })
            .collect();
        files.sort_unstable();
        Ok(files)
    }

    fn read(&self, path: &Path) -> Result<Baseline, StoreError> {
        let malformed = |error: String| StoreError::Malformed { path: path.to_owned(), error };
        let text = fs::read(path).map_err(|error| malformed(error.to_string()))?;
        let baseline: Baseline = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        if baseline.version != 1 {
            return Err(malformed(format!("its version is {}, and this systole reads 1", baseline.version)));
        }
        Ok(baseline)
    }

    fn io(&self, error: io::Error) -> StoreError {
        StoreError::Io { path: self.folder.clone(), error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(commit: &str) -> Baseline {
        Baseline {
            version: 1,
            commit: commit.to_owned(),
            captured_at: Utc::now(),
            took_seconds: 1.0,
            exit_code: 0,
            tests: Results::default(),
        }
    }

    #[test]
    fn they_stay_in_the_order_in_which_they_first_came() {
        let folder = tempfile::tempdir().unwrap();
        let baselines = Baselines::of(folder.path());
        assert!(baselines.all().unwrap().is_empty());
        for commit in ["ff01", "aa02", "aa03", "ff01"] {
            baselines.keep(&baseline(commit)).unwrap();
        }
        let commits: Vec<String> = baselines.all().unwrap().into_iter().map(|it| it.commit).collect();
        assert_eq!(commits, ["ff01", "aa02", "aa03"]);
        assert_eq!(baselines.find("ff").unwrap().commit, "ff01");
        assert!(baselines.find("aa").unwrap_err().to_string().contains("several"));
        assert!(baselines.find("bb").unwrap_err().to_string().contains("ff01, aa02, aa03"));
        let path = baselines.keep(&Baseline { version: 2, ..baseline("cc") }).unwrap();
        assert!(baselines.find("cc").unwrap_err().to_string().contains("version is 2"));
        fs::write(path, "{").unwrap();
        assert!(baselines.all().unwrap_err().to_string().contains("Capture it again"));
    }
}
