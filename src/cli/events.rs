//! `systole events`: the history of a run, or of the fleet, and what happens next.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::context;
use super::exit::{Failure, code};
use super::print;
use super::settings::Settings;
use crate::backoff::Backoff;
use crate::db::{DbError, Hint, Link};
use crate::ids::RunId;
use crate::run::store::{self, Event, FleetEvent};

/// Between two looks while following, if no hint comes before.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// The most that one look returns.
const PAGE: usize = 1000;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The run; without it what befell queues, nodes and the database
    run_id: Option<String>,
    /// Go on and print what happens
    #[arg(short, long)]
    follow: bool,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Prints the events in order.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let run_id: Option<RunId> = arguments.run_id.as_deref().map(str::parse).transpose()?;
    let config = context::config(settings)?;
    context::block_on(async {
        let (mut link, mut hints) = context::listening_link(&config).await?;
        let mut last = 0;
        let mut backoff = Backoff::new(FOLLOW_INTERVAL, Duration::from_secs(5));
        loop {
            let looked = match &run_id {
                Some(run_id) => of_run(&mut link, run_id, &mut last, arguments.json).await,
                None => of_fleet(&mut link, &mut last, arguments.json).await,
            };
            let seen = match looked {
                Ok(seen) => seen,
                Err(error) if arguments.follow && error.is_transient() => {
                    tokio::time::sleep(backoff.next_delay()).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            backoff.reset();
            if seen == PAGE {
                continue;
            }
            if !arguments.follow {
                if let Some(run_id) = run_id.filter(|_| last == 0) {
                    let message = format!("nothing has ever happened to a run \"{run_id}\" here");
                    return Err(Failure::new(code::USAGE, message));
                }
                return Ok(code::OK);
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
                () = hear_of(run_id.as_ref(), &mut hints) => {}
            }
        }
    })
}

/// Prints what has happened to the run since the last look; returns how much that was.
async fn of_run(link: &mut Link, run_id: &RunId, last: &mut i64, json: bool) -> Result<usize, DbError> {
    let events = link.call(async |session| store::events(session, run_id, *last).await).await?;
    for event in &events {
        *last = event.id;
        show(event, json, line);
    }
    Ok(events.len())
}

async fn of_fleet(link: &mut Link, last: &mut i64, json: bool) -> Result<usize, DbError> {
    let events = link.call(async |session| store::fleet_events(session, *last).await).await?;
    for event in &events {
        *last = event.id;
        show(event, json, fleet_line);
    }
    Ok(events.len())
}

fn show<E: Serialize>(event: &E, json: bool, line: fn(&E) -> String) {
    if json {
        print::json_line(event);
    } else {
        print::text(&line(event));
    }
}

/// Resolves when something has happened to the run. Nobody hints at what befalls the fleet.
async fn hear_of(run_id: Option<&RunId>, hints: &mut mpsc::Receiver<Hint>) {
    let Some(run_id) = run_id else { return std::future::pending().await };
    while hints.recv().await.is_some_and(|hint| hint.name != run_id.as_str()) {}
}

fn line(event: &Event) -> String {
    let mut text = format!("{}  {:<14}", event.at.format("%Y-%m-%d %H:%M:%S%.3fZ"), event.kind);
    if let Some(executor) = &event.executor_id {
        text.push_str(&format!("  {executor}"));
    }
    text + &told(&event.detail)
}

fn fleet_line(event: &FleetEvent) -> String {
    let at = event.at.format("%Y-%m-%d %H:%M:%S%.3fZ");
    let mut text = format!("{at}  {:<15}  {}", event.kind, print::plain(&event.subject));
    for (key, value) in [("by", &event.by), ("reason", &event.reason)] {
        if let Some(value) = value {
            text.push_str(&format!("  {key}={}", print::plain(value)));
        }
    }
    text + &told(&event.detail)
}

fn told(detail: &Value) -> String {
    let pairs = detail.as_object().into_iter().flatten().map(|(key, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("  {key}={}", print::plain(&value))
    });
    pairs.collect()
}
