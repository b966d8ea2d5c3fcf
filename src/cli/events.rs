//! `systole events`: the history of a run, and what happens next.

use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc;

use super::context;
use super::exit::{Failure, code};
use super::print;
use super::settings::Settings;
use crate::backoff::Backoff;
use crate::db::Hint;
use crate::ids::RunId;
use crate::run::store;

/// Between two looks while following, if no hint comes before.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The run
    run_id: String,
    /// Go on and print what happens
    #[arg(short, long)]
    follow: bool,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Prints the events of a run in order.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let run_id: RunId = arguments.run_id.parse()?;
    let config = context::config(settings)?;
    context::block_on(async {
        let (mut link, mut hints) = context::listening_link(&config).await?;
        let mut last = 0;
        let mut backoff = Backoff::new(FOLLOW_INTERVAL, Duration::from_secs(5));
        loop {
            let events = match link.call(async |session| store::events(session, &run_id, last).await).await {
                Ok(events) => events,
                Err(error) if arguments.follow && error.is_transient() => {
                    tokio::time::sleep(backoff.next_delay()).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            backoff.reset();
            let more = events.len() == 1000;
            for event in events {
                last = event.id;
                if arguments.json {
                    print::json_line(&event);
                } else {
                    print::text(&line(&event));
                }
            }
            if more {
                continue;
            }
            if !arguments.follow {
                if last == 0 {
                    return Err(Failure::new(
                        code::USAGE,
                        format!("nothing has ever happened to a run \"{run_id}\" here"),
                    ));
                }
                return Ok(code::OK);
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
                () = hear_of(&run_id, &mut hints) => {}
            }
        }
    })
}

/// Resolves when something has happened to the run.
async fn hear_of(run_id: &RunId, hints: &mut mpsc::Receiver<Hint>) {
    while hints.recv().await.is_some_and(|hint| hint.name != run_id.as_str()) {}
}

fn line(event: &store::Event) -> String {
    let mut text = format!("{}  {:<14}", event.at.format("%Y-%m-%d %H:%M:%S%.3fZ"), event.kind);
    if let Some(executor) = &event.executor_id {
        text.push_str(&format!("  {executor}"));
    }
    for (key, value) in event.detail.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.push_str(&format!("  {key}={}", print::plain(&value)));
    }
    text
}
