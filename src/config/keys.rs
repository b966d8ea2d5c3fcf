//! Every key there is: the one list behind flags, environment, file and `doctor`.

/// A key of the configuration.
#[derive(Debug)]
pub(crate) struct Key {
    /// In the file.
    pub(crate) name: &'static str,
    /// On the command line, without the dashes.
    pub(crate) flag: &'static str,
    /// In the environment; the first that is set counts.
    pub(crate) environment: &'static [&'static str],
    pub(crate) default: Option<&'static str>,
    /// Never shown.
    pub(crate) is_secret: bool,
}

const fn key(
    name: &'static str,
    flag: &'static str,
    environment: &'static [&'static str],
    default: Option<&'static str>,
) -> Key {
    Key { name, flag, environment, default, is_secret: false }
}

pub(crate) const KEYS: &[Key] = &[
    Key { is_secret: true, ..key("database_url", "database-url", &["SYSTOLE_DATABASE_URL", "DATABASE_URL"], None) },
    Key { is_secret: true, ..key("direct_url", "direct-url", &["SYSTOLE_DIRECT_URL"], None) },
    key("schema", "schema", &["SYSTOLE_SCHEMA"], Some("systole")),
    key("embedded", "embedded", &["SYSTOLE_EMBEDDED"], None),
    key("state_dir", "state-dir", &["SYSTOLE_STATE_DIR"], None),
    key("containment", "containment", &["SYSTOLE_CONTAINMENT"], Some("auto")),
    key("heartbeat_interval", "heartbeat-interval", &["SYSTOLE_HEARTBEAT_INTERVAL"], Some("4s")),
    key("attempt_timeout", "attempt-timeout", &["SYSTOLE_ATTEMPT_TIMEOUT"], Some("4s")),
    key("fence_after", "fence-after", &["SYSTOLE_FENCE_AFTER"], Some("15s")),
    key("kill_grace", "kill-grace", &["SYSTOLE_KILL_GRACE"], Some("3s")),
    key("stale_after", "stale-after", &["SYSTOLE_STALE_AFTER"], Some("30s")),
    key("freeze_max", "freeze-max", &["SYSTOLE_FREEZE_MAX"], Some("10m")),
    key("stop_grace", "stop-grace", &["SYSTOLE_STOP_GRACE"], Some("10s")),
    key("node_name", "name", &["SYSTOLE_NODE_NAME"], None),
    key("slots", "slots", &["SYSTOLE_SLOTS"], Some("1")),
    key("queues", "queue", &["SYSTOLE_QUEUES"], Some("default")),
    key("labels", "label", &["SYSTOLE_LABELS"], Some("")),
    key("poll_interval", "poll-interval", &["SYSTOLE_POLL_INTERVAL"], Some("5s")),
    key("drain_timeout", "drain-timeout", &["SYSTOLE_DRAIN_TIMEOUT"], Some("10m")),
    key("allow_submitted_commands", "allow-submitted-commands", &["SYSTOLE_ALLOW_SUBMITTED_COMMANDS"], None),
    key("log_bytes_max", "log-bytes-max", &["SYSTOLE_LOG_BYTES_MAX"], Some("64MiB")),
    key("log_format", "log-format", &["SYSTOLE_LOG_FORMAT"], Some("auto")),
    key("http.listen", "http", &["SYSTOLE_HTTP"], Some("127.0.0.1:7070")),
    key("http.advertise", "http-advertise", &["SYSTOLE_HTTP_ADVERTISE"], None),
    key("http.fleet", "http-fleet", &["SYSTOLE_HTTP_FLEET"], None),
    key("http.token_file", "http-token-file", &["SYSTOLE_HTTP_TOKEN_FILE"], None),
    key("workspace.repo", "workspace-repo", &["SYSTOLE_WORKSPACE_REPO"], None),
    key("workspace.base", "workspace-base", &["SYSTOLE_WORKSPACE_BASE"], None),
    key("workspace.branch", "workspace-branch", &["SYSTOLE_WORKSPACE_BRANCH"], None),
    key("workspace.submodules", "workspace-submodules", &["SYSTOLE_WORKSPACE_SUBMODULES"], Some("true")),
    key("workspace.dir", "workspace-dir", &["SYSTOLE_WORKSPACE_DIR"], None),
    key("workspace.git_timeout", "workspace-git-timeout", &["SYSTOLE_WORKSPACE_GIT_TIMEOUT"], Some("10m")),
    key("workspace.keep_for", "workspace-keep-for", &["SYSTOLE_WORKSPACE_KEEP_FOR"], None),
    key("workspace.keep", "workspace-keep", &["SYSTOLE_WORKSPACE_KEEP"], None),
    key("workspace.free_disk_min", "workspace-free-disk-min", &["SYSTOLE_WORKSPACE_FREE_DISK_MIN"], None),
    key("runs_dir", "runs-dir", &["SYSTOLE_RUNS_DIR", "AUTONOMOUS_RUNS_DIR"], None),
];
