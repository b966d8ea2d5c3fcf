//! Where attempts work.

use std::path::PathBuf;

use super::{Config, ConfigError, parse_bytes};
use crate::state_dir::StateDir;
use crate::workspace::{Defaults, Patience, Place, Policy};

impl Config {
    /// The worktrees that are asked for.
    pub(crate) fn workspace(&self) -> Result<Defaults, ConfigError> {
        Ok(Defaults {
            repository: self.text("workspace.repo").map(PathBuf::from),
            base: self.text("workspace.base").map(str::to_owned),
            branch: self.truth("workspace.branch")?,
            submodules: self.truth("workspace.submodules")?,
        })
    }

    /// Which worktrees a node removes; none unless somebody says it.
    pub(crate) fn workspace_policy(&self) -> Result<Policy, ConfigError> {
        let older_than = self.text("workspace.keep_for").map(|_| self.duration("workspace.keep_for")).transpose()?;
        let keep = self
            .text("workspace.keep")
            .map(|text| text.parse().map_err(|_| self.refuse("workspace.keep", "a number of worktrees, such as 20")));
        let free = self.text("workspace.free_disk_min").map(|text| {
            parse_bytes(text).ok_or_else(|| self.refuse("workspace.free_disk_min", "a size such as 20GiB"))
        });
        Ok(Policy { older_than, keep: keep.transpose()?, free_bytes_min: free.transpose()? })
    }

    /// Where worktrees are made, and what is known of them.
    pub(crate) fn place(&self, state: StateDir) -> Result<Place, ConfigError> {
        let worktrees = self.text("workspace.dir").map_or_else(|| state.worktrees(), PathBuf::from);
        Ok(Place { state, worktrees, patience: Patience::of(self.duration("workspace.git_timeout")?) })
    }
}
