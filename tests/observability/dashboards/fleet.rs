//! The fleet at a glance: who is here, who died, what waits.

use serde_json::{Value, json};

use super::board::Board;
use super::panel::{BAD, CALM, GOOD, Panel, WATCH};

/// The worst of what a name stands for wins.
pub(crate) const NODE_STATES: [(u32, &str, &str); 4] =
    [(1, "live", GOOD), (2, "stale", WATCH), (3, "draining", CALM), (4, "crashed", BAD)];

pub(crate) fn board() -> Value {
    let board = Board::new(
        "systole-fleet",
        "systole / Fleet",
        "Every node, run and takeover, as the database sees them; what the nodes measure themselves is below.",
    );
    let queue = r#"label_values(systole_fleet_runs{job=~"$fleet_job"}, queue)"#;
    let board = board.with_prometheus().with_instances().variable("queue", "Queue", queue, json!({}));
    over_time(now(board)).done()
}

fn now(board: Board) -> Board {
    let runs =
        |state: &str| format!(r#"sum(max by (queue) (systole_fleet_runs{{<F>,queue=~"$queue",state="{state}"}}))"#);
    board
        .panel(
            Panel::stat(1, "Live nodes", "Nodes whose last heartbeat is younger than half their stale_after.")
                .ask(r#"max(systole_fleet_nodes{<F>,state="live"})"#, "live")
                .colours(BAD, &[(1.0, GOOD)]),
        )
        .panel(
            Panel::stat(2, "Crashed nodes", "Nodes that fell silent without saying goodbye, until forgotten or for an hour.")
                .ask(r#"max(systole_fleet_nodes{<F>,state="crashed"})"#, "crashed")
                .colours(GOOD, &[(1.0, BAD)]),
        )
        .panel(
            Panel::stat(
                3,
                "Crashes, 15 min",
                "Executors declared dead in the last 15 minutes and not acknowledged by systole forget: what rings. \
                 Counts systole run under cron as well.",
            )
            .ask("sum(max by (host) (systole_fleet_crashes_ringing{<F>})) or max(0 * systole_fleet_snapshot_timestamp_seconds{<F>})", "ringing")
            .colours(GOOD, &[(1.0, BAD)]),
        )
        .panel(
            Panel::stat(4, "Running", "Runs of the chosen queues that an executor holds now.")
                .ask(&runs("running"), "running")
                .colours(CALM, &[]),
        )
        .panel(
            Panel::stat(5, "Stale", "Runs whose holder is silent and which nobody has taken over yet.")
                .ask(&runs("stale"), "stale")
                .colours(GOOD, &[(1.0, BAD)]),
        )
        .panel(
            Panel::stat(6, "Oldest queued", "How long the oldest run that is due has been waiting.")
                .ask(r#"max(max by (queue) (systole_fleet_queue_oldest_age_seconds{<F>,queue=~"$queue"}))"#, "oldest")
                .unit("s")
                .colours(GOOD, &[(300.0, WATCH), (900.0, BAD)]),
        )
        .panel(
            Panel::stat(7, "Poisoned", "Runs that are FAILED because their executor died with them crashes_max times.")
                .ask(&runs("poison"), "poison")
                .colours(GOOD, &[(1.0, WATCH)]),
        )
        .panel(
            Panel::stat(8, "Broken promises", "Violated invariants that the probe has found. Must be 0, always.")
                .ask("sum(max by (invariant) (systole_fleet_invariant_violations{<F>}))", "violations")
                .colours(GOOD, &[(1.0, BAD)]),
        )
        .panel(
            Panel::table(9, "Firing alerts", "What Prometheus is ringing about now, whatever its data source shows above.")
                .ask(r#"count by (alertname, severity, host, node, queue, run, invariant, loop) (ALERTS{alertname=~"Systole.+",alertstate="firing"})"#, "")
                .columns(&["Time", "Value"], &[("alertname", "Alert"), ("severity", "Severity"), ("host", "Host"), ("node", "Node"), ("queue", "Queue"), ("run", "Run")])
                .size(12, 6),
        )
        .panel(
            Panel::table(10, "Stale runs", "The 20 that have been silent for longest, with the host of their holder.")
                .ask(r#"max by (run, queue, host) (systole_fleet_stale_run_age_seconds{<F>,queue=~"$queue"})"#, "")
                .columns(&["Time"], &[("run", "Run"), ("queue", "Queue"), ("host", "Host"), ("Value", "Silent for")])
                .column_unit("Silent for", "s")
                .size(12, 6),
        )
}

fn over_time(board: Board) -> Board {
    let node_state = |n: u32, state: &str| format!(r#"{n} * systole_fleet_node_state{{<F>,state="{state}"}} == {n}"#);
    let states: Vec<String> = NODE_STATES.iter().map(|(n, state, _)| node_state(*n, state)).collect();
    board
        .panel(
            Panel::lanes(11, "Nodes", "A lane for each node's name, as the database sees it. Nodes that have said goodbye are not shown.", &NODE_STATES)
                .ask(&format!("max by (node) ({})", states.join(" or ")), "{{node}}")
                .size(16, 9),
        )
        .panel(
            Panel::lines(
                12,
                "Heartbeat age",
                "Seconds since each node was last heard, by the database's clock, cut off at twice the longest stale_after: \
                 one dead node would flatten all others.",
            )
            .ask("clamp_max(max by (node) (systole_fleet_node_heartbeat_age_seconds{<F>}), 2 * scalar(max(systole_stale_after_seconds{<N>})))", "{{node}}")
            .ask("min(systole_stale_after_seconds{<N>})", "stale_after")
            .unit("s")
            .dashed("stale_after")
            .size(8, 9),
        )
        .panel(
            Panel::stacked(13, "Runs by state", "Runs that have not ended, and those that are poisoned. A stale one is held by somebody who is silent.")
                .ask(r#"sum by (state) (max by (queue, state) (systole_fleet_runs{<F>,queue=~"$queue"}))"#, "{{state}}"),
        )
        .panel(
            Panel::lines(14, "Oldest queued, by queue", "How long the oldest run that is due has been waiting; 0 where none waits.")
                .ask(r#"max by (queue) (systole_fleet_queue_oldest_age_seconds{<F>,queue=~"$queue"})"#, "{{queue}}")
                .unit("s"),
        )
        .panel(
            Panel::stacked(26, "Executors", "Tenures of runs, those of systole run too: heard of, and silent for their stale_after.")
                .ask("max by (state) (systole_fleet_instances{<F>})", "{{state}}"),
        )
        .panel(
            Panel::lines(15, "Ends in the last 5 minutes", "Attempts by how they ended, wherever they ran: systole run as well.")
                .ask("max by (status) (systole_fleet_recent_ends{<F>})", "{{status}}"),
        )
        .panel(
            Panel::lines(16, "Crashes per hour", "Executors declared dead in the hour before, by cause.")
                .ask("sum by (cause) (max by (host, cause) (increase(systole_fleet_instance_crashes_total{<F>}[1h])))", "{{cause}}"),
        )
        .panel(
            Panel::heatmap(
                17,
                "Takeover delay",
                "From the last heartbeat of the lost executor to the claim of the next. A proven death moves on within seconds, a silent one after stale_after.",
                "s",
                "systole_takeover_delay_seconds_bucket{<N>}",
            ),
        )
        .panel(
            Panel::heatmap(
                18,
                "Lease used",
                "How much of its trust each heartbeat found already spent: towards 1 a node comes close to fencing itself.",
                "percentunit",
                "systole_heartbeat_lease_used_ratio_bucket{<N>}",
            ),
        )
        .panel(
            Panel::lines(19, "Slots used", "The share of each node's slots that work.")
                .ask("max by (node) (systole_fleet_node_running{<F>}) / max by (node) (systole_fleet_node_slots{<F>})", "{{node}}")
                .unit("percentunit")
                .range(0.0, 1.0),
        )
        .panel(
            Panel::heatmap(
                20,
                "Queue wait",
                "From being due to being claimed, of what the chosen nodes claimed: how many waited within which bucket.",
                "s",
                r#"systole_run_queue_wait_seconds_bucket{<N>,queue=~"$queue"}"#,
            ),
        )
        .panel(
            Panel::stacked(21, "Claims per second", "Runs claimed by the chosen nodes: for the first time, again after an end, or from a dead executor.")
                .ask(r#"sum by (kind) (rate(systole_runs_claimed_total{<N>,queue=~"$queue"}<R>))"#, "{{kind}}")
                .unit("cps"),
        )
        .panel(
            Panel::lines(22, "Run duration, all executors", "Of the attempts that ended in the last 5 minutes.")
                .ask(r#"max by (quantile) (systole_fleet_recent_run_seconds{<F>})"#, "quantile {{quantile}}")
                .unit("s"),
        )
        .panel(
            Panel::lanes(23, "Takeovers held back", "Whether the brake holds takeovers by age back because too many hosts fell silent at once, or a failover is waited out.", &[(0, "no", GOOD), (1, "yes", WATCH)])
                .ask("max(systole_fleet_brake_engaged{<F>})", "brake")
                .ask("max(systole_fleet_quarantine_remaining_seconds{<F>} > bool 0)", "quarantine")
                .size(8, 8),
        )
        .panel(
            Panel::table(24, "Node versions", "Each node with its host and version.")
                .ask("max by (node, host, version) (systole_fleet_node_info{<F>})", "")
                .columns(&["Time", "Value"], &[("node", "Node"), ("host", "Host"), ("version", "Version")]),
        )
        .panel(
            Panel::lines(25, "Age of this view", "Seconds since the database was last asked. When it grows, everything that the database sees is old.")
                .ask("time() - max(systole_fleet_snapshot_timestamp_seconds{<F>})", "age")
                .unit("s"),
        )
}
