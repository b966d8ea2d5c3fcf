//! `systole node`, `nodes`, `drain`: the fleet's daemons, and what people ask of them.

use std::collections::BTreeMap;

use clap::Args;

use super::context;
use super::exit::{Failure, code};
use super::print;
use super::settings::{Settings, Why, WorktreeFlags};
use crate::daemon::{self, Setup, Workspaces};
use crate::http::Door;
use crate::log::{self, Format};
use crate::metrics::Metrics;
use crate::node::store::{self, Forgotten};
use crate::state_dir::StateDir;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What people and metrics call it, where that is not its host's name; needed where a host has several
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How many runs it works on at once
    #[arg(long, value_name = "N")]
    slots: Option<String>,
    /// A queue that it serves; may be repeated
    #[arg(long, value_name = "NAME")]
    queue: Vec<String>,
    /// A label that runs may require; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Between two looks into the queue, if nothing is heard of it before
    #[arg(long, value_name = "DURATION")]
    poll_interval: Option<String>,
    /// How long a draining node waits for its runs before it gives them back
    #[arg(long, value_name = "DURATION")]
    drain_timeout: Option<String>,
    /// Start what runs bring with them, and not only the commands of its configuration
    #[arg(long)]
    allow_submitted_commands: bool,
    /// Folder for the output of runs
    #[arg(long, value_name = "DIR")]
    runs_dir: Option<String>,
    #[command(flatten)]
    worktree: WorktreeFlags,
    /// Fetch the submodules of worktrees as well: true (by default) or false
    #[arg(long, value_name = "BOOL", hide_short_help = true)]
    workspace_submodules: Option<String>,
    /// The longest that one git command for a worktree may take [default: 10m]
    #[arg(long, value_name = "DURATION", hide_short_help = true)]
    workspace_git_timeout: Option<String>,
    /// Folder for worktrees, where that is not in the state folder
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    workspace_dir: Option<String>,
    /// Remove worktrees whose attempts ended so long ago; their work stays in the repository
    #[arg(long, value_name = "DURATION", hide_short_help = true)]
    workspace_keep_for: Option<String>,
    /// Remove all worktrees but the newest so many
    #[arg(long, value_name = "N", hide_short_help = true)]
    workspace_keep: Option<String>,
    /// Remove the oldest worktrees while less than this is free
    #[arg(long, value_name = "SIZE", hide_short_help = true)]
    workspace_free_disk_min: Option<String>,
    /// How much of an attempt's output is kept: its newest
    #[arg(long, value_name = "SIZE")]
    log_bytes_max: Option<String>,
    /// Where metrics and health are served, or off; not with --once unless it is given [env: SYSTOLE_HTTP]
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<String>,
    /// How others reach that, where it is not the address itself
    #[arg(long, value_name = "ADDRESS:PORT", hide_short_help = true)]
    http_advertise: Option<String>,
    /// Answer there for the whole fleet as well, at /metrics/fleet: on one node or two
    #[arg(long)]
    http_fleet: bool,
    /// File with the token that is asked for over HTTP, for addresses beyond this machine
    #[arg(long, value_name = "FILE")]
    http_token_file: Option<String>,
    /// Work off what is queued now, then end
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Args)]
pub(super) struct NodesArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DrainArguments {
    /// The node (its name, or PID@host), or a host with all its nodes
    node: String,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
pub(super) struct ForgetArguments {
    /// A node (its name, or PID@host), a host, or a run
    node: String,
    #[command(flatten)]
    why: Why,
}

/// Runs as a node until it is drained.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let list = |items: &[String]| (!items.is_empty()).then(|| items.join(","));
    let given: BTreeMap<&'static str, String> = [
        ("node_name", arguments.name.clone()),
        ("slots", arguments.slots.clone()),
        ("queues", list(&arguments.queue)),
        ("labels", list(&arguments.label)),
        ("poll_interval", arguments.poll_interval.clone()),
        ("drain_timeout", arguments.drain_timeout.clone()),
        ("allow_submitted_commands", arguments.allow_submitted_commands.then(|| "true".to_owned())),
        ("workspace.submodules", arguments.workspace_submodules.clone()),
        ("workspace.git_timeout", arguments.workspace_git_timeout.clone()),
        ("workspace.keep_for", arguments.workspace_keep_for.clone()),
        ("workspace.keep", arguments.workspace_keep.clone()),
        ("workspace.free_disk_min", arguments.workspace_free_disk_min.clone()),
        ("workspace.dir", arguments.workspace_dir.clone()),
        ("runs_dir", arguments.runs_dir.clone()),
        ("log_bytes_max", arguments.log_bytes_max.clone()),
        ("http.listen", arguments.http.clone()),
        ("http.advertise", arguments.http_advertise.clone()),
        ("http.fleet", arguments.http_fleet.then(|| "true".to_owned())),
        ("http.token_file", arguments.http_token_file.clone()),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .chain(arguments.worktree.given())
    .collect();
    let config = context::config_with(settings, given)?;
    log::begin(config.log_format(Format::of_stderr())?, false);
    // Before anything is asked of the database: a second node on this host says so, and does nothing.
    let http = if arguments.once { config.http_if_asked()? } else { config.http()? };
    let http = http.as_ref().map(Door::open).transpose()?;
    let state = StateDir::open(&config.state_dir())?;
    context::block_on(async {
        let catalogue = config.catalogue()?;
        let metrics = http.as_ref().map(|_| Metrics::of_node(&catalogue.queues)).unwrap_or_default();
        let setup = Setup {
            target: context::target(&config).await?.counted_by(metrics),
            name: config.node_name()?,
            timing: config.timing()?,
            stop_grace: config.stop_grace()?,
            containment: config.containment()?,
            workspaces: Workspaces {
                defaults: config.workspace()?,
                place: config.place(state.clone())?,
                policy: config.workspace_policy()?,
            },
            state,
            catalogue,
            slots: config.slots()?,
            poll_interval: config.poll_interval()?,
            drain_timeout: config.drain_timeout()?,
            runs_dir: config.runs_dir(),
            log_bytes_max: config.log_bytes_max()?,
            http,
            shows_fleet: config.http_fleet()?,
            once: arguments.once,
            hands_all_down: false,
            leaving: None,
        };
        daemon::run(setup).await?;
        Ok(code::OK)
    })
}

