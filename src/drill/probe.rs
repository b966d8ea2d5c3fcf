//! What the fleet runs in a drill: it writes down when it ran, and moves money.
//!
//! Each process has a file of its own, a word and a value a line: `T` a moment of CLOCK_BOOTTIME at which it ran, in
//! nanoseconds; `M` such a moment, and a transfer whose commit was answered before; `E` the end of its work. The clock is read before the line is
//! written, so that a line says the truth however long its writer was kept from writing it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::DrillError;
use super::ledger::Transfer;
use super::{MARK, SCHEMA};
use crate::db::{Link, Target};
use crate::elapsed::Instant;

/// Between two lines of a living probe; at most 20 ms with what writing takes.
const LINE_INTERVAL: Duration = Duration::from_millis(15);

/// Between two transfers.
const TRANSFER_INTERVAL: Duration = Duration::from_millis(120);

/// Of one transfer: whoever hangs in it longer keeps others waiting.
const TRANSFER_BOUND: Duration = Duration::from_secs(1);

/// A straggler ends by itself only if nobody else ends it.
const STRAGGLER_LIFE: Duration = Duration::from_secs(600);

/// What a probe is told by its environment.
pub(super) const LOGS: &str = "DRILL_LOGS";
pub(super) const URL: &str = "DRILL_URL";
pub(super) const WORK_MS: &str = "DRILL_WORK_MS";
pub(super) const IS_FENCED: &str = "DRILL_FENCED";
pub(super) const HAS_STRAGGLER: &str = "DRILL_STRAGGLER";

/// Which process of a tree it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    /// The command.
    Work,
    /// One that it leaves behind, in a session of its own.
    Straggle,
}

/// Works until its time is over.
pub(crate) async fn work_as_probe(role: Role) -> Result<(), DrillError> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let name = format!("{}.{}.{:?}", variable("SYSTOLE_RUN_ID"), variable("SYSTOLE_FENCE"), role).to_lowercase();
    // Two of one attempt are two files.
    let path = Path::new(&variable(LOGS)).join(format!("{name}.{}", Instant::now().as_nanos()));
    let failed = |error| DrillError::at(format!("open {}", path.display()))(error);
    let mut log = OpenOptions::new().append(true).create_new(true).open(&path).map_err(failed)?;
    let mut stamps = log.try_clone().map_err(failed)?;
    std::thread::spawn(move || {
        loop {
            say(&mut stamps, 'T', &Instant::now().as_nanos().to_string());
            std::thread::sleep(LINE_INTERVAL);
        }
    });
    if role == Role::Straggle {
        let _ = rustix::process::setsid();
        std::thread::sleep(STRAGGLER_LIFE);
        return Ok(());
    }
    if variable(HAS_STRAGGLER) == "1" {
        leave_a_straggler().map_err(DrillError::at("start a straggler"))?;
    }
    let target = variable(URL).parse::<Target>()?.in_schema(SCHEMA.parse().expect("it is a name"));
    let mut link = Link::new(target, TRANSFER_BOUND);
    let fence = variable("SYSTOLE_FENCE").parse().unwrap_or(0);
    let until = Instant::now() + Duration::from_millis(variable(WORK_MS).parse().unwrap_or(0));
    let is_fenced = variable(IS_FENCED) != "0";
    while Instant::now() < until {
        let transfer = Transfer::of(&variable("SYSTOLE_RUN_ID"), fence);
        // Whoever is away comes back, and behind a failover that has lost the claim it is taken up again. Or this process is ended.
        if let Settled::Moved = settle(&mut link, &transfer, is_fenced).await {
            say(&mut log, 'M', &format!("{} {}", Instant::now().as_nanos(), transfer.transfer_id));
        }
        tokio::time::sleep(TRANSFER_INTERVAL).await;
    }
    say(&mut log, 'E', &Instant::now().as_nanos().to_string());
    Ok(())
}

pub(super) enum Settled {
    Moved,
    /// fence() has refused it.
    Superseded,
    Unknown,
}

/// Moves money, and asks once more if there was no answer.
pub(super) async fn settle(link: &mut Link, transfer: &Transfer, is_fenced: bool) -> Settled {
    match link.call(async |session| transfer.carry_out(session, is_fenced).await).await {
        Ok(()) => return Settled::Moved,
        Err(error) if is_superseded(&error) => return Settled::Superseded,
        Err(_) => {}
    }
    match link.call(async |session| transfer.is_there(session).await).await {
        Ok(true) => Settled::Moved,
        _ => Settled::Unknown,
    }
}

fn is_superseded(error: &crate::db::DbError) -> bool {
    matches!(error, crate::db::DbError::Statement { code, .. } if code == "55000")
}

/// As a daemon would: its parent does not wait for it, and ends before it.
fn leave_a_straggler() -> std::io::Result<()> {
    let mut straggler = Command::new(std::env::current_exe()?);
    straggler.args(["drill-probe", "straggle"]).process_group(0);
    straggler.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    debug_assert!(std::env::var_os(MARK).is_some());
    straggler.spawn().map(drop)
}

/// One write, so that no line is ever cut by another process' death but by our own.
fn say(log: &mut File, word: char, value: &str) {
    let _ = log.write_all(format!("{word} {value}\n").as_bytes());
}
