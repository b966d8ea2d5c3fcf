//! A git repository for a test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A repository with one commit, gone with this.
pub(crate) struct Repository {
    folder: tempfile::TempDir,
    text: String,
}

impl Repository {
    pub(crate) fn new() -> Repository {
        let repository = Repository::unborn();
        repository.write("a.txt", "one\n");
        repository.write(".gitignore", "*.ignored\n");
        repository.commit("first");
        repository
    }

    pub(crate) fn unborn() -> Repository {
        let folder = tempfile::Builder::new().prefix("repository").tempdir().unwrap();
        let text = folder.path().to_str().unwrap().to_owned();
        let repository = Repository { folder, text };
        repository.git(&["init", "-q"]);
        // A git of 2020 knows no other way.
        repository.git(&["symbolic-ref", "HEAD", "refs/heads/main"]);
        repository
    }

    /// The same on another machine.
    pub(crate) fn cloned(&self) -> Repository {
        let clone = Repository::unborn();
        clone.git(&["pull", "-q", self.text(), "main"]);
        clone
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    pub(crate) fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    #[track_caller]
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        git(self.path(), arguments)
    }

    /// A file in a commit; `None` if it is not there.
    pub(crate) fn file(&self, commit: &str, name: &str) -> Option<String> {
        let output = command(self.path(), &["show", &format!("{commit}:{name}")]).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// All that any ref leads to, as text: whether something is still there can be searched for.
    pub(crate) fn everything(&self) -> String {
        let objects = self.git(&["rev-list", "--all", "--objects"]);
        let names: String = objects.lines().map(|line| format!("{}\n", line.split(' ').next().unwrap())).collect();
        let list = self.path().join(".git/everything");
        std::fs::write(&list, names).unwrap();
        let output = command(self.path(), &["cat-file", "--batch"]).stdin(std::fs::File::open(list).unwrap()).output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    }
}

#[track_caller]
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = command(folder, arguments).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    let who = [("NAME", "Tester"), ("EMAIL", "tester@localhost")];
    for (what, value) in who {
        command.env(format!("GIT_AUTHOR_{what}"), value).env(format!("GIT_COMMITTER_{what}"), value);
    }
    command.current_dir(folder).env("HOME", PathBuf::from("/nonexistent")).env("GIT_CONFIG_NOSYSTEM", "1");
    command.args(["-c", "protocol.file.allow=always"]).args(arguments);
    command
}