/// Lists the nodes.
pub(super) fn nodes(arguments: &NodesArguments, settings: &Settings) -> Result<u8, Failure> {
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let nodes = link.call(async |session| store::list(session).await).await?;
        if arguments.json {
            print::json(&nodes);
            return Ok(code::OK);
        }
        let labels = |node: &store::NodeView| {
            let pairs = node.labels.as_object().into_iter().flatten();
            pairs
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let row = |node: &store::NodeView| {
            vec![
                node.name.clone(),
                node.executor_id.clone(),
                node.state.clone(),
                format!("{}/{}", node.running, node.slots),
                node.queues.join(" "),
                labels(node),
                node.version.clone(),
                print::moment(node.last_heartbeat),
            ]
        };
        let headers = ["NAME", "NODE", "STATE", "RUNNING", "QUEUES", "LABELS", "VERSION", "LAST HEARTBEAT"];
        print::table(
            &headers,
            nodes.iter().map(row).collect(),
            "no node was seen within a day: start one with systole node",
        );
        Ok(code::OK)
    })
}

/// Asks nodes to start nothing more, and to end.
pub(super) fn drain(arguments: &DrainArguments, settings: &Settings) -> Result<u8, Failure> {
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let by = arguments.why.by();
        let asked = link.call(async |session| store::drain(session, &arguments.node, &by).await).await?;
        if asked.is_empty() {
            let message = format!("no node {:?} was seen within a day: systole nodes lists them", arguments.node);
            return Err(Failure::new(code::USAGE, message));
        }
        print::text(&format!("asked {} to drain", asked.join(", ")));
        Ok(code::OK)
    })
}

/// Acknowledges crashes and given up runs, so that they ring no more, and removes nodes that are dead.
pub(super) fn forget(arguments: &ForgetArguments, settings: &Settings) -> Result<u8, Failure> {
    let config = context::config(settings)?;
    context::block_on(async {
        let mut link = context::link(&config).await?;
        let (node, by) = (&arguments.node, arguments.why.by());
        let message = match link.call(async |session| store::forget(session, node, &by).await).await? {
            Forgotten::Done { crashes, nodes, was_given_up } => {
                if was_given_up {
                    print::text(&format!("it is known that run {node} was given up"));
                }
                if crashes > 0 || !nodes.is_empty() {
                    let crashes =
                        format!("{crashes} crash{} of {node} acknowledged", if crashes == 1 { "" } else { "es" });
                    let nodes =
                        if nodes.is_empty() { String::new() } else { format!(", and forgot {}", nodes.join(", ")) };
                    print::text(&format!("{crashes}{nodes}"));
                }
                return Ok(code::OK);
            }
            Forgotten::Alive { nodes } => format!(
                "{} is here, and nothing of {node:?} has crashed that is not known: systole drain asks a node to go",
                nodes.join(", ")
            ),
            Forgotten::Unknown => format!(
                "nothing of a node or host {node:?} has crashed lately that is not known, none of that name is dead, and no such run was given up: systole nodes and systole status list them"
            ),
        };
        Err(Failure::new(code::USAGE, message))
    })
}
