//! A log as its readers see it: one stream of bytes over the change of files, and its end.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::rotating::previous;
use super::tail::TAIL_MAX;

/// How much is read at once.
const CHUNK: u64 = 64 * 1024;

/// Reads a log from the oldest that there is, and goes on over every change of files.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    file: File,
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Bytes(Vec<u8>),
    /// The files were changed faster than they were read: some is missing here.
    Gap,
    /// Nothing new.
    Nothing,
}

impl Follower {
    /// An error if there is no such log.
    pub(crate) fn open(path: PathBuf) -> io::Result<Follower> {
        let file = match File::open(previous(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(&path)?,
            opened => opened?,
        };
        Ok(Follower { path, file })
    }

    /// What comes next.
    pub(crate) fn look(&mut self) -> io::Result<Found> {
        // Looked up before reading: behind a change, nothing more is written into ours.
        let next = self.next()?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut self.file).take(CHUNK).read_to_end(&mut bytes)?;
        if !bytes.is_empty() {
            return Ok(Found::Bytes(bytes));
        }
        match next {
            Some((file, gap)) => {
                self.file = file;
                if gap { Ok(Found::Gap) } else { self.look() }
            }
            None => Ok(Found::Nothing),
        }
    }

    /// The file behind ours, and whether there were others in between; `None` if ours is the newest.
    fn next(&self) -> io::Result<Option<(File, bool)>> {
        let ours = self.file.metadata()?.ino();
        // Just being changed: then it is there soon.
        let Some(newest) = opened(&self.path)? else { return Ok(None) };
        if newest.metadata()?.ino() == ours {
            return Ok(None);
        }
        match opened(&previous(&self.path))? {
            Some(before) if before.metadata()?.ino() != ours => Ok(Some((before, true))),
            Some(_) => Ok(Some((newest, false))),
            None => Ok(Some((newest, true))),
        }
    }
}

fn opened(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The newest of a log that nobody writes any more, and how much of it there is on the disk.
pub(crate) fn tail_of(path: &Path) -> io::Result<(Vec<u8>, u64)> {
    let mut newest = File::open(path)?;
    let size = fs::metadata(path)?.len();
    let mut tail = end_of(&mut newest, TAIL_MAX as u64)?;
    let mut total = size;
    if let Some(mut before) = opened(&previous(path))? {
        total += before.metadata()?.len();
        let mut both = end_of(&mut before, (TAIL_MAX - tail.len()) as u64)?;
        both.append(&mut tail);
        tail = both;
    }
    Ok((tail, total))
}

fn end_of(file: &mut File, most: u64) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::rotating::RotatingFile;
    use super::*;

    fn all(follower: &mut Follower) -> (String, usize) {
        let (mut text, mut gaps) = (Vec::new(), 0);
        loop {
            match follower.look().unwrap() {
                Found::Bytes(bytes) => text.extend(bytes),
                Found::Gap => gaps += 1,
                Found::Nothing => return (String::from_utf8(text).unwrap(), gaps),
            }
        }
    }

    #[test]
    fn a_follower_sees_every_line_over_changes_of_files_and_a_late_one_hears_of_the_gap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attempt-1.log");
        let mut file = RotatingFile::create(path.clone(), 160 * 1024).unwrap();
        let (mut quick, mut late) = (Follower::open(path.clone()).unwrap(), Follower::open(path.clone()).unwrap());
        let mut seen = String::new();
        for n in 0..50_000 {
            file.push(format!("{n}\n").as_bytes(), true).unwrap();
            if n % 1000 == 0 {
                file.flush().unwrap();
                let (text, gaps) = all(&mut quick);
                assert_eq!(gaps, 0);
                seen += &text;
            }
        }
        file.flush().unwrap();
        seen += &all(&mut quick).0;
        assert!(
            seen.lines().map(|line| line.parse::<u32>().unwrap()).eq(0..50_000),
            "a line is missing, or there twice"
        );
        let (text, gaps) = all(&mut late);
        assert!(gaps == 1 && text.ends_with("\n49999\n"), "{gaps}");
        let (tail, total) = tail_of(&path).unwrap();
        assert!(tail.len() == TAIL_MAX && seen.as_bytes().ends_with(&tail));
        assert!((total as usize) < seen.len() && total <= 160 * 1024);
    }
}
