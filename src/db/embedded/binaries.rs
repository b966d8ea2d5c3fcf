//! Where the server's programs are: as told, on PATH, or where distributions put them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::account::{Account, run};
use super::error::EmbeddedError;

const PROGRAMS: [&str; 3] = ["postgres", "initdb", "pg_ctl"];

/// Where versions stand side by side: a folder, what an entry's name has before its version, what follows below it.
const VERSIONED: [(&str, &str, &str); 5] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

const PLAIN: [&str; 2] = ["/usr/lib64/pgsql", "/usr/local/pgsql/bin"];

/// A folder with the programs of one server version.
#[derive(Debug)]
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
    /// As it stands in a data folder's PG_VERSION, such as `15`.
    pub(super) major: String,
}

impl Binaries {
    /// Finds them and asks them for their version, as the account that will run them.
    pub(super) fn find(account: &Account) -> Result<Binaries, EmbeddedError> {
        let asked = std::env::var_os("SYSTOLE_POSTGRES_BIN").filter(|dir| !dir.is_empty());
        let dir = locate(asked.as_deref(), std::env::var_os("PATH").as_deref())?;
        let root = Path::new("/");
        let mut command = account.command(&dir.join("postgres"), root);
        command.arg("--version");
        let cannot_run = |output: &str| {
            EmbeddedError::unusable(
                &dir,
                format!(
                    "the server in it cannot be run by uid {}, and says: {output}\nSet SYSTOLE_POSTGRES_BIN to the bin \
                     folder of a PostgreSQL that this user can reach and run",
                    account.uid
                ),
            )
        };
        let printed = run("postgres --version", root, command, "").map_err(|error| match error {
            EmbeddedError::Program { output, .. } => cannot_run(&output),
            other => other,
        })?;
        let major = major_of(&printed).ok_or_else(|| cannot_run(&printed))?;
        Ok(Binaries { dir, major })
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn locate(asked: Option<&OsStr>, path: Option<&OsStr>) -> Result<PathBuf, EmbeddedError> {
    if let Some(dir) = asked.map(PathBuf::from) {
        return match missing_from(&dir) {
            // A relative folder would be looked for from wherever a child is started.
            None => std::path::absolute(&dir).map_err(EmbeddedError::io("find", &dir)),
            Some(missing) => Err(EmbeddedError::unusable(
                &dir,
                format!(
                    "is what SYSTOLE_POSTGRES_BIN says, but there is no executable {missing} in it. Set it to the folder \
                     that holds postgres, initdb and pg_ctl, or unset it"
                ),
            )),
        };
    }
    let on_path = path.into_iter().flat_map(std::env::split_paths).filter(|dir| dir.is_absolute());
    let versioned = VERSIONED.iter().flat_map(|(parent, prefix, below)| newest_first(Path::new(parent), prefix, below));
    on_path
        .chain(versioned)
        .chain(PLAIN.map(PathBuf::from))
        .find(|dir| missing_from(dir).is_none())
        .ok_or(EmbeddedError::NotInstalled)
}

fn missing_from(dir: &Path) -> Option<&'static str> {
    PROGRAMS.into_iter().find(|program| {
        !fs::metadata(dir.join(program)).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

fn newest_first(parent: &Path, prefix: &str, below: &str) -> Vec<PathBuf> {
    let mut found: Vec<(Vec<u32>, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            // By number, since "9.6" is older than "17".
            let version = name.to_str()?.strip_prefix(prefix)?.split('.').map(|part| part.parse().ok());
            Some((version.collect::<Option<_>>()?, parent.join(&name).join(below)))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, dir)| dir).collect()
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is `15`, `postgres (PostgreSQL) 19devel` is `19`. What is
/// older than PostgreSQL 10, which we do not support, becomes `9` and so matches no data folder's `9.6`.
fn major_of(printed: &str) -> Option<String> {
    let (_, version) = printed.split_once("(PostgreSQL) ")?;
    let major: String = version.chars().take_while(char::is_ascii_digit).collect();
    (!major.is_empty()).then_some(major)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(dir: &Path, programs: &[&str]) {
        fs::create_dir_all(dir).unwrap();
        for program in programs {
            fs::write(dir.join(program), "").unwrap();
            fs::set_permissions(dir.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn what_was_asked_for_is_taken_or_named_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        install(dir.path(), &["postgres", "initdb"]);
        let error = locate(Some(dir.path().as_os_str()), None).unwrap_err().to_string();
        assert!(error.contains(dir.path().to_str().unwrap()) && error.contains("pg_ctl"), "{error}");
        install(dir.path(), &["pg_ctl"]);
        assert_eq!(locate(Some(dir.path().as_os_str()), None).unwrap(), dir.path());
    }

    #[test]
    fn a_folder_on_path_counts_only_if_it_holds_all_programs() {
        let dir = tempfile::tempdir().unwrap();
        let (client, server) = (dir.path().join("client"), dir.path().join("server"));
        install(&client, &["postgres", "pg_ctl"]);
        install(&server, &PROGRAMS);
        let path = std::env::join_paths([&client, &server]).unwrap();
        assert_eq!(locate(None, Some(&path)).unwrap(), server);
    }

    #[test]
    fn the_newest_version_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["pgsql-9.6", "pgsql-17", "pgsql-10", "pgsql-latest", "share"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let found = newest_first(dir.path(), "pgsql-", "bin");
        assert_eq!(found, ["pgsql-17", "pgsql-10", "pgsql-9.6"].map(|name| dir.path().join(name).join("bin")));
    }

    #[test]
    fn versions_are_read_as_they_stand_in_the_data_folder() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n").as_deref(), Some("15"));
        assert_eq!(major_of("postgres (PostgreSQL) 19devel").as_deref(), Some("19"));
        assert_eq!(major_of("command not found"), None);
    }
}
