//! A person at the keyboard: what is typed reaches the command as if systole were not there, and its supervisor knows.

use std::time::Duration;

use rustix::process::{Pid, Signal, getpgid, kill_process_group};

use super::SOON;
use super::levels::{Level, at_every_level};
use super::support::process::{lives, state};
use super::support::{Database, Systole, Terminal, eventually, throughout};
use super::trees::ends;

fn on_terminal(host: &Systole, level: Level, script: &str) -> Terminal {
    Terminal::start(&host.command(&["run", level.name(), "--", "sh", "-c", script]))
}

fn count(terminal: &Terminal, word: &str) -> usize {
    terminal.screen().lines().filter(|line| line.trim().trim_start_matches("^C") == word).count()
}

#[test]
fn ctrl_c_reaches_the_command_exactly_once() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        let script = "trap 'echo INT' INT; trap 'exit 130' USR1; echo ready; while :; do sleep 0.02; done";
        let mut terminal = on_terminal(&host, level, script);
        terminal.wait_for("ready");
        terminal.press("\x03");
        eventually("the signal", SOON, || (count(&terminal, "INT") == 1).then_some(()));
        // Whatever else systole would make of the key arrives before this.
        rustix::process::kill_process(terminal.pid(), Signal::USR1).expect("it lives");
        assert_eq!(terminal.code(SOON), Some(130), "{}", terminal.screen());
        assert_eq!(count(&terminal, "INT"), 1, "{}", terminal.screen());
        assert_eq!(ends(&database, level.name()), ["CANCELLED 130"]);
    });
}

#[test]
fn ctrl_c_ends_a_command_that_does_nothing_about_it() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        for _ in 0..4 {
            let mut terminal = on_terminal(&host, level, "echo ready; exec sleep 1000");
            terminal.wait_for("ready");
            terminal.press("\x03");
            assert_eq!(terminal.code(SOON), Some(130), "{}", terminal.screen());
        }
        assert_eq!(ends(&database, level.name()), ["CANCELLED 130"; 4]);
    });
}

#[test]
fn two_ctrl_c_halt_a_command_that_ignores_them() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database).with("SYSTOLE_STOP_GRACE", "300ms");
        let script = "trap 'echo INT' INT; trap 'echo TERM' TERM; echo ready; while :; do sleep 0.02; done";
        let mut terminal = on_terminal(&host, level, script);
        terminal.wait_for("ready");
        terminal.press("\x03");
        terminal.wait_for("INT");
        assert_eq!(count(&terminal, "TERM"), 0);
        terminal.press("\x03");
        terminal.wait_for("TERM");
        assert_eq!(terminal.code(SOON), Some(137), "{}", terminal.screen());
        assert_eq!(ends(&database, level.name()), ["CANCELLED 137"]);
    });
}

#[test]
fn ctrl_z_stops_command_and_supervisor_and_both_go_on_together() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        // A shell with job control is around it, as it would be: a terminal stops no group that nobody could continue.
        // And it starts nothing: a shell that is stopped in the middle of a vfork is in state D, and not T.
        let run = host.command(&["run", level.name(), "--", "sh", "-c", "echo ready; exec sleep 1000"]);
        let shell =
            super::support::process::through("sh", &["-c", "set -m; \"$@\"; echo stopped $?; read line", "sh"], &run);
        let terminal = Terminal::start(&shell);
        terminal.wait_for("ready");
        let (supervisor, command) = eventually("both processes in the database", SOON, || {
            let pids = database.sql("SELECT run_id, pid, child_pid FROM systole.executor_instances");
            let ours = pids.iter().find(|row| row[0] == level.name())?;
            let pid = |text: &str| Pid::from_raw(text.parse().ok()?);
            Some((pid(&ours[1])?, pid(&ours[2])?))
        });
        {
            terminal.press("\x1a");
            eventually("a stopped command", SOON, || (state(command) == Some('T')).then_some(()));
            eventually("a stopped supervisor", SOON, || (state(supervisor) == Some('T')).then_some(()));
            let group = getpgid(Some(supervisor)).expect("it lives");
            terminal.wait_for("stopped");
            kill_process_group(group, Signal::CONT).expect("it lives");
            eventually("a command that goes on", SOON, || matches!(state(command), Some('S' | 'R')).then_some(()));
            eventually("a supervisor that goes on", SOON, || {
                matches!(state(supervisor), Some('S' | 'R')).then_some(())
            });
            throughout("both go on", Duration::from_millis(200), || {
                state(command) != Some('T') && state(supervisor) != Some('T')
            });
        }
        assert_eq!(ends(&database, level.name()), ["RUNNING"]);
        kill_process_group(getpgid(Some(supervisor)).expect("it lives"), Signal::TERM).expect("it lives");
        eventually("the end of both", SOON, || {
            (!lives(supervisor.as_raw_pid()) && !lives(command.as_raw_pid())).then_some(())
        });
    });
}

#[test]
fn the_command_has_the_terminal() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        let script =
            "test -t 0 && test -t 1 && test -t 2 && echo tty; read line; echo got $line; : </dev/tty && echo own";
        let mut terminal = on_terminal(&host, level, script);
        terminal.wait_for("tty");
        terminal.press("words\n");
        terminal.wait_for("got words");
        terminal.wait_for("own");
        assert_eq!(terminal.code(SOON), Some(0), "{}", terminal.screen());
    });
}

#[test]
fn a_terminal_that_hangs_up_takes_the_command_along() {
    let database = Database::new();
    at_every_level(|level| {
        let host = level.host(&database);
        let mut terminal = on_terminal(&host, level, "echo ready; exec sleep 1000");
        terminal.wait_for("ready");
        terminal.hang_up();
        eventually("its end", SOON, || (ends(&database, level.name()) != ["RUNNING"]).then_some(()));
        assert_eq!(ends(&database, level.name()), ["CANCELLED 129"]);
    });
}
