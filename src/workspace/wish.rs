//! Where a command is to work, pure: what is configured, and what a run brings with it.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// How a run says it: in its environment, where its command finds it as well.
pub(crate) const REPO_VARIABLE: &str = "SYSTOLE_WORKSPACE_REPO";
pub(crate) const BASE_VARIABLE: &str = "SYSTOLE_WORKSPACE_BASE";
pub(crate) const BRANCH_VARIABLE: &str = "SYSTOLE_WORKSPACE_BRANCH";

/// Where a command is to work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// In this folder, which nobody else uses meanwhile.
    Folder(PathBuf),
    /// In a worktree of its own.
    Worktree(WorktreeWish),
}

/// Which worktree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorktreeWish {
    /// Any folder of the repository.
    pub(crate) repository: PathBuf,
    /// The commit that it begins at; the repository's HEAD if nothing is said.
    pub(crate) base: Option<String>,
    /// On a branch of its own, and not with a detached head.
    pub(crate) branch: bool,
    pub(crate) submodules: bool,
}

/// What is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Defaults {
    pub(crate) repository: Option<PathBuf>,
    pub(crate) base: Option<String>,
    pub(crate) branch: bool,
    pub(crate) submodules: bool,
}

impl Defaults {
    pub(crate) fn wish(&self) -> Option<Wish> {
        let Defaults { repository, base, branch, submodules } = self.clone();
        Some(Wish::Worktree(WorktreeWish { repository: repository?, base, branch, submodules }))
    }

    /// The same for a run with this environment. A row of a database is no key to every folder of this host: another repository
    /// than the configured one may be named only where anything may be started; a sentence if not.
    pub(crate) fn asked(
        &self,
        environment: &BTreeMap<String, String>,
        may_name_any: bool,
    ) -> Result<Option<Wish>, String> {
        let asked = |name| environment.get(name).filter(|value: &&String| !value.is_empty());
        let mut merged = self.clone();
        if let Some(repository) = asked(REPO_VARIABLE).map(PathBuf::from) {
            if !may_name_any && Some(&repository) != self.repository.as_ref() {
                return Err(format!(
                    "this node makes no worktrees of {}: configure it as repo in [workspace], or allow_submitted_commands",
                    repository.display()
                ));
            }
            merged.repository = Some(repository);
        }
        merged.base = asked(BASE_VARIABLE).cloned().or(merged.base);
        if let Some(branch) = asked(BRANCH_VARIABLE) {
            merged.branch = ["true", "1", "yes"].contains(&branch.as_str());
        }
        Ok(merged.wish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn a_run_names_a_repository_only_where_it_may() {
        let defaults = Defaults { repository: Some("/srv/app".into()), base: None, branch: false, submodules: true };
        let asked = |pairs: &[(&str, &str)], any| defaults.asked(&environment(pairs), any);
        let refused = asked(&[(REPO_VARIABLE, "/home/other")], false).unwrap_err();
        assert!(refused.contains("/home/other") && refused.contains("[workspace]"), "{refused}");
        assert!(asked(&[(REPO_VARIABLE, "/home/other")], true).unwrap().is_some());
        let wish = asked(&[(REPO_VARIABLE, "/srv/app"), (BASE_VARIABLE, "v1"), (BRANCH_VARIABLE, "true")], false);
        let expected =
            WorktreeWish { repository: "/srv/app".into(), base: Some("v1".to_owned()), branch: true, submodules: true };
        assert_eq!(wish, Ok(Some(Wish::Worktree(expected))));
        let nothing = Defaults { repository: None, ..defaults.clone() };
        assert_eq!(nothing.asked(&environment(&[]), false), Ok(None));
    }
}
