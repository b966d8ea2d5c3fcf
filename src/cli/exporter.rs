//! `systole exporter`: the fleet's metrics, for Prometheus, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::context;
use super::exit::{Failure, code};
use super::settings::Settings;
use crate::fleet::{self, View};
use crate::http::routes::alive;
use crate::http::{Door, serve};
use crate::log::{self, Format, What};
use crate::metrics::Metrics;
use crate::supervise::Signals;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to answer
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<String>,
    /// The file with the token that is asked for there; needed beyond this machine
    #[arg(long, value_name = "FILE")]
    http_token_file: Option<String>,
}

/// Answers until it is asked to end. Starts also while the database is away; not where only a person can mend what is wrong.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let given = [("http.listen", &arguments.http), ("http.token_file", &arguments.http_token_file)];
    let given: BTreeMap<_, _> = given.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect();
    let config = context::config_with(settings, given)?;
    log::begin(config.log_format(Format::of_stderr())?, false);
    let http = config.http()?.ok_or_else(|| {
        Failure::new(code::USAGE, "an exporter has to answer somewhere: give it --http 127.0.0.1:7070".to_owned())
    })?;
    let door = Door::open(&http)?;
    context::block_on(async {
        let mut signals =
            Signals::catch().map_err(|error| Failure::new(code::BUG, format!("cannot catch signals: {error}")))?;
        let target = context::target(&config).await?;
        let view = Arc::new(View::new(target, config.timing()?.attempt_timeout));
        let seen = view.look().await;
        if let Some(error) = seen.error().filter(|error| !error.is_transient()) {
            return Err(error.clone().into());
        }
        let address = door.address();
        let router = alive().merge(fleet::routes::of_fleet(view.clone())).merge(fleet::routes::discovery(view));
        serve(door, router, Metrics::default())
            .map_err(|error| Failure::new(code::BUG, format!("cannot start a thread to answer: {error}")))?;
        log::say(What::Ready, format_args!("ready: http://{address}/metrics/fleet and http://{address}/sd"));
        while !matches!(signals.next().await, (SIGINT | SIGTERM, _)) {}
        Ok(code::OK)
    })
}
