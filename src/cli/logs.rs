//! `systole logs`: what an attempt has written. All of it where its file is; from anywhere else the newest, out of PostgreSQL.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::context;
use super::exit::{Failure, code};
use super::settings::Settings;
use crate::config::Config;
use crate::db::{DbError, Link};
use crate::ids::{InstanceId, RunId};
use crate::output::store::{self, Attempt, Kept};
use crate::output::{self, Follower, Found, Plain, TAIL_MAX};
use crate::run::store as runs;

/// Between two looks at a file, while following it.
const FILE_INTERVAL: Duration = Duration::from_millis(200);

/// Between two looks at what the database has: it gets something new every ten seconds.
const TAIL_INTERVAL: Duration = Duration::from_secs(2);

/// The end of an attempt is told before its last words are put: for so long, in seconds, they are worth waiting for.
const LAST_WORDS_PATIENCE: f64 = 2.5;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The run
    run_id: String,
    /// Of this attempt, instead of the newest
    #[arg(long, value_name = "N")]
    attempt: Option<i32>,
    /// Go on and print what is written, until the attempt has ended
    #[arg(short, long)]
    follow: bool,
    /// Without moment and stream: what the command wrote, as it wrote it
    #[arg(long)]
    no_timestamps: bool,
}

/// Prints what an attempt has written.
pub(super) fn execute(arguments: &Arguments, settings: &Settings) -> Result<u8, Failure> {
    let run_id: RunId = arguments.run_id.parse()?;
    let config = context::config(settings)?;
    let mut printer = Printer { plain: arguments.no_timestamps.then(Plain::new), has_printed: false };
    let printed = context::block_on(async {
        let mut log = match Log::find(&config, &run_id, arguments).await? {
            Ok(log) => log,
            // Nobody can be asked, but what is here can be read.
            Err((mut follower, why)) if !arguments.follow => {
                eprintln!("systole: {why}");
                return print_all(&mut follower, &mut printer);
            }
            Err((_, why)) => return Err(Failure::new(code::UNREACHABLE, why)),
        };
        match Follower::open(log.path.clone()) {
            Ok(follower) => log.print_file(follower, arguments.follow, &mut printer).await,
            Err(_) => log.print_tail(arguments.follow, &mut printer).await,
        }
    });
    match printed {
        // `| head` has read enough.
        Err(Failure { code: code::OK, .. }) => Ok(code::OK),
        printed => printed.map(|()| code::OK),
    }
}

/// One attempt's log.
struct Log {
    link: Link,
    run_id: RunId,
    path: PathBuf,
    attempt: Attempt,
}

impl Log {
    /// The attempt that is meant; or, where the database does not know, the newest file that is here, and why. Whoever follows
    /// may do so from before the first attempt on.
    async fn find(
        config: &Config,
        run_id: &RunId,
        Arguments { attempt: asked, follow, .. }: &Arguments,
    ) -> Result<Result<Log, (Follower, String)>, Failure> {
        let runs_dir = config.runs_dir();
        let mut link = Link::new(context::target(config).await?, config.timing()?.attempt_timeout);
        let here = || {
            let attempt = asked.or_else(|| output::newest_log(&runs_dir, run_id))?;
            Some((attempt, Follower::open(output::log_of(&runs_dir, run_id, attempt)).ok()?))
        };
        let mut is_told = false;
        loop {
            let found = async {
                link.hello().await?;
                link.call(async |session| {
                    let attempt = store::find(session, run_id, *asked).await?;
                    let run = if attempt.is_none() { runs::find(session, run_id).await? } else { None };
                    Ok((attempt, run.is_some_and(|run| run.status == "QUEUED")))
                })
                .await
            };
            match (found.await, asked) {
                (Ok((Some(attempt), _)), _) => {
                    let path = output::log_of(&runs_dir, run_id, attempt.attempt);
                    return Ok(Ok(Log { link, run_id: run_id.clone(), path, attempt }));
                }
                (Ok((None, true)), None) if *follow => {
                    if !std::mem::replace(&mut is_told, true) {
                        eprintln!("systole: run \"{run_id}\" is queued, and not attempted yet");
                    }
                    tokio::time::sleep(TAIL_INTERVAL / 4).await;
                }
                (Ok(_), _) => {
                    if let Some((attempt, follower)) = here() {
                        let why = format!("PostgreSQL does not know attempt {attempt} any more; this is its file");
                        return Ok(Err((follower, why)));
                    }
                    let message = match asked {
                        Some(attempt) => {
                            format!("run \"{run_id}\" has no attempt {attempt}: see systole status {run_id}")
                        }
                        None => format!("run \"{run_id}\" was never attempted here"),
                    };
                    return Err(Failure::new(code::USAGE, message));
                }
                (Err(error), _) => {
                    let Some((attempt, follower)) = here().filter(|_| error.is_transient()) else {
                        return Err(error.into());
                    };
                    let why = format!("{error}. This is the newest attempt on this host, {attempt}");
                    return Ok(Err((follower, why)));
                }
            }
        }
    }

