//! Reports on the disk: found where a command has left them, read with a bound.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::junit;
use super::results::Results;

/// A report of a hundred thousand tests that say much is not longer.
const BYTES_MAX: u64 = 256 << 20;

/// The name under which the file system is asked for its time.
const PROBE: &str = ".systole-moment";

/// The coarsest clocks of file systems tick every two seconds.
const TICK_MAX: Duration = Duration::from_secs(3);

/// What a report begins with is in its first bytes.
const HEAD_BYTES: u64 = 4096;

/// Why a report cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error("the report {} cannot be read: {error}", .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("the report {} is no JUnit XML: {reason}", .path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("the report {} was there before the command was started, and was not written again: it says nothing of it", .path.display())]
    Old { path: PathBuf },
    #[error(
        "no report in JUnit XML was found{}: have the tests write one (pytest --junitxml=report.xml; cargo-nextest: [profile.ci.junit] path = \
         \"junit.xml\"), and name it with --junit PATH if it is elsewhere",
        .folder.as_ref().map(|folder| format!(" in {}", folder.display())).unwrap_or_default()
    )]
    None { folder: Option<PathBuf> },
}

/// Reads reports in this order: what is in a later one as well was tried again. A folder stands for all reports in it.
pub(crate) fn read(paths: &[PathBuf], since: Option<SystemTime>) -> Result<Results, ReportError> {
    let mut results = Results::default();
    for path in paths {
        let unreadable = |error| ReportError::Unreadable { path: path.clone(), error };
        let found = fs::metadata(path).map_err(unreadable)?;
        if found.is_dir() {
            for report in written_since(path, since)? {
                results.then(read_one(&report)?);
            }
            continue;
        }
        let written = found.modified().map_err(unreadable)?;
        if since.is_some_and(|since| written < since) {
            return Err(ReportError::Old { path: path.clone() });
        }
        results.then(read_one(path)?);
    }
    if results.is_empty() {
        return Err(ReportError::None { folder: paths.first().cloned() });
    }
    Ok(results)
}

fn read_one(path: &Path) -> Result<Results, ReportError> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut text));
    read.map_err(|error| ReportError::Unreadable { path: path.to_owned(), error })?;
    let malformed = |reason| ReportError::Malformed { path: path.to_owned(), reason };
    if text.len() as u64 > BYTES_MAX {
        return Err(malformed(format!("it is longer than {} MiB", BYTES_MAX >> 20)));
    }
    // What a test printed is in there as well, and may be anything.
    junit::parse(&String::from_utf8_lossy(&text)).map_err(malformed)
}

/// All reports below this folder that were written since then, in the order in which they were.
fn written_since(folder: &Path, since: Option<SystemTime>) -> Result<Vec<PathBuf>, ReportError> {
    let mut found = Vec::new();
    collect(folder, since, &mut found).map_err(|error| ReportError::Unreadable { path: folder.to_owned(), error })?;
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// A moment behind the last change in this folder and before the next one, by the clock of its file system, which ticks every few
/// milliseconds.
pub(crate) fn moment_behind_all(folder: &Path) -> io::Result<SystemTime> {
    let probe = folder.join(PROBE);
    let look = || fs::write(&probe, "").and_then(|()| fs::metadata(&probe)?.modified());
    let begun = Instant::now();
    let first = look()?;
    let mut later = look();
    while begun.elapsed() < TICK_MAX && matches!(later, Ok(later) if later == first) {
        std::thread::yield_now();
        later = look();
    }
    fs::remove_file(&probe)?;
    later
}

fn collect(folder: &Path, since: Option<SystemTime>, into: &mut Vec<(SystemTime, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            if entry.file_name() != ".git" {
                collect(&path, since, into)?;
            }
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "xml") {
            let written = entry.metadata()?.modified()?;
            if since.is_none_or(|since| written >= since) && begins_as_one(&path) {
                into.push((written, path));
            }
        }
    }
    Ok(())
}

/// XML of other kinds lies about as well.
fn begins_as_one(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
    read.is_ok() && String::from_utf8_lossy(&head).contains("<testsuite")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf, text: &str, at: SystemTime) -> PathBuf {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        path
    }

    #[test]
    fn reports_are_found_by_what_they_are_and_only_those_of_this_time() {
        let folder = tempfile::tempdir().unwrap();
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds);
        let failed =
            "<testsuites><testsuite name='s'><testcase name='a'><failure/></testcase></testsuite></testsuites>";
        let passed = "<testsuite name='s'><testcase name='a'/></testsuite>";
        // Tried again, later: by when it was written, and not by its name.
        write(folder.path().join("target/nextest/ci/z.xml"), failed, at(10));
        let last = write(folder.path().join("a.xml"), passed, at(20));
        let old = write(folder.path().join("old.xml"), &failed.replace("'a'", "'b'"), at(5));
        write(folder.path().join("pom.xml"), "<project/>", at(30));
        write(folder.path().join(".git/b.xml"), failed, at(30));
        let found = read(&[folder.path().to_owned()], Some(at(10))).unwrap();
        assert_eq!(found.summary(), "1 tests: 1 flaky");
        assert_eq!(read(&[last], Some(at(10))).unwrap().summary(), "1 tests: 1 passed");
        let refused = |paths: &[PathBuf]| read(paths, Some(at(10))).unwrap_err().to_string();
        assert!(refused(&[old]).contains("old.xml was there before"));
        assert!(refused(&[folder.path().join("pom.xml")]).contains("begins with project"));
        assert!(refused(&[folder.path().join("none.xml")]).contains("none.xml cannot be read"));
        assert!(refused(&[]).contains("--junitxml"));
    }
}
