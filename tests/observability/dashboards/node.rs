//! What nodes measure of themselves: their trust, their slots, their children, their loops.

use serde_json::Value;

use super::board::Board;
use super::panel::{BAD, CALM, GOOD, Panel, WATCH};

const STATES: [(u32, &str, &str); 4] =
    [(1, "starting", WATCH), (2, "ready", GOOD), (3, "draining", CALM), (4, "gone", "gray")];

pub(crate) fn board() -> Value {
    let board = Board::new(
        "systole-node",
        "systole / Node",
        "What nodes measure of themselves. A dead process measures nothing: whether a node lives is on the fleet's dashboard.",
    );
    let board = heartbeats(board.with_prometheus().with_instances());
    process(work(board)).done()
}

fn heartbeats(board: Board) -> Board {
    let states: Vec<String> = STATES
        .iter()
        .map(|(n, state, _)| format!(r#"{n} * systole_node_state{{<N>,state="{state}"}} == {n}"#))
        .collect();
    board
        .row(1, "Heartbeats")
        .panel(
            Panel::lanes(2, "Node's own state", "As each node sees itself. A gap: it could not be scraped.", &STATES)
                .ask(&format!("max by (instance) ({})", states.join(" or ")), "{{instance}}"),
        )
        .panel(
            Panel::lines(
                3,
                "Since the last good heartbeat",
                "By the node's clock, cut off at four times fence_after, where the node freezes its commands.",
            )
            .ask("clamp_max(max by (instance) (timestamp(systole_heartbeat_last_success_timestamp_seconds{<N>}) - (systole_heartbeat_last_success_timestamp_seconds{<N>} > 0)), 4 * scalar(max(systole_fence_after_seconds{<N>})))", "{{instance}}")
            .ask("min(systole_fence_after_seconds{<N>})", "fence_after")
            .unit("s")
            .dashed("fence_after"),
        )
        .panel(
            Panel::stacked(4, "Heartbeats per second", "Statements by their result. Errors and timeouts are tried again until fence_after.")
                .ask("sum by (result) (rate(systole_heartbeats_total{<N>}<R>))", "{{result}}")
                .unit("cps"),
        )
        .panel(
            Panel::lines(5, "Heartbeat duration", "One statement there and back. Buckets begin at 5 ms: below that the lines only say that it was less.")
                .ask("histogram_quantile(0.5, sum by (le) (rate(systole_heartbeat_duration_seconds_bucket{<N>}<R>)))", "half took less")
                .ask("histogram_quantile(0.99, sum by (le) (rate(systole_heartbeat_duration_seconds_bucket{<N>}<R>)))", "99 of 100 took less")
                .ask("min(systole_attempt_timeout_seconds{<N>})", "attempt_timeout")
                .unit("s")
                .dashed("attempt_timeout")
                .logarithmic(),
        )
        .panel(
            Panel::lines(6, "Heartbeat lateness", "How late the node came to its own heartbeat: a starved CPU, a paused machine. Buckets begin at 10 ms: below that the lines only say that it was less.")
                .ask("histogram_quantile(0.99, sum by (instance, le) (rate(systole_heartbeat_schedule_delay_seconds_bucket{<N>}<R>)))", "{{instance}}, 99 of 100")
                .unit("s"),
        )
        .panel(
            Panel::heatmap(
                7,
                "Lease used",
                "How much of its trust each heartbeat found already spent: at 1 the node fences itself.",
                "percentunit",
                "systole_heartbeat_lease_used_ratio_bucket{<N>}",
            ),
        )
        .panel(
            Panel::lines(8, "Verdicts that were not ok", "Per instance and second. busy: its row was locked for a moment. lost: another has the run.")
                .ask(r#"sum by (verdict) (rate(systole_heartbeat_verdicts_total{<N>,verdict!="ok"}<R>))"#, "{{verdict}}")
                .unit("cps"),
        )
        .panel(
            Panel::lines(9, "Frozen, fenced", "Commands that are frozen now, and in the last 10 minutes those that were frozen, and those that a node stopped because their run may be another's.")
                .ask("sum by (instance) (systole_frozen_instances{<N>})", "frozen on {{instance}}")
                .ask("sum by (instance, reason) (increase(systole_fences_total{<N>}[10m])) > 0", "fenced on {{instance}}: {{reason}}")
                .ask("sum by (instance) (increase(systole_freezes_total{<N>}[10m])) > 0", "were frozen on {{instance}}"),
        )
        .panel(
            Panel::lines(10, "Clock against the database's", "Nothing is decided by it; logs and graphs are read by it.")
                .ask("max by (instance) (systole_db_clock_offset_seconds{<N>})", "{{instance}}")
                .unit("s"),
        )
        .panel(
            Panel::heatmap(
                26,
                "Fencing takes",
                "From the decision until nothing was left of the tree. Must stay below kill_grace, 3 s unless configured.",
                "s",
                "systole_fence_kill_duration_seconds_bucket{<N>}",
            ),
        )
        .panel(
            Panel::heatmap(
                27,
                "Freezes",
                "How long commands were frozen until they went on or ended. Up to ten minutes of a database that is away cost them only time.",
                "s",
                "systole_freeze_duration_seconds_bucket{<N>}",
            ),
        )
        .panel(
            Panel::lines(28, "Found dead", "In the last 10 minutes: executors that the sweeps of the chosen nodes declared dead, and runs that they took over.")
                .ask("sum by (cause) (increase(systole_sweep_crashes_total{<N>}[10m]))", "declared: {{cause}}")
                .ask("sum by (cause) (increase(systole_takeovers_total{<N>}[10m])) > 0", "taken over: {{cause}}")
                .ask("sum(increase(systole_certificates_filed_total{<N>}[10m]))", "certificates filed"),
        )
}

fn work(board: Board) -> Board {
    board
        .row(11, "Work")
        .panel(
            Panel::lines(12, "Slots", "Runs that each node works on, and what it could.")
                .ask("sum by (instance) (systole_runs_running{<N>})", "running on {{instance}}")
                .ask("max by (instance) (systole_run_slots{<N>})", "slots of {{instance}}"),
        )
        .panel(
            Panel::stacked(13, "Ends per second", "Attempts by how they ended.")
                .ask("sum by (outcome) (rate(systole_runs_finished_total{<N>}<R>))", "{{outcome}}")
                .unit("cps"),
        )
        .panel(Panel::heatmap(
            14,
            "Run duration",
            "Of the attempts that the chosen nodes ended: how many ended within which bucket.",
            "s",
            "systole_run_duration_seconds_bucket{<N>}",
        ))
        .panel(
            Panel::stacked(
                15,
                "Commands that ended, by cause",
                "Per second. signal is somebody else's doing, the kernel's for want of memory too; fence_kill and stop_timeout are ours.",
            )
            .ask("sum by (cause) (rate(systole_child_exits_total{<N>}<R>))", "{{cause}}")
            .unit("cps")
            .size(12, 8),
        )
        .panel(
            Panel::lines(16, "Commands started per second", "Each is one attempt of one run.")
                .ask("sum by (instance) (rate(systole_child_starts_total{<N>}<R>))", "{{instance}}")
                .unit("cps")
                .size(12, 8),
        )
        .panel(
            Panel::heatmap(
                17,
                "Attempts needed",
                "How many attempts a run had had when it ended. What moves up is on its way to being poison.",
                "none",
                "systole_run_attempts_bucket{<N>}",
            )
            .size(12, 8),
        )
        .panel(
            Panel::heatmap(
                29,
                "Stopping takes",
                "From a command's SIGTERM until nothing was left of its tree. After stop_grace it is killed.",
                "s",
                "systole_child_stop_duration_seconds_bucket{<N>}",
            )
            .size(12, 8),
        )
}

fn process(board: Board) -> Board {
    board
        .row(18, "Process")
        .panel(
            Panel::lines(19, "Loops: since the last success", "Each should come round within seconds. One that grows is stuck, or the database is away.")
                .ask("max by (instance, loop) (timestamp(systole_loop_last_success_timestamp_seconds{<N>}) - (systole_loop_last_success_timestamp_seconds{<N>} > 0))", "{{loop}} of {{instance}}")
                .unit("s"),
        )
        .panel(
            Panel::lines(30, "Rounds of the loops", "99 of 100 took less.")
                .ask("histogram_quantile(0.99, sum by (loop, le) (rate(systole_loop_duration_seconds_bucket{<N>}<R>)))", "{{loop}}")
                .unit("s"),
        )
        .panel(
            Panel::stacked(31, "Requests per second", "To the node's own pages, by what they were answered with.")
                .ask("sum by (route, code) (rate(systole_http_requests_total{<N>}<R>)) > 0", "{{route}} {{code}}")
                .unit("reqps"),
        )
        .panel(
            Panel::lines(32, "Answers take", "99 of 100 requests took less.")
                .ask("histogram_quantile(0.99, sum by (route, le) (rate(systole_http_request_duration_seconds_bucket{<N>}<R>)))", "{{route}}")
                .unit("s"),
        )
        .panel(
            Panel::lines(20, "CPU", "Cores that the node itself uses, without its commands.")
                .ask("sum by (instance) (rate(process_cpu_seconds_total{<N>}<R>))", "{{instance}}"),
        )
        .panel(
            Panel::lines(21, "Memory", "Resident memory of the node itself, without its commands.")
                .ask("max by (instance) (process_resident_memory_bytes{<N>})", "{{instance}}")
                .unit("bytes"),
        )
        .panel(
            Panel::lines(22, "File descriptors", "The share of what the process may open.")
                .ask("max by (instance) (process_open_fds{<N>}) / max by (instance) (process_max_fds{<N>})", "{{instance}}")
                .unit("percentunit")
                .range(0.0, 1.0),
        )
        .panel(
            Panel::stat(23, "Restarts", "Within the time shown, of all chosen nodes, under the same address.")
                .ask("sum(changes(process_start_time_seconds{<N>}[$__range]))", "restarts")
                .colours(CALM, &[(1.0, WATCH)])
                .size(4, 8),
        )
        .panel(
            Panel::stat(24, "Heartbeats that failed", "The share within the time shown, of all chosen nodes.")
                .ask(r#"sum(increase(systole_heartbeats_total{<N>,result!="ok"}[$__range])) / sum(increase(systole_heartbeats_total{<N>}[$__range]))"#, "failed")
                .unit("percentunit")
                .colours(GOOD, &[(0.001, WATCH), (0.01, BAD)])
                .size(4, 8),
        )
        .panel(
            Panel::table(25, "Versions", "What answers under which address.")
                .ask("max by (instance, version) (systole_build_info{<N>})", "")
                .columns(&["Time", "Value"], &[("instance", "Node"), ("version", "Version")]),
        )
}
