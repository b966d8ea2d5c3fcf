//! One run, out of the database itself: the ids of runs never enter Prometheus.
//!
//! Read by a member of the role systole_viewer. Each statement finds its rows by an index.

use serde_json::{Value, json};

use super::board::Board;
use super::panel::{BAD, CALM, GOOD, Panel, WATCH};

/// What is at work, and what ended last.
const RECENT: &str =
    "(SELECT run_id FROM systole.executor_instances WHERE status = 'RUNNING' ORDER BY run_id LIMIT 200)
UNION ALL
(SELECT run_id FROM systole.runs WHERE status NOT IN ('QUEUED', 'RUNNING') ORDER BY updated_at DESC LIMIT 200)";

const STATUSES: [(u32, &str, &str); 7] = [
    (1, "RUNNING", CALM),
    (2, "COMPLETED", GOOD),
    (3, "FAILED", "orange"),
    (4, "TIMED_OUT", WATCH),
    (5, "CANCELLED", "gray"),
    (6, "RELEASED", "purple"),
    (7, "CRASHED", BAD),
];

/// Two rows for each attempt: its start, and its end, from where on there is nothing. The attempts of a run never overlap, so the
/// rows of one do not cut the lane of another.
const ATTEMPTS: &str = r#"SELECT greatest(started_at, $__timeFrom()) AS "time",
       'attempt ' || attempt || ' on ' || host AS metric,
       array_position(ARRAY['RUNNING', 'COMPLETED', 'FAILED', 'TIMED_OUT', 'CANCELLED', 'RELEASED', 'CRASHED'], status) AS value
  FROM systole.executor_instances
 WHERE run_id = ${run:sqlstring} AND started_at <= $__timeTo() AND coalesce(ended_at, $__timeTo()) >= $__timeFrom()
UNION ALL
SELECT ended_at, 'attempt ' || attempt || ' on ' || host, NULL
  FROM systole.executor_instances
 WHERE run_id = ${run:sqlstring} AND $__timeFilter(ended_at)
 ORDER BY 1"#;

const EVENTS: &str = r#"SELECT at AS "time", kind, executor_id AS executor, fence::text AS fence, detail::text AS detail
  FROM systole.run_events WHERE run_id = ${run:sqlstring} ORDER BY id DESC LIMIT 500"#;

const MARKS: &str = r#"SELECT at AS "time", kind || coalesce(' by ' || executor_id, '') AS text, kind AS tags
  FROM systole.run_events WHERE run_id = ${run:sqlstring} AND $__timeFilter(at) ORDER BY id LIMIT 500"#;

const TABLE: &str = r#"SELECT i.attempt, i.status, i.executor_id AS executor, i.started_at, i.ended_at,
       extract(epoch FROM coalesce(i.ended_at, clock_timestamp()) - i.started_at) AS seconds,
       i.exit_code, i.cause, i.phases_executed AS phases, i.message, i.containment, o.bytes_total AS output_bytes, o.path AS output
  FROM systole.executor_instances i LEFT JOIN systole.run_output o USING (instance_id)
 WHERE i.run_id = ${run:sqlstring} ORDER BY i.attempt DESC LIMIT 200"#;

pub(crate) fn board() -> Value {
    let database = json!({ "type": "grafana-postgresql-datasource", "uid": "${database}" });
    let board = Board::new(
        "systole-run",
        "systole / Run",
        "One run with all its attempts, out of PostgreSQL, read as a member of systole_viewer.",
    )
    .hours(24)
    .source("database", "PostgreSQL", "grafana-postgresql-datasource")
    .variable(
        "run",
        "Run",
        RECENT,
        json!({ "datasource": database, "query": RECENT, "multi": false, "includeAll": false, "allValue": null,
                "current": null, "sort": 0, "refresh": 2, "allowCustomValue": true,
                "description": "The list holds what runs and what ended last; type any other id." }),
    )
    .annotation(json!({
        "name": "Events", "datasource": database, "enable": true, "iconColor": "purple",
        "target": { "refId": "Anno", "datasource": database, "format": "table", "editorMode": "code", "rawQuery": true, "rawSql": MARKS },
    }));
    history(now(board)).done()
}

fn now(board: Board) -> Board {
    let of_run = |what: &str| format!("SELECT {what} FROM systole.runs WHERE run_id = ${{run:sqlstring}}");
    let newest = |what: &str| {
        format!(
            "SELECT {what} FROM systole.executor_instances WHERE run_id = ${{run:sqlstring}} ORDER BY attempt DESC LIMIT 1"
        )
    };
    let colours = [
        ("QUEUED", WATCH),
        ("RUNNING", CALM),
        ("COMPLETED", GOOD),
        ("FAILED", BAD),
        ("CANCELLED", "gray"),
        ("CRASHED", BAD),
    ];
    board
        .panel(Panel::word(1, "Status", "Of the run.", &of_run("status")).words(&colours).size(4, 4))
        .panel(
            Panel::word(2, "Attempts", "Executors that have held it, one after the other.", &of_run("attempt"))
                .size(3, 4),
        )
        .panel(
            Panel::word(
                3,
                "Executor",
                "Who holds it, or held it last: the process and its host.",
                &newest("executor_id"),
            )
            .size(5, 4),
        )
        .panel(
            Panel::word(
                4,
                "Since the last heartbeat",
                "Of a holder that is RUNNING; empty when nobody holds the run.",
                &newest(
                    "CASE status WHEN 'RUNNING' THEN extract(epoch FROM clock_timestamp() - last_heartbeat) END AS age",
                ),
            )
            .unit("s")
            .size(4, 4),
        )
        .panel(
            Panel::word(
                5,
                "Crashes, failures",
                "Each has a limit of its own: crashes_max, max_attempts.",
                &of_run("crashes || ' of ' || crashes_max || ', ' || failures || ' of ' || max_attempts AS counts"),
            )
            .size(4, 4),
        )
        .panel(
            Panel::word(
                6,
                "Waits for",
                "Why a queued run is not running; empty for any other.",
                "SELECT systole.why_waiting(${run:sqlstring}) AS reason",
            )
            .size(4, 4),
        )
}

fn history(board: Board) -> Board {
    board
        .panel(
            Panel::lanes(
                7,
                "Attempts",
                "A lane for each attempt, coloured by how it ended. Two at once would be a broken promise.",
                &STATUSES,
            )
            .sql("time_series", ATTEMPTS)
            .size(24, 8),
        )
        .panel(
            Panel::table(
                8,
                "Each attempt",
                "How it ended, how far it came, and where its output lies: systole logs prints it.",
            )
            .sql("table", TABLE)
            .column_unit("seconds", "s")
            .column_unit("output_bytes", "bytes")
            .size(24, 8),
        )
        .panel(
            Panel::table(9, "History", "The newest 500 events of this run, whatever the time shown above.")
                .sql("table", EVENTS)
                .size(24, 10),
        )
}
