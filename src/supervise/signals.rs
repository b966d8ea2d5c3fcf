//! Signals to the supervisor, and where they came from: what the keyboard sends has reached the command already.

use std::io;

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;
use tokio::sync::mpsc;

/// More than anybody types.
const SIGNALS_WAITING_MAX: usize = 64;

/// Who sent a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The terminal, to everybody in the foreground: the command has it too.
    Keyboard,
    /// Another process, to us alone.
    Process,
    /// Our own node, which gives its runs back: no signal at all.
    Halt,
}

/// All signals that a supervisor handles, as they come.
#[derive(Debug)]
pub(crate) struct Signals {
    incoming: mpsc::Receiver<(i32, Origin)>,
}

impl Signals {
    /// Takes the signals over. Those that were ignored when we were started (`nohup`, `&` in a script) stay ignored, for us
    /// and for the command.
    pub(crate) fn catch() -> io::Result<Signals> {
        let ignored = ignored_signals();
        let ours = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT];
        let caught = ours.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let mut signals = SignalsInfo::<WithOrigin>::new(caught)?;
        let (sender, incoming) = mpsc::channel(SIGNALS_WAITING_MAX);
        std::thread::Builder::new().name("systole-signals".to_owned()).spawn(move || {
            for origin in &mut signals {
                // A terminal that hangs up tells the leader of its session alone, and that may be us.
                let typed = matches!(origin.cause, Cause::Kernel) && origin.signal != SIGHUP;
                let from = if typed { Origin::Keyboard } else { Origin::Process };
                // Whoever sends more than we can take has made himself clear.
                let _ = sender.try_send((origin.signal, from));
            }
        })?;
        Ok(Signals { incoming })
    }

    /// Those that somebody else hands on: a node has one process for many commands.
    pub(crate) fn from(incoming: mpsc::Receiver<(i32, Origin)>) -> Signals {
        Signals { incoming }
    }

    /// The next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) -> (i32, Origin) {
        match self.incoming.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

/// The mask of ignored signals; empty where the system does not say.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
