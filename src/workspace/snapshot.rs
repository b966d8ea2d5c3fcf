//! All the work in a worktree as one commit under `refs/systole/RUN/ATTEMPT`: what is not committed (untracked files as well, ignored
//! ones not), what is staged, and what was committed there and would be forgotten with the worktree.
//!
//! Made with an index of its own: the user's index, branches and files are left as they are. It is its own parent's child:
//! the first parent is HEAD, others are what HEAD does not lead to. Submodules and repositories inside of the worktree go with it,
//! each as a commit of its own that is a parent as well.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::WorkspaceError;
use super::git::{self, Git, Refusal};
use super::path;
use super::patience::Patience;
use super::record::Record;
use super::tenancy::Place;

/// Of commits that nothing else leads to, more are parents without asking which of them lead to others.
const TIPS_SORTED_MAX: usize = 100;

/// How many repositories without a commit are looked for in a worktree.
const UNBORN_MAX: usize = 32;

/// What HEAD leads to, and what is under way.
const HEADS: [&str; 6] = [
    "HEAD^{commit}",
    "HEAD^{tree}",
    "MERGE_HEAD^{commit}",
    "CHERRY_PICK_HEAD^{commit}",
    "REVERT_HEAD^{commit}",
    "REBASE_HEAD^{commit}",
];

/// Where there is work, and what is said of it.
struct Source<'a> {
    git_dir: PathBuf,
    /// None if its files are gone; what was committed and staged is still there.
    work_tree: Option<PathBuf>,
    /// Where it began: at a commit that others have. None for a repository inside of a worktree, of which nobody else knows.
    base: Option<&'a str>,
    scratch: PathBuf,
    record: &'a Record,
    patience: &'a Patience,
}

/// Keeps what is in the worktree, which stands at `path` now. The commit, or `None` if there is nothing to keep.
pub(super) fn take(record: &Record, path: &Path, place: &Place) -> Result<Option<String>, WorkspaceError> {
    source(record, path, place)?.keep()
}

/// The tree of what is in the worktree now.
pub(super) fn tree(record: &Record, place: &Place) -> Result<String, WorkspaceError> {
    let source = source(record, &record.path, place)?;
    let index = Index::copy(&source.git_dir, &source.scratch)?;
    Ok(source.add_all(&index)?.0)
}

fn source<'a>(record: &'a Record, path: &Path, place: &'a Place) -> Result<Source<'a>, WorkspaceError> {
    let git_dir =
        record.git_dir.clone().ok_or_else(|| WorkspaceError::Stays("its worktree was never made".to_owned()))?;
    if !git_dir.is_dir() {
        return Err(WorkspaceError::Stays(format!(
            "git has forgotten it ({} is gone, by git worktree prune?), so nothing of it can be kept: look at {} and remove it by hand",
            git_dir.display(),
            path.display()
        )));
    }
    let work_tree = path.is_dir().then(|| path.to_owned());
    Ok(Source {
        git_dir,
        work_tree,
        base: Some(&record.base),
        scratch: record.scratch(&place.state),
        record,
        patience: &place.patience,
    })
}