    /// Looks again how the attempt is. What goes wrong for a moment is no news.
    async fn refresh(&mut self) -> Result<(), DbError> {
        let (run_id, attempt) = (&self.run_id, self.attempt.attempt);
        match self.link.call(async |session| store::find(session, run_id, Some(attempt)).await).await {
            Ok(Some(attempt)) => self.attempt = attempt,
            // Forgotten meanwhile.
            Ok(None) => self.attempt.is_running = false,
            Err(error) if error.is_transient() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether more may come: it runs, or has just ended and its last words are not there.
    fn awaits_more(&self) -> bool {
        let has_last_words = self.attempt.kept.as_ref().is_some_and(|kept| kept.is_last);
        let just_ended = self.attempt.ended_seconds.is_some_and(|seconds| seconds < LAST_WORDS_PATIENCE);
        self.attempt.is_running || just_ended && !has_last_words
    }

    async fn print_file(&mut self, mut follower: Follower, follow: bool, printer: &mut Printer) -> Result<(), Failure> {
        let mut looked = tokio::time::Instant::now();
        loop {
            // Asked before reading: what was written until then is read below.
            let goes_on = follow && (self.attempt.is_running || printer.has_printed && self.awaits_more());
            print_all(&mut follower, printer)?;
            if !goes_on {
                break;
            }
            tokio::time::sleep(FILE_INTERVAL).await;
            if looked.elapsed() >= FILE_INTERVAL * 4 || !self.attempt.is_running {
                looked = tokio::time::Instant::now();
                self.refresh().await?;
            }
        }
        if let Some(Kept { bytes_lost: lost @ 1.., .. }) = self.attempt.kept {
            eprintln!("systole: {lost} bytes are missing: the disk of host {} did not take them", self.attempt.host);
        }
        Ok(())
    }

    async fn print_tail(&mut self, follow: bool, printer: &mut Printer) -> Result<(), Failure> {
        let mut known: Option<Vec<u8>> = None;
        let mut known_since = None;
        loop {
            let awaits_more = self.awaits_more();
            if let Some(kept) = &self.attempt.kept
                && known_since != Some(kept.updated_at)
            {
                let tail = tail(&mut self.link, self.attempt.instance_id, &self.run_id).await?;
                known_since = Some(kept.updated_at);
                let begins = match &known {
                    None => {
                        eprintln!("systole: {}", self.whereabouts(kept, tail.len()));
                        // The first line is hardly whole.
                        let is_cut = kept.bytes_total > tail.len() as i64;
                        if is_cut { tail.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1) } else { 0 }
                    }
                    Some(known) => output::continued_at(known, &tail).unwrap_or_else(|| {
                        eprintln!("systole: output is missing here: there was more than PostgreSQL keeps");
                        0
                    }),
                };
                printer.print(&tail[begins..])?;
                known = Some(tail);
            }
            // Without following, only the last words are waited for.
            if !awaits_more || self.attempt.is_running && !follow {
                break;
            }
            let interval = if self.attempt.is_running { TAIL_INTERVAL } else { FILE_INTERVAL };
            tokio::time::sleep(interval).await;
            self.refresh().await?;
            if known.is_none()
                && let Ok(follower) = Follower::open(self.path.clone())
            {
                // It has only just begun.
                return Box::pin(self.print_file(follower, follow, printer)).await;
            }
        }
        if known.is_none() {
            let Attempt { attempt, executor_id, is_running, .. } = &self.attempt;
            let so_far = if *is_running {
                " yet: it comes every 10 s"
            } else {
                ". What systole run starts keeps its own output"
            };
            eprintln!(
                "systole: nothing that attempt {attempt} (executor {executor_id}) has written is in PostgreSQL{so_far}"
            );
        }
        Ok(())
    }

    fn whereabouts(&self, kept: &Kept, length: usize) -> String {
        let Attempt { attempt, host, .. } = &self.attempt;
        let how_much = if kept.bytes_total > length as i64 {
            format!("the newest {} kB of {} bytes", TAIL_MAX / 1024, kept.bytes_total)
        } else {
            "all".to_owned()
        };
        let age = kept.age_seconds.max(0.0);
        format!("{how_much} of attempt {attempt}, as of {age:.0} s ago; its file is on host {host} at {}", kept.path)
    }
}

async fn tail(link: &mut Link, instance_id: InstanceId, run_id: &RunId) -> Result<Vec<u8>, Failure> {
    link.call(async |session| store::tail(session, instance_id).await).await.map_err(|error| match error {
        DbError::Denied { .. } => Failure::new(
            code::CONFIG,
            format!(
                "what run \"{run_id}\" has written may hold secrets, and this role may not read it. It takes systole_worker, \
                 or: GRANT SELECT ON systole.run_output TO this role"
            ),
        ),
        error => error.into(),
    })
}

fn print_all(follower: &mut Follower, printer: &mut Printer) -> Result<(), Failure> {
    loop {
        match follower.look().map_err(|error| Failure::new(code::USAGE, format!("the log cannot be read: {error}")))? {
            Found::Bytes(bytes) => printer.print(&bytes)?,
            Found::Gap => eprintln!("systole: output is missing here: there was more than is kept"),
            Found::Nothing => return Ok(()),
        }
    }
}

struct Printer {
    plain: Option<Plain>,
    has_printed: bool,
}

impl Printer {
    fn print(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.has_printed = true;
        let stripped = self.plain.as_mut().map(|plain| plain.strip(bytes));
        let mut out = io::stdout().lock();
        let printed = out.write_all(stripped.as_deref().unwrap_or(bytes)).and_then(|()| out.flush());
        // Whoever read it has gone away.
        printed.map_err(|_| Failure::new(code::OK, String::new()))
    }
}
