//! The flags that every command takes: the configuration's keys.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use crate::identity::By;
use crate::workspace::{BASE_VARIABLE, BRANCH_VARIABLE, REPO_VARIABLE};

/// All of these can also be set as SYSTOLE_… in the environment, or in systole.toml.
#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration (also SYSTOLE_… in the environment, or systole.toml)")]
pub(super) struct Settings {
    /// PostgreSQL connection string [env: SYSTOLE_DATABASE_URL, DATABASE_URL]
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// The same database without a pooler in between, for LISTEN and migrations [env: SYSTOLE_DIRECT_URL]
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    direct_url: Option<String>,
    /// The schema of systole's tables, where it is not systole
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    schema: Option<String>,
    /// Use a private PostgreSQL of this user on this machine, started on demand
    #[arg(long, global = true)]
    embedded: bool,
    /// The configuration file, instead of ./systole.toml and the user's
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Folder for local locks and certificates, on a local disk
    #[arg(long, global = true, value_name = "DIR", hide_short_help = true)]
    state_dir: Option<String>,
    /// auto, pid_namespace, cgroup or subreaper: the strongest containment to use
    #[arg(long, global = true, value_name = "LEVEL", hide_short_help = true)]
    containment: Option<String>,
    /// Time between two heartbeats
    #[arg(long, global = true, value_name = "DURATION", hide_short_help = true)]
    heartbeat_interval: Option<String>,
    /// Bound of one try at the database
    #[arg(long, global = true, value_name = "DURATION", hide_short_help = true)]
    attempt_timeout: Option<String>,
    /// The command is frozen this long after the last acknowledged heartbeat was sent
    #[arg(long, global = true, value_name = "DURATION", hide_short_help = true)]
    fence_after: Option<String>,
    /// How long freezing or killing may take
    #[arg(long, global = true, value_name = "DURATION", hide_short_help = true)]
    kill_grace: Option<String>,
    /// Others may take over this long after the last heartbeat
    #[arg(long, global = true, value_name = "DURATION", hide_short_help = true)]
    stale_after: Option<String>,
    /// How long a command may stay frozen while the database is away
    #[arg(long, global = true, value_name = "DURATION", hide_short_help = true)]
    freeze_max: Option<String>,
    /// Time between TERM and KILL when a run is stopped
    #[arg(long, global = true, value_name = "DURATION", hide_short_help = true)]
    stop_grace: Option<String>,
    /// Of what a node, an exporter or run say of themselves: auto (text, and for the first two json without a terminal), text, json
    #[arg(long, global = true, value_name = "FORMAT", hide_short_help = true)]
    log_format: Option<String>,
}

/// A worktree for each attempt.
#[derive(Debug, Args)]
pub(super) struct WorktreeFlags {
    /// Work in a fresh git worktree of this repository [env: SYSTOLE_WORKSPACE_REPO]
    #[arg(long, visible_alias = "repo", value_name = "PATH")]
    workspace_repo: Option<String>,
    /// The commit that it begins at, where that is not the repository's HEAD [env: SYSTOLE_WORKSPACE_BASE]
    #[arg(long, value_name = "REF")]
    workspace_base: Option<String>,
    /// On a branch of its own, systole/RUN-ATTEMPT, and not with a detached head
    #[arg(long)]
    workspace_branch: bool,
}

impl WorktreeFlags {
    /// The values that were given, by key.
    pub(super) fn given(&self) -> BTreeMap<&'static str, String> {
        let keys = ["workspace.repo", "workspace.base", "workspace.branch"];
        keys.into_iter().zip(self.values()).filter_map(|(key, value)| Some((key, value?))).collect()
    }

    /// The same in the environment of a run, for the node that starts it.
    pub(super) fn environment(&self) -> impl Iterator<Item = (String, String)> {
        let names = [REPO_VARIABLE, BASE_VARIABLE, BRANCH_VARIABLE];
        names.into_iter().zip(self.values()).filter_map(|(name, value)| Some((name.to_owned(), value?)))
    }

    fn values(&self) -> [Option<String>; 3] {
        let branch = self.workspace_branch.then(|| "true".to_owned());
        [self.workspace_repo.clone(), self.workspace_base.clone(), branch]
    }
}

/// Why somebody asks for something: it stands in the history.
#[derive(Debug, Args)]
pub(super) struct Why {
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Why {
    /// With who asks.
    pub(super) fn by(&self) -> By {
        By::this_user(self.reason.clone())
    }
}

impl Settings {
    /// The values that were given, by key.
    pub(super) fn given(&self) -> BTreeMap<&'static str, String> {
        [
            ("database_url", &self.database_url),
            ("direct_url", &self.direct_url),
            ("schema", &self.schema),
            ("embedded", &self.embedded.then(|| "true".to_owned())),
            ("state_dir", &self.state_dir),
            ("containment", &self.containment),
            ("heartbeat_interval", &self.heartbeat_interval),
            ("attempt_timeout", &self.attempt_timeout),
            ("fence_after", &self.fence_after),
            ("kill_grace", &self.kill_grace),
            ("stale_after", &self.stale_after),
            ("freeze_max", &self.freeze_max),
            ("stop_grace", &self.stop_grace),
            ("log_format", &self.log_format),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.clone()?)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    /// A key without a flag, or a flag without a key, would be a second way.
    #[test]
    fn every_key_is_a_flag() {
        let command = super::super::Arguments::command();
        for key in crate::config::KEYS {
            let node = command.find_subcommand("node").unwrap();
            let mut all = command.get_arguments().chain(node.get_arguments());
            assert!(all.any(|argument| argument.get_long() == Some(key.flag)), "{}", key.name);
        }
    }
}
