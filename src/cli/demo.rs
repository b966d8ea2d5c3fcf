//! `systole demo`: three nodes and twenty runs in one terminal, one node killed in the middle, and the tally.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use super::context;
use super::exit::{Failure, code};
use super::print;
use crate::db::{Link, MigrateOptions, Schema, Target, drop_schema, embedded, migrate};
use crate::run::{Submission, queue};

const RUNS: usize = 20;
const NODES: [&str; 3] = ["A", "B", "C"];

/// Beyond this something is wrong with this machine.
const PATIENCE: Duration = Duration::from_secs(90);

const TALLY: &str = "-- demo.tally
    SELECT (SELECT count(*) FROM systole.runs WHERE status = 'COMPLETED') AS completed,
           (SELECT count(*) FROM systole.executor_instances a JOIN systole.executor_instances b USING (run_id)
             WHERE a.attempt < b.attempt AND b.started_at < coalesce(a.ended_at, 'infinity')) AS overlaps,
           (SELECT coalesce(array_agg(run_id ORDER BY run_id), '{}') FROM systole.runs WHERE attempt > 1) AS repeated";

#[derive(Debug, Args)]
pub(super) struct Arguments {}

/// A node as a child of ours. Killed if we end before it.
struct Node {
    name: &'static str,
    child: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Plays it, on the private PostgreSQL and in a schema that is there for this alone.
pub(super) fn execute(_: &Arguments) -> Result<u8, Failure> {
    let schema: Schema = "systole_demo".parse().expect("it is a name");
    let state = std::env::temp_dir().join(format!("systole-demo-{}", std::process::id()));
    let played = context::block_on(async {
        print::text("starting a private PostgreSQL ...");
        let target: Target = embedded::Cluster::of_this_user()?.ensure_running()?.url().parse()?;
        let target = target.in_schema(schema.clone());
        let mut link = Link::new(target.clone(), Duration::from_secs(10));
        drop_schema(&target).await?;
        migrate(&target, &MigrateOptions::default()).await?;
        let played = play(&mut link, &schema, &state).await;
        drop_schema(&target).await?;
        played
    });
    let _ = std::fs::remove_dir_all(&state);
    played
}

async fn play(link: &mut Link, schema: &Schema, state: &Path) -> Result<u8, Failure> {
    let mut nodes = NODES.map(|name| start(name, schema, state)).into_iter().collect::<Result<Vec<_>, _>>()?;
    let runs: Vec<Submission> = (1..=RUNS)
        .map(|n| {
            let line =
                serde_json::json!({ "run_id": format!("run-{n:02}"), "argv": ["sleep", format!("{}", 1 + n % 3)] });
            serde_json::from_value(line).expect("it is a submission")
        })
        .collect();
    let _ = link.call(async |session| queue::submit(session, &runs, false, false, "demo").await).await?;
    print::text(&format!("queued {RUNS} runs of one to three seconds"));

    let started = Instant::now();
    let mut killed = false;
    loop {
        let row = link.call(async |session| session.query(TALLY, &[]).await).await?;
        let row = row.first().expect("an aggregate has a row");
        let completed: i64 = row.get("completed");
        if !killed && completed >= 4 {
            killed = true;
            let victim = &mut nodes[1];
            print::text(&format!(
                "kill -9 node {} (pid {}), and whatever it is working on",
                victim.name,
                victim.child.id()
            ));
            let _ = victim.child.kill();
        }
        if completed == RUNS as i64 {
            let (overlaps, repeated): (i64, Vec<String>) = (row.get("overlaps"), row.get("repeated"));
            for node in &nodes {
                let _ = kill_process(Pid::from_child(&node.child), Signal::TERM);
            }
            for node in &mut nodes {
                let _ = node.child.wait();
            }
            print::text(&format!(
                "{completed} completed, {overlaps} overlaps, {:.1} s. Repeated after the kill: {}",
                started.elapsed().as_secs_f64(),
                if repeated.is_empty() { "none".to_owned() } else { repeated.join(", ") }
            ));
            return Ok(if overlaps == 0 { code::OK } else { code::FINDINGS });
        }
        if started.elapsed() > PATIENCE {
            return Err(Failure::new(
                code::BUG,
                format!("only {completed} of {RUNS} runs have completed after {PATIENCE:?}"),
            ));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn start(name: &'static str, schema: &Schema, state: &Path) -> Result<Node, Failure> {
    let failed = |error| Failure::new(code::BUG, format!("a node cannot be started: {error}"));
    let mut child = Command::new(std::env::current_exe().map_err(failed)?)
        .args(["node", "--embedded", "--slots", "3", "--schema", schema.as_str(), "--http", "off"])
        .arg("--state-dir")
        .arg(state)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let lines = BufReader::new(child.stderr.take().expect("it is piped"));
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            print::text(&format!("{name}  {}", print::plain(line.trim_start_matches("systole: "))));
        }
    });
    Ok(Node { name, child })
}
