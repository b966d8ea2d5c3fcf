//! The clock of the drill's servers, which may be set: libfaketime, and a file that says by how much.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where distributions put it.
const FOLDERS: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime",
    "/usr/lib/aarch64-linux-gnu/faketime",
    "/usr/lib64/faketime",
    "/usr/lib/faketime",
];
const LIBRARY: &str = "libfaketime.so.1";

/// By how much a clock is set: by less and by more than stale_after, and both ways.
pub(super) const STEPS: [f64; 4] = [2.0, -2.0, 20.0, -20.0];

/// How far an event may lie beyond the moments between which it must have been.
const SLACK: f64 = 1.0;

/// Sets the clock of whoever was started with its environment.
#[derive(Debug)]
pub(super) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// `None` where there is no libfaketime.
    pub(super) fn find(folder: &Path) -> Option<Clock> {
        let library = FOLDERS.iter().map(|folder| Path::new(folder).join(LIBRARY)).find(|library| library.exists())?;
        let clock = Clock { library, file: folder.join("clock") };
        clock.set(0.0).is_ok().then_some(clock)
    }

    /// What a server has to be started with. It reads the file each time that it looks at the clock.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let variables = [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// At once, for all of them.
    pub(super) fn set(&self, seconds: f64) -> io::Result<()> {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+.1}\n"))?;
        fs::rename(new, &self.file)
    }
}

/// Since when a clock was off, and by how much.
#[derive(Debug, Clone, Copy)]
struct Period {
    since: f64,
    /// The newest event before.
    event_id: i64,
    off_by: f64,
}

/// What the clock did, by which moments that it has told are understood.
#[derive(Debug, Clone)]
pub(super) struct Chronicle(Vec<Period>);

impl Default for Chronicle {
    fn default() -> Chronicle {
        Chronicle(vec![Period { since: f64::MIN, event_id: i64::MIN, off_by: 0.0 }])
    }
}

impl Chronicle {
    /// From now on it is off by so many seconds.
    pub(super) fn note(&mut self, since: f64, event_id: i64, off_by: f64) {
        self.0.push(Period { since, event_id, off_by });
    }

    /// When an event really was. Its number says in which period; one that was written at the very moment of a step may have a
    /// number of one and a time of the other.
    pub(super) fn real(&self, event_id: i64, told: f64) -> f64 {
        let period = self.0.partition_point(|period| period.event_id < event_id).saturating_sub(1);
        let neighbours = [period, period.saturating_sub(1), period + 1];
        let fits = |number: &usize| {
            let Some(period) = self.0.get(*number) else { return false };
            let until = self.0.get(number + 1).map_or(f64::MAX, |next| next.since);
            let real = told - period.off_by;
            period.since - SLACK <= real && real <= until + SLACK
        };
        told - self.0[neighbours.into_iter().find(fits).unwrap_or(period)].off_by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_understood_by_what_the_clock_did() {
        assert_eq!(Chronicle::default().real(7, 100.0), 100.0);
        let mut chronicle = Chronicle::default();
        // From 100 to 104 it was ahead by 20, from 200 to 203 behind by 20.
        for (since, event_id, off_by) in [(100.0, 10, 20.0), (104.0, 20, 0.0), (200.0, 30, -20.0), (203.0, 40, 0.0)] {
            chronicle.note(since, event_id, off_by);
        }
        for (event_id, told, real) in [
            (10, 99.9, 99.9),
            (11, 120.1, 100.1),
            (20, 123.9, 103.9),
            (21, 104.1, 104.1),
            (31, 180.5, 200.5),
            (41, 203.5, 203.5),
        ] {
            assert_eq!(chronicle.real(event_id, told), real, "event {event_id}");
        }
        // The same time is told twice; the number tells them apart.
        assert_eq!((chronicle.real(15, 122.0), chronicle.real(25, 122.0)), (102.0, 122.0));
        // Written in the moment of a step: the number is of the one side, the time of the other.
        assert_eq!((chronicle.real(10, 120.0), chronicle.real(11, 100.0)), (100.0, 100.0));
    }
}
