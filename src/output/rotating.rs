//! A log in two files: the current one, and the one before it (`….1`). Together they never outgrow their bound.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::line::LINE_MAX;
use crate::elapsed::Instant;
use crate::state_dir::make_folders;

/// Between two tries at a disk that took nothing.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Collects pieces of lines, and writes them when flushed. What the disk does not take is dropped, and counted.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    /// Of each of the two files.
    size_max: u64,
    file: Option<File>,
    size: u64,
    pending: Vec<u8>,
    /// Whether what is pending begins with a line, and not within one.
    starts_line: bool,
    /// Whether what came before the pending is not in the file, or not whole.
    gap: bool,
    /// The last byte in the file is no newline.
    is_cut: bool,
    retry_due: Instant,
    written: u64,
    lost: u64,
}

/// The file before the current one.
pub(super) fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

impl RotatingFile {
    /// Begins a log. One of that name is of an earlier life of the run, which was forgotten: it makes way. A full disk is no
    /// error: it is said when something is written.
    pub(super) fn create(path: PathBuf, bytes_max: u64) -> io::Result<RotatingFile> {
        for old in [path.clone(), previous(&path)] {
            match fs::remove_file(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let mut file = RotatingFile {
            path,
            size_max: bytes_max / 2,
            file: None,
            size: 0,
            pending: Vec::new(),
            starts_line: true,
            gap: false,
            is_cut: false,
            retry_due: Instant::from_nanos(0),
            written: 0,
            lost: 0,
        };
        match file.open() {
            Err(error) if !is_full(&error) => Err(error),
            _ => Ok(file),
        }
    }

    /// Takes a piece. Only where a line begins there may be a change of files.
    pub(super) fn push(&mut self, piece: &[u8], starts_line: bool) -> io::Result<()> {
        let mut outcome = Ok(());
        if starts_line && self.size + (self.pending.len() + LINE_MAX) as u64 > self.size_max {
            outcome = self.flush();
            outcome = self.rotate().and(outcome);
        }
        if self.pending.is_empty() {
            self.starts_line = starts_line;
        }
        self.pending.extend_from_slice(piece);
        outcome
    }

    /// Writes what is pending. An error is said once for each try; between two tries all is dropped.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let batch = std::mem::take(&mut self.pending);
        let outcome = self.write(&batch);
        self.pending = batch;
        self.pending.clear();
        outcome
    }

    /// How many bytes the disk has taken.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// How many bytes the disk did not take.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        let mut rest = batch;
        if self.gap {
            if !self.starts_line {
                // The end of a line whose beginning was dropped.
                let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
                self.lost += end as u64;
                rest = &rest[end..];
            }
            if rest.is_empty() {
                return Ok(());
            }
            if Instant::now() < self.retry_due {
                self.lost += rest.len() as u64;
                return Ok(());
            }
        }
        let outcome = self.try_write(&mut rest);
        self.gap = outcome.is_err();
        self.lost += rest.len() as u64;
        if outcome.is_err() {
            self.retry_due = Instant::now() + RETRY_INTERVAL;
        }
        outcome
    }

    /// Takes from `rest` what was written.
    fn try_write(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        self.open()?;
        if self.size + rest.len() as u64 > self.size_max {
            return Err(io::Error::other("it has reached its bound, and cannot be renamed"));
        }
        let file = self.file.as_mut().expect("it was opened just above");
        let ends_line = self.gap && self.is_cut;
        if ends_line {
            file.write_all(b"\n")?;
            self.size += 1;
            self.is_cut = false;
        }
        while let Some(last) = rest.last() {
            let last = *last;
            match file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.size += written as u64;
                    self.written += written as u64;
                    self.is_cut = if written == rest.len() { last } else { rest[written - 1] } != b'\n';
                    *rest = &rest[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            if file.metadata()?.nlink() > 0 {
                return Ok(());
            }
            // Somebody has removed it: then there is a new one.
            self.is_cut = false;
        }
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let opened = || {
            make_folders(self.path.parent().expect("it is in a folder"))?;
            options.open(&self.path)
        };
        // A folder that is empty may be removed just now, as one that is not needed any more.
        let file = match opened() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => opened()?,
            opened => opened?,
        };
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.size == 0 {
            return Ok(());
        }
        match fs::rename(&self.path, previous(&self.path)) {
            // Somebody has removed it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                (self.file, self.size, self.is_cut) = (None, 0, false);
                Ok(())
            }
        }
    }
}

/// No room is left; any other error is for a person to mend before a run begins.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(path: &Path) -> (u64, u64) {
        let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        (size(path), size(&previous(path)))
    }

    #[test]
    fn the_two_files_never_outgrow_their_bound_and_hold_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/attempt-1.log");
        let bound = 4 * LINE_MAX as u64;
        let mut file = RotatingFile::create(path.clone(), bound).unwrap();
        for n in 0..20_000 {
            file.push(format!("line {n} ").as_bytes(), true).unwrap();
            file.push(b"and its end\n", false).unwrap();
            if n % 7 == 0 {
                file.flush().unwrap();
                let (current, before) = sizes(&path);
                assert!(current + before <= bound, "{current} + {before}");
            }
        }
        file.flush().unwrap();
        let kept = fs::read_to_string(previous(&path)).unwrap() + &fs::read_to_string(&path).unwrap();
        assert!(kept.len() as u64 > bound / 4, "{}", kept.len());
        let first = 20_000 - kept.lines().count();
        assert!(kept.lines().zip(first..).all(|(line, n)| line == format!("line {n} and its end")), "a hole");
        assert_eq!(file.lost(), 0);
    }

    #[test]
    fn what_the_disk_did_not_take_leaves_whole_lines_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attempt-1.log");
        let mut file = RotatingFile::create(path.clone(), 1 << 20).unwrap();
        file.push(b"one\ntw", true).unwrap();
        file.flush().unwrap();
        // As if the disk were full: what it is to be written to takes nothing.
        file.file = Some(File::open(&path).unwrap());
        file.push(b"o\nthree\nfo", false).unwrap();
        assert!(file.flush().is_err());
        file.push(b"ur\nfive\nsi", false).unwrap();
        assert!(file.flush().is_ok(), "it is said once a try");
        file.file = None;
        file.retry_due = Instant::from_nanos(0);
        file.push(b"x\nseven\n", false).unwrap();
        file.flush().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntw\nseven\n");
        assert_eq!(file.lost(), "o\nthree\nfour\nfive\nsix\n".len() as u64);
    }

    #[test]
    fn one_that_somebody_removes_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/attempt-1.log");
        let mut file = RotatingFile::create(path.clone(), 1 << 20).unwrap();
        file.push(b"one\n", true).unwrap();
        file.flush().unwrap();
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        file.push(b"two\n", true).unwrap();
        file.flush().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
    }

    #[test]
    fn an_earlier_life_of_the_run_makes_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attempt-1.log");
        fs::write(&path, "old").unwrap();
        fs::write(previous(&path), "older").unwrap();
        drop(RotatingFile::create(path.clone(), 1 << 20).unwrap());
        assert_eq!((fs::read(&path).unwrap().len(), previous(&path).exists()), (0, false));
    }
}
