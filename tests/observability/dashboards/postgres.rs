//! What systole costs the database, and how the database treats it.

use serde_json::Value;

use super::board::Board;
use super::panel::{BAD, GOOD, Panel, WATCH};

pub(crate) fn board() -> Value {
    let board = Board::new(
        "systole-postgres",
        "systole / Postgres cost",
        "What systole asks of PostgreSQL, what that costs, and what keeps vacuum from tidying up behind it.",
    );
    let board = nodes(board.with_prometheus().with_instances()).row(20, "Tables");
    tables(board).done()
}

fn nodes(board: Board) -> Board {
    board
        .panel(
            Panel::stat(1, "Nodes without a database", "Chosen nodes whose last question was not answered.")
                .ask("count(systole_db_up{<N>} == 0) or count(systole_db_up{<N>}) * 0", "without")
                .colours(GOOD, &[(1.0, BAD)])
                .size(6, 4),
        )
        .panel(
            Panel::stat(2, "Connections", "That the chosen nodes hold open.")
                .ask("sum(systole_db_connections{<N>})", "connections")
                .size(6, 4),
        )
        .panel(
            Panel::stat(3, "Oldest transaction", "Of the whole server. While it lasts, vacuum removes nothing newer: heartbeats bloat their table.")
                .ask("max(systole_fleet_oldest_transaction_age_seconds{<F>})", "age")
                .unit("s")
                .colours(GOOD, &[(60.0, WATCH), (300.0, BAD)])
                .size(6, 4),
        )
        .panel(
            Panel::stat(4, "Duplicates refused", "Claims in the last 24 hours that were turned away because another held the run: the guarantee at work.")
                .ask("max(increase(systole_fleet_duplicates_refused_total{<F>}[24h]))", "refused")
                .whole()
                .size(6, 4),
        )
        .panel(
            Panel::stacked(5, "Statements per second", "By their kind.")
                .ask("sum by (statement) (rate(systole_db_query_duration_seconds_count{<N>}<R>))", "{{statement}}")
                .unit("cps"),
        )
        .panel(
            Panel::lines(6, "Duration by statement", "99 of 100 took less, there and back. Buckets begin at 5 ms: below that a line only says that it was less.")
                .ask("histogram_quantile(0.99, sum by (statement, le) (rate(systole_db_query_duration_seconds_bucket{<N>}<R>)))", "{{statement}}")
                .unit("s"),
        )
        .panel(
            Panel::stacked(7, "Database seconds per second", "How many connections are busy on average, and with what.")
                .ask("sum by (statement) (rate(systole_db_query_duration_seconds_sum{<N>}<R>))", "{{statement}}"),
        )
        .panel(
            Panel::lines(8, "Errors per second", "By class. A constraint is a bug; a connection or a timeout is a bad day.")
                .ask("sum by (class) (rate(systole_db_errors_total{<N>}<R>))", "{{class}}")
                .unit("cps"),
        )
        .panel(
            Panel::lines(9, "Dials per second", "Connections made anew: after errors, or because something in between cuts them.")
                .ask("sum by (result) (rate(systole_db_dials_total{<N>}<R>))", "{{result}}")
                .unit("cps"),
        )
        .panel(
            Panel::lines(10, "Statements per second and live node", "What one node more will cost.")
                .ask(r#"sum(rate(systole_db_query_duration_seconds_count{<N>}<R>)) / max(systole_fleet_nodes{<F>,state="live"} > 0)"#, "per node")
                .unit("cps"),
        )
        .panel(
            Panel::stacked(11, "Claim attempts per second", "empty ones are the polls of an idle fleet.")
                .ask("sum by (result) (rate(systole_claim_attempts_total{<N>}<R>))", "{{result}}")
                .unit("cps"),
        )
        .panel(
            Panel::lines(12, "Notifications per second", "Hints that arrived. Without them work is found by polling, every 5 s.")
                .ask("sum(rate(systole_notifications_total{<N>}<R>))", "arrived")
                .ask("sum(rate(systole_listen_reconnects_total{<N>}<R>))", "connections made anew")
                .unit("cps"),
        )
        .panel(
            Panel::lines(13, "Cost of the fleet view", "How long the last snapshot of the fleet took.")
                .ask("max(systole_fleet_snapshot_duration_seconds{<F>})", "duration")
                .unit("s")
                .size(12, 8),
        )
        .panel(
            Panel::lines(14, "Snapshots that failed", "Of the fleet view, in the last 10 minutes.")
                .ask("max(increase(systole_fleet_snapshot_errors_total{<F>}[10m]))", "failed")
                .size(12, 8),
        )
}

fn tables(board: Board) -> Board {
    let updates =
        |hot: &str| format!(r#"max by (table) (rate(systole_fleet_table_updates_total{{<F>,hot="{hot}"}}[10m]))"#);
    board
        .panel(
            Panel::lines(21, "Size", "Of each table with its indexes.")
                .ask("max by (table) (systole_fleet_table_bytes{<F>})", "{{table}}")
                .unit("bytes"),
        )
        .panel(
            Panel::lines(
                22,
                "Dead rows",
                "Waiting for vacuum. A saw is healthy; a ramp is an old transaction, or a vacuum that does not come.",
            )
            .ask("max by (table) (systole_fleet_table_dead_rows{<F>})", "{{table}}"),
        )
        .panel(
            Panel::lines(
                23,
                "Updates that touched no index",
                "The share that is HOT. Heartbeats should be above 99 %, or they bloat the indexes.",
            )
            .ask(&format!("{hot} / ({hot} + {cold} > 0)", hot = updates("true"), cold = updates("false")), "{{table}}")
            .unit("percentunit")
            .range(0.0, 1.0),
        )
}
