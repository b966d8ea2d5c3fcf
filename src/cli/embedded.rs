//! `systole embedded`: the private PostgreSQL of this user on this machine.

use clap::{Args, Subcommand};

use super::exit::{Failure, code};
use super::print;
use crate::db::embedded::{Cluster, StopMode};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start it, making it first if there is none
    Start,
    /// End it; its data stays
    Stop,
    /// Show whether it runs, and where it is
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print its connection string, for psql and for programs
    Url {
        /// Over TCP on 127.0.0.1, with the password in it
        #[arg(long)]
        tcp: bool,
    },
}

/// Does what the action says.
pub(super) fn execute(arguments: &Arguments) -> Result<u8, Failure> {
    let cluster = Cluster::of_this_user()?;
    match arguments.action {
        Action::Start => print::text(&format!("running: {}", cluster.ensure_running()?.url())),
        Action::Stop => {
            cluster.stop(StopMode::Fast)?;
            print::text("stopped");
        }
        Action::Status { json } => {
            let status = cluster.status()?;
            let url = status.endpoint.map(|endpoint| endpoint.url());
            if json {
                print::json(&serde_json::json!({
                    "running": status.running.is_some(), "pid": status.running, "dir": status.dir, "url": url,
                    "version": status.version,
                }));
            } else {
                let state = match (status.running, status.version) {
                    (Some(pid), version) => format!("running as process {pid}, PostgreSQL {}", print::or_dash(version)),
                    (None, Some(version)) => format!("not running, PostgreSQL {version}"),
                    (None, None) => "not made yet; systole embedded start makes it".to_owned(),
                };
                print::text(&format!("{state}\nfolder: {}\nurl: {}", status.dir.display(), print::or_dash(url)));
            }
        }
        Action::Url { tcp } => {
            let endpoint = cluster.ensure_running()?;
            print::text(&if tcp { endpoint.tcp_url_with_password()? } else { endpoint.url() });
        }
    }
    Ok(code::OK)
}
