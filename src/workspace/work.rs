//! The work that is kept in a repository: what stands in its commits, and what it has touched.

use std::collections::BTreeMap;
use std::path::PathBuf;

use uuid::Uuid;

use super::error::WorkspaceError;
use super::git::{self, Git};
use super::path;
use super::repository::Repository;

/// A snapshot of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Work {
    /// The ref that leads to it.
    pub(crate) name: String,
    /// The commit that its worktree began at.
    pub(crate) base: String,
    /// The instance that has left it.
    instance_id: Uuid,
}

/// All that is kept in a repository, by the instance that has left it.
pub(crate) fn works(repository: &Repository) -> Result<BTreeMap<Uuid, Work>, WorkspaceError> {
    let listed = listed(&repository.git(), path::SNAPSHOTS)?;
    Ok(listed.into_iter().map(|work| (work.instance_id, work)).collect())
}

impl Work {
    /// What stands under a ref; `None` if that is no snapshot of ours.
    pub(super) fn at(git: &Git, name: &str) -> Result<Option<Work>, WorkspaceError> {
        Ok(listed(git, name)?.into_iter().find(|work| work.name == name))
    }

    /// The files, from the root of the repository, that have changed since its base.
    pub(crate) fn touched(&self, repository: &Repository) -> Result<Vec<PathBuf>, WorkspaceError> {
        // Without renames: what a file was called before is touched as well.
        let arguments = ["diff", "--name-only", "--no-renames", "-z", &self.base, &self.name];
        let changed = repository.git().run(&arguments)?;
        Ok(git::split(&changed).map(git::path).collect())
    }
}

fn listed(git: &Git, pattern: &str) -> Result<Vec<Work>, WorkspaceError> {
    let listed = git.run(&["for-each-ref", "--format=%(refname)%0a%(contents:body)%00", pattern])?;
    let read = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        let (name, body) = text.trim_start().split_once('\n')?;
        let said = |what: &str| body.lines().find_map(|line| line.strip_prefix(what));
        Some(Work {
            name: name.to_owned(),
            base: said("Systole-Base: ")?.to_owned(),
            instance_id: said("Systole-Instance: ")?.parse().ok()?,
        })
    };
    Ok(git::split(&listed).filter_map(read).collect())
}