impl Source<'_> {
    fn keep(&self) -> Result<Option<String>, WorkspaceError> {
        let git = self.git();
        let found = git.objects(&HEADS)?;
        let (head, head_tree) = (found[0].clone(), found[1].clone());
        let index = Index::copy(&self.git_dir, &self.scratch)?;
        // Fails over a merge in progress: then what the files say is all there is.
        let staged = self.with(&index).line_if_any(&["write-tree"])?;
        let (tree, parts) = self.add_all(&index)?;
        let staged = staged.filter(|staged| *staged != tree && Some(staged) != head_tree.as_ref());
        let forgotten = self.forgotten(head.as_deref(), found.into_iter().skip(2).flatten())?;
        let is_at_base = self.base.is_none() || head.as_deref() == self.base;
        let is_empty = head.is_none() && tree == git.line(&["hash-object", "-t", "tree", "/dev/null"])?;
        if (head_tree.as_ref() == Some(&tree) || is_empty)
            && staged.is_none()
            && forgotten.is_empty()
            && parts.is_empty()
            && is_at_base
        {
            return Ok(None);
        }
        self.commit(head, &tree, staged, forgotten.into_iter().chain(parts))
    }

    /// The commit of all that, under its ref, behind what was there.
    fn commit(
        &self,
        head: Option<String>,
        tree: &str,
        staged: Option<String>,
        others: impl Iterator<Item = String>,
    ) -> Result<Option<String>, WorkspaceError> {
        let (git, record) = (self.git(), self.record);
        let name = path::snapshot_ref(&record.run_id, record.attempt);
        let mut message = format!(
            "systole: the work of run {}, attempt {}\n\nSystole-Run: {}\nSystole-Attempt: {}\nSystole-Instance: {}\nSystole-Base: {}\n",
            record.run_id, record.attempt, record.run_id, record.attempt, record.instance_id, record.base
        );
        if let Some(staged) = &staged {
            message.push_str(&format!("Systole-Staged: {staged}\n"));
        }
        let mut parents: Vec<String> = head.iter().cloned().chain(others).collect();
        let old = git.line_if_any(&["rev-parse", "--verify", "--quiet", &name])?;
        if let Some(old) = &old {
            let says = git.line(&["log", "-1", "--format=%T %P%n%B", old])?;
            let (first, body) = says.split_once('\n').unwrap_or((&says, ""));
            let mut known = first.split(' ');
            let is_same_tree = known.next() == Some(tree);
            let known: Vec<&str> = known.collect();
            // A part is the same commit as long as nothing has changed in it.
            if is_same_tree && body.trim() == message.trim() && parents.iter().all(|it| known.contains(&it.as_str())) {
                return Ok(Some(old.clone()));
            }
            parents.push(old.clone());
        }
        if let Some(staged) = &staged {
            let mut arguments = vec!["commit-tree", staged, "-m", "systole: what was staged"];
            arguments.extend(head.iter().flat_map(|head| ["-p", head]));
            parents.push(git.line(&arguments)?);
        }
        let mut arguments = vec!["commit-tree", tree, "-F", "-"];
        parents.dedup();
        arguments.extend(parents.iter().flat_map(|parent| ["-p", parent]));
        let made = git.ask(&arguments, message.as_bytes())??;
        let commit = String::from_utf8_lossy(&made).trim().to_owned();
        // Only if it is still what it was: nothing that somebody else has kept there is forgotten.
        git.run(&["update-ref", "-m", "systole", &name, &commit, old.as_deref().unwrap_or("")])?;
        Ok(Some(commit))
    }

    /// The tree of all files, by way of this index; and a commit for each repository inside that has work to be kept.
    fn add_all(&self, index: &Index) -> Result<(String, Vec<String>), WorkspaceError> {
        let git = self.with(index);
        let Some(work_tree) = &self.work_tree else { return Ok((git.line(&["write-tree"])?, Vec::new())) };
        self.look_at_every_file(&git, work_tree)?;
        let mut unborn: Vec<String> = Vec::new();
        loop {
            let excluded: Vec<String> = unborn.iter().map(|path| format!(":(top,exclude,literal){path}")).collect();
            let mut arguments =
                vec!["-c", "core.sparseCheckout=false", "-c", "diff.ignoreSubmodules=dirty", "add", "-A", "--", "."];
            arguments.extend(excluded.iter().map(String::as_str));
            match git.ask(&arguments, b"")? {
                Ok(_) => break,
                // A repository without any commit cannot be added. What is in it is kept all the same.
                Err(refusal) => match unborn_repository(&refusal).filter(|_| unborn.len() < UNBORN_MAX) {
                    Some(path) => unborn.push(path),
                    None => return Err(refusal.into()),
                },
            }
        }
        let listed = git.run(&["ls-files", "-s", "-z"])?;
        let inner = git::split(&listed).filter(|line| line.starts_with(b"160000 "));
        let inner = inner.filter_map(|line| Some(git::path(&line[line.iter().position(|byte| *byte == b'\t')? + 1..])));
        let inner: Vec<PathBuf> = inner.chain(unborn.iter().map(PathBuf::from)).collect();
        let mut parts = Vec::new();
        for (number, path) in inner.iter().enumerate() {
            if let Some(part) = self.keep_inner(&work_tree.join(path), number)? {
                let entry = format!("160000 {part}\t{}\0", path.display());
                git.ask(&["update-index", "-z", "--add", "--index-info"], entry.as_bytes())??;
                parts.push(part);
            }
        }
        Ok((git.line(&["write-tree"])?, parts))
    }

    /// Files that git was told not to look at may have been changed.
    fn look_at_every_file(&self, git: &Git, work_tree: &Path) -> Result<(), WorkspaceError> {
        let listed = git.run(&["ls-files", "-v", "-z"])?;
        let (mut assumed, mut skipped) = (Vec::new(), Vec::new());
        for line in git::split(&listed).filter(|line| line.len() > 2) {
            let (tag, path) = (line[0], &line[2..]);
            if tag.is_ascii_lowercase() {
                assumed.extend_from_slice(&[path, b"\0"].concat());
            }
            if tag.eq_ignore_ascii_case(&b'S') && work_tree.join(git::path(path)).symlink_metadata().is_ok() {
                skipped.extend_from_slice(&[path, b"\0"].concat());
            }
        }
        for (flag, paths) in [("--no-assume-unchanged", assumed), ("--no-skip-worktree", skipped)] {
            if !paths.is_empty() {
                git.ask(&["update-index", flag, "-z", "--stdin"], &paths)??;
            }
        }
        Ok(())
    }

    /// The work in a submodule, or in a repository that somebody has made inside: a commit that this repository has then as well.
    fn keep_inner(&self, path: &Path, number: usize) -> Result<Option<String>, WorkspaceError> {
        if path.join(".git").symlink_metadata().is_err() {
            return Ok(None);
        }
        let git_dir = PathBuf::from(Git::at(path, self.patience).line(&["rev-parse", "--absolute-git-dir"])?);
        let scratch = self.scratch.with_extension(format!("{number}-{}", std::process::id()));
        let inner = Source {
            git_dir,
            work_tree: Some(path.to_owned()),
            base: None,
            scratch,
            record: self.record,
            patience: self.patience,
        };
        let Some(commit) = inner.keep()? else { return Ok(None) };
        let name = path::snapshot_ref(&self.record.run_id, self.record.attempt);
        let from = inner.git_dir.display().to_string();
        self.git().run(&[
            "-c",
            "protocol.file.allow=always",
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-recurse-submodules",
            &from,
            &name,
        ])?;
        Ok(Some(commit))
    }

    /// Commits that were made here, and that nothing leads to which stays: by an amend, a reset, a merge in progress.
    fn forgotten(
        &self,
        head: Option<&str>,
        in_progress: impl Iterator<Item = String>,
    ) -> Result<Vec<String>, WorkspaceError> {
        let git = self.git();
        let mut candidates: BTreeSet<String> = in_progress.chain(head.map(str::to_owned)).collect();
        let mut logs = vec!["logs/HEAD"];
        let mut refs = vec!["for-each-ref", "--format=%(objectname)", "refs/worktree", "refs/bisect", "refs/rewritten"];
        let mut lasting = match self.base {
            Some(_) => vec!["--branches", "--tags", "--remotes", "--glob=refs/stash", "--glob=refs/systole"],
            // Inside of a worktree only what others have is sure to stay. What is kept here goes with it.
            None => vec!["--remotes"],
        };
        if self.base.is_none() {
            logs.push("logs/refs/stash");
            refs.extend(["refs/heads", "refs/stash"]);
        }
        for log in logs {
            let text = fs::read(self.git_dir.join(log)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            candidates.extend(text.lines().filter_map(|line| Some(line.split(' ').nth(1)?.to_owned())));
        }
        candidates.extend(git.line(&refs)?.lines().map(str::to_owned));
        if let (Some(_), Some(head)) = (self.base, head) {
            lasting.push(head);
            candidates.remove(head);
        }
        // Else it would go through all that was ever kept, for each worktree.
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let arguments = [&["rev-list", "--ignore-missing", "--stdin", "--not"][..], &lasting].concat();
        let asked: String = candidates.iter().map(|commit| format!("{commit}\n")).collect();
        let listed = String::from_utf8_lossy(&git.ask(&arguments, asked.as_bytes())??).into_owned();
        let mut found: Vec<&str> = listed.lines().filter(|commit| candidates.contains(*commit)).collect();
        found.dedup();
        if !(2..=TIPS_SORTED_MAX).contains(&found.len()) {
            return Ok(found.into_iter().map(str::to_owned).collect());
        }
        let tips = git.line(&[&["merge-base", "--independent"][..], &found].concat())?;
        Ok(tips.lines().map(str::to_owned).collect())
    }

    fn git(&self) -> Git {
        match &self.work_tree {
            Some(work_tree) => Git::of(&self.git_dir, work_tree, self.patience),
            None => Git::inside(&self.git_dir, self.patience),
        }
    }

    fn with(&self, index: &Index) -> Git {
        self.git().with("GIT_INDEX_FILE", &index.path)
    }
}

/// An index of our own, gone with this.
struct Index {
    path: PathBuf,
}

impl Index {
    /// A copy of the worktree's, so that what has not changed need not be read.
    fn copy(git_dir: &Path, scratch: &Path) -> Result<Index, WorkspaceError> {
        let (from, index) = (git_dir.join("index"), Index { path: scratch.to_owned() });
        let _ = fs::remove_file(scratch);
        let copied = fs::copy(&from, scratch).and_then(|_| {
            // A file that was changed in the moment in which the index was written looks unchanged to a younger index.
            fs::File::options().write(true).open(scratch)?.set_modified(fs::metadata(&from)?.modified()?)
        });
        match copied {
            // None was made yet: then every file is new.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(index),
            copied => copied.map(|()| index).map_err(WorkspaceError::io("cannot copy the index to", scratch)),
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(self.path.with_extension("lock"));
    }
}

/// The repository over which git has refused to add: it has no commit.
fn unborn_repository(refusal: &Refusal) -> Option<String> {
    let line = refusal.said.lines().find(|line| line.contains("does not have a commit checked out"))?;
    Some(line.split('\'').nth(1)?.trim_end_matches('/').to_owned())
}
