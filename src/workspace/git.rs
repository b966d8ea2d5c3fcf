//! The git program, told where it is and nothing else: no variable of somebody else's git, no hook, no gc, no prompt.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::error::WorkspaceError;
use super::patience::{Impatience, Patience};

/// Of git's variables only those that say how to reach others, and which configuration there is.
const LEFT_ALONE: &[&str] = &[
    "GIT_SSH",
    "GIT_SSL",
    "GIT_HTTP",
    "GIT_ASKPASS",
    "GIT_ALLOW_PROTOCOL",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_EXEC_PATH",
];

/// Hooks are for people at work; ours would run them with nobody to see them fail.
const ALWAYS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "core.safecrlf=false",
    "advice.addEmbeddedRepo=false",
];

/// git in one folder.
#[derive(Debug, Clone)]
pub(super) struct Git {
    folder: PathBuf,
    patience: Patience,
    variables: Vec<(&'static str, OsString)>,
}

/// What a git that failed has said.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) said: String,
    doing: String,
    folder: PathBuf,
}

impl From<Refusal> for WorkspaceError {
    fn from(refusal: Refusal) -> WorkspaceError {
        WorkspaceError::git(&refusal.doing, &refusal.folder, &refusal.said)
    }
}

impl Git {
    pub(super) fn at(folder: &Path, patience: &Patience) -> Git {
        Git { folder: folder.to_owned(), patience: patience.clone(), variables: Vec::new() }
    }

    /// With this as its repository, whatever the folder says.
    pub(super) fn of(git_dir: &Path, work_tree: &Path, patience: &Patience) -> Git {
        Git::at(work_tree, patience).with("GIT_DIR", git_dir).with("GIT_WORK_TREE", work_tree)
    }

    /// In the repository itself, which has this folder.
    pub(super) fn inside(git_dir: &Path, patience: &Patience) -> Git {
        Git::at(git_dir, patience).with("GIT_DIR", git_dir)
    }

    pub(super) fn with(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Git {
        self.variables.push((name, value.as_ref().to_owned()));
        self
    }

    /// What it prints.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<Vec<u8>, WorkspaceError> {
        Ok(self.ask(arguments, b"")??)
    }

    /// The same, as one line.
    pub(super) fn line(&self, arguments: &[&str]) -> Result<String, WorkspaceError> {
        Ok(String::from_utf8_lossy(&self.run(arguments)?).trim_end_matches('\n').to_owned())
    }

    /// A line, where failing is an answer as well.
    pub(super) fn line_if_any(&self, arguments: &[&str]) -> Result<Option<String>, WorkspaceError> {
        let answer = self.ask(arguments, b"")?.ok();
        Ok(answer.map(|answer| String::from_utf8_lossy(&answer).trim_end().to_owned()).filter(|line| !line.is_empty()))
    }

    /// The objects that these names lead to; `None` for one that leads to nothing.
    pub(super) fn objects(&self, names: &[&str]) -> Result<Vec<Option<String>>, WorkspaceError> {
        let asked: String = names.iter().map(|name| format!("{name}\n")).collect();
        let answer = self.ask(&["cat-file", "--batch-check=%(objectname)"], asked.as_bytes())??;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        // "NAME missing"
        Ok(answer.lines().map(|line| (!line.contains(' ')).then(|| line.to_owned())).collect())
    }

    /// What it prints, or what it has said instead.
    pub(super) fn ask(&self, arguments: &[&str], input: &[u8]) -> Result<Result<Vec<u8>, Refusal>, WorkspaceError> {
        // Settings have a `=` in them.
        let doing = arguments.iter().find(|argument| !argument.starts_with('-') && !argument.contains('='));
        let doing = doing.copied().unwrap_or_default().to_owned();
        let done = || -> io::Result<_> {
            // Files and not pipes: the end of a pipe comes with the end of the last one who has it, and ssh may leave one behind.
            let (mut answer, mut said) = (nameless()?, nameless()?);
            let mut command = self.command(arguments)?;
            command.stdin(filled(input)?).stdout(answer.try_clone()?).stderr(said.try_clone()?);
            let ended = self.patience.run(command)?;
            Ok((ended, text(&mut answer)?, String::from_utf8_lossy(&text(&mut said)?).into_owned()))
        };
        match done().map_err(WorkspaceError::NoGit)? {
            (Ok(status), answer, _) if status.success() => Ok(Ok(answer)),
            (Ok(status), _, said) => {
                let said = if said.trim().is_empty() { status.to_string() } else { said };
                Ok(Err(Refusal { said, doing, folder: self.folder.clone() }))
            }
            (Err(Impatience::Unwanted), ..) => Err(WorkspaceError::Unwanted { doing }),
            (Err(Impatience::TooLong(limit)), ..) => {
                Err(WorkspaceError::Hangs { doing, path: self.folder.clone(), limit })
            }
        }
    }

    fn command(&self, arguments: &[&str]) -> std::io::Result<Command> {
        let mut command = Command::new("git");
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("GIT_") && !LEFT_ALONE.iter().any(|left| text.starts_with(left)) {
                command.env_remove(&name);
            }
        }
        command.envs([("GIT_TERMINAL_PROMPT", "0"), ("GIT_OPTIONAL_LOCKS", "0"), ("LC_ALL", "C")]);
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "systole").env(format!("GIT_{who}_EMAIL"), "systole@localhost");
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.args(ALWAYS.iter().flat_map(|setting| ["-c", setting])).args(arguments);
        command.current_dir(&self.folder);
        Ok(command)
    }
}

/// A file that nobody else can find, gone when the last one has let go of it.
#[cfg(target_os = "linux")]
fn nameless() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("git", rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

#[cfg(not(target_os = "linux"))]
fn nameless() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("systole-{}", uuid::Uuid::now_v7()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

fn filled(input: &[u8]) -> io::Result<File> {
    let mut file = nameless()?;
    file.write_all(input)?;
    file.rewind()?;
    Ok(file)
}

/// All that was written to it.
fn text(file: &mut File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(text)
}

/// Refuses a git that knows too little, once for each process.
pub(super) fn check_version(patience: &Patience) -> Result<(), WorkspaceError> {
    static FOUND: OnceLock<String> = OnceLock::new();
    let found = match FOUND.get() {
        Some(found) => found,
        None => {
            let found = Git::at(Path::new("/"), patience).line(&["version"])?;
            FOUND.get_or_init(|| found)
        }
    };
    match version_of(found) {
        Some(version) if version >= (2, 25) => Ok(()),
        _ => Err(WorkspaceError::OldGit { found: found.clone() }),
    }
}

fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("git version ")?.split(['.', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The parts of what git prints with `-z`.
pub(super) fn split(output: &[u8]) -> impl Iterator<Item = &[u8]> {
    output.split(|byte| *byte == 0).filter(|part| !part.is_empty())
}

/// A path as git has said it.
pub(super) fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_from_each_other() {
        for (text, version) in [
            ("git version 2.25.1", Some((2, 25))),
            ("git version 2.39.5 (Apple Git-154)", Some((2, 39))),
            ("git version 2.9", Some((2, 9))),
            ("got version 2.30.0", None),
        ] {
            assert_eq!(version_of(text), version, "{text}");
        }
        assert!((2, 9) < (2, 25) && (2, 25) < (3, 0));
    }
}
