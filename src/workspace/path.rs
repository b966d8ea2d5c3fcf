//! Names, pure: what a run and its attempt are called where a run id may not stand as it is.

use sha2::{Digest, Sha256};

use crate::ids::{InstanceId, RunId};

/// The longest run id that is a name as it is: with an attempt and an instance behind it, it stays far below 255.
const NAME_LENGTH_MAX: usize = 64;

/// How much of another run id stands before its hash, for people.
const SHOWN_LENGTH: usize = 40;

/// What a run is called in folders and refs: its id, where that is a safe name on every file system and for git; else its
/// beginning and a hash. The `+` between them is in no run id, so that no two runs have one name.
pub(crate) fn name_of(run_id: &RunId) -> String {
    let id = run_id.as_str();
    // Upper case as well: some file systems take Nightly for nightly.
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let is_safe = id.len() <= NAME_LENGTH_MAX
        && id.chars().all(is_plain)
        && !id.contains("..")
        && !id.ends_with('.')
        && !id.ends_with(".lock");
    if is_safe {
        return id.to_owned();
    }
    let shown = id.chars().take(SHOWN_LENGTH).map(|c| c.to_ascii_lowercase());
    let shown: String = shown.map(|c| if is_plain(c) { c } else { '_' }).collect();
    let shown = shown.replace("..", "__");
    let digest = Sha256::digest(id);
    let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{shown}+{hash}")
}

/// Where all work is kept.
pub(super) const SNAPSHOTS: &str = "refs/systole";

/// Where the work of an attempt is kept.
pub(crate) fn snapshot_ref(run_id: &RunId, attempt: i32) -> String {
    format!("{}/{attempt}", snapshots_of(run_id))
}

/// Where the work of all attempts at a run is kept.
pub(crate) fn snapshots_of(run_id: &RunId) -> String {
    format!("{SNAPSHOTS}/{}", name_of(run_id))
}

/// The branch of an attempt, without `refs/heads/`. Not the same path as its snapshot's: git would take one for the other.
pub(super) fn branch_of(run_id: &RunId, attempt: i32) -> String {
    format!("systole/{}-{attempt}", name_of(run_id))
}

/// What an attempt's worktree is called. Attempts of two databases may bear one number; no two instances have one id.
pub(super) fn worktree_name(run_id: &RunId, attempt: i32, instance_id: InstanceId) -> String {
    format!("{}-{attempt}-{}", name_of(run_id), tail_of(instance_id))
}

/// The end of a v7 uuid is random.
pub(super) fn tail_of(instance_id: InstanceId) -> String {
    instance_id.0.simple().to_string()[20..].to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_safe_keeps_its_name() {
        for (id, name) in [("nightly", "nightly"), ("build-42.a_b", "build-42.a_b")] {
            assert_eq!(name_of(&id.parse().unwrap()), name);
        }
    }

    #[test]
    fn what_git_or_a_file_system_refuses_is_hashed() {
        let ids = ["Nightly", "nightly", "a:b", "a@b", "a..b", "a.", "a.lock", "a_b", &"x".repeat(65), &"x".repeat(64)];
        let names: BTreeSet<String> = ids.iter().map(|id| name_of(&id.parse().unwrap())).collect();
        assert_eq!(names.len(), ids.len(), "{names:?}");
        assert_eq!(names.iter().filter(|name| name.contains('+')).count(), 7, "{names:?}");
    }

    proptest! {
        #[test]
        fn every_name_is_a_component_of_a_ref_and_of_a_path(id in "[A-Za-z0-9][A-Za-z0-9._:@-]{0,199}") {
            let name = name_of(&id.parse().unwrap());
            prop_assert!(name.len() <= NAME_LENGTH_MAX && !name.starts_with(['.', '-']));
            prop_assert!(!name.contains("..") && !name.ends_with('.') && !name.ends_with(".lock"));
            prop_assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-+".contains(c)));
        }
    }
}
