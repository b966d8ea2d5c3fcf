//! Versions of systole, as far as a database cares: which is older.

use std::fmt;
use std::str::FromStr;

/// `major.minor.patch`. What stands behind a dash (`1.2.0-rc.1`) does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version([u32; 3]);

impl Version {
    /// This binary's.
    pub(crate) const OURS: Version = Version([
        number(env!("CARGO_PKG_VERSION_MAJOR")),
        number(env!("CARGO_PKG_VERSION_MINOR")),
        number(env!("CARGO_PKG_VERSION_PATCH")),
    ]);
    /// Older than all.
    pub(crate) const NONE: Version = Version([0, 0, 0]);
}

const fn number(text: &str) -> u32 {
    match u32::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => panic!("cargo's versions are numbers"),
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Version, ()> {
        let numbers = text.split('-').next().unwrap_or_default();
        let numbers: Vec<u32> = numbers.split('.').map(|part| part.parse().map_err(drop)).collect::<Result<_, ()>>()?;
        numbers.try_into().map(Version).map_err(drop)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version([major, minor, patch]) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let read = |text: &str| text.parse::<Version>();
        assert!(read("0.10.0") > read("0.9.9"));
        assert_eq!(read("1.2.3-rc.1"), read("1.2.3"));
        assert!(read("1.2").is_err() && read("x").is_err());
        assert_eq!(Version::OURS.to_string(), env!("CARGO_PKG_VERSION").split('-').next().unwrap());
    }
}
