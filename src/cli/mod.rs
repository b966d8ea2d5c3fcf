//! What a person types: one file per command.

mod anchor;
mod audit;
mod baseline;
mod check;
mod context;
mod demo;
mod doctor;
#[cfg(target_os = "linux")]
mod drill;
mod embedded;
mod ending;
mod events;
mod exit;
mod exporter;
mod logs;
mod migrate;
mod node;
mod paperwork;
mod print;
mod progress;
mod run;
mod settings;
mod status;
mod steer;
mod stop;
mod submit;
mod supervise;
mod takeover;
mod workspace;

use clap::{CommandFactory, Parser, Subcommand};

use crate::log::{self, What};
use exit::{Failure, code};
use settings::Settings;

/// At most one executor per run, across machines.
#[derive(Debug, Parser)]
#[command(name = "systole", version, max_term_width = 110, disable_help_subcommand = true)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command as the only executor of RUN_ID in the fleet
    Run(run::Arguments),
    /// Be a node of the fleet: claim queued runs, work on them, recover what died
    Node(Box<node::Arguments>),
    /// Run many runs of one repository in parallel, each in a worktree of its own, on one machine or several
    Supervise(Box<supervise::Arguments>),
    /// Show the nodes
    Nodes(node::NodesArguments),
    /// Ask a node to start nothing more, and to end when it is done
    Drain(node::DrainArguments),
    /// Serve the metrics of the whole fleet to Prometheus, out of the database
    Exporter(exporter::Arguments),
    /// Acknowledge the crashes of a node or host, and remove its nodes that are dead; or that a run was given up
    Forget(node::ForgetArguments),
    /// Print the output of a run: all of it on its host, the newest from anywhere
    Logs(logs::Arguments),
    /// Examine an anchor, which allows parallel work on one repository
    Anchor(anchor::Arguments),
    /// Keep how the tests of a commit fared, and say what has become worse since
    Baseline(baseline::Arguments),
    /// Put runs into the queue
    Submit(Box<submit::Arguments>),
    /// Ask, before launching: who runs it, and what is to be done?
    Check(check::Arguments),
    /// Show a run with its attempts, or all runs
    Status(status::Arguments),
    /// Show the executors that hold a run now
    Ps(status::PsArguments),
    /// Show the history of a run
    Events(events::Arguments),
    /// Prove from the history that no run ever had two executors at once
    Audit(audit::Arguments),
    /// Ask the executor of a run to stop it
    Stop(stop::Arguments),
    /// Take a run, or all of a batch, out of the queue, or ask its executor to stop it
    Cancel(steer::CancelArguments),
    /// Queue a run again that has ended
    Retry(steer::RunArguments),
    /// Have a queued run stopped, and started again
    Restart(steer::RestartArguments),
    /// Forget runs that ended long ago (nodes do it by themselves)
    Prune(steer::PruneArguments),
    /// Start nothing more of a queue
    Pause(steer::QueueArguments),
    /// Let a paused queue go on
    Resume(steer::QueueArguments),
    /// Show the queues, or limit one
    Queues(steer::QueuesArguments),
    /// Take a run away from the executor that holds it, by force
    Takeover(takeover::Arguments),
    /// Look at the worktrees of this host, clean them up, or show what a run has changed
    Workspace(workspace::Arguments),
    /// Tell how far the work is (from inside a run)
    Progress(progress::Arguments),
    /// Create or update the schema in the database
    Migrate(migrate::Arguments),
    /// Examine database, host and configuration, and say what to mend
    Doctor(doctor::Arguments),
    /// Watch three nodes share twenty runs, and one of them die
    Demo(demo::Arguments),
    /// Break a throw-away fleet on purpose, and prove that nothing overlapped and nothing was lost
    #[cfg(target_os = "linux")]
    Drill(drill::Arguments),
    /// What the fleet of a drill runs
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    DrillProbe(drill::ProbeArguments),
    /// A node of a drill
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    DrillNode,
    /// Manage the private PostgreSQL of this user on this machine
    Embedded(embedded::Arguments),
    /// Print the completion script of a shell
    Completions(paperwork::CompletionsArguments),
    /// Write the man pages into a folder
    Man(paperwork::ManArguments),
    /// Print docs/metrics.md
    #[command(hide = true)]
    Metrics,
    /// Explain a command, or the exit codes
    Help {
        /// A command, or exit-codes
        topic: Option<String>,
    },
}

/// Parses the command line, runs the command, and returns the exit code.
pub fn main() -> u8 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { code::USAGE } else { code::OK };
        }
    };
    match dispatch(arguments) {
        Ok(code) => code,
        Err(Failure { code, message }) => {
            if log::is_for_machines() {
                log::say(What::Failed, message);
            } else {
                print::note(&message);
            }
            code
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<u8, Failure> {
    let settings = arguments.settings;
    match arguments.command {
        Command::Run(arguments) => run::execute(arguments, &settings),
        Command::Node(arguments) => node::execute(&arguments, &settings),
        Command::Supervise(arguments) => supervise::execute(&arguments, &settings),
        Command::Nodes(arguments) => node::nodes(&arguments, &settings),
        Command::Drain(arguments) => node::drain(&arguments, &settings),
        Command::Exporter(arguments) => exporter::execute(&arguments, &settings),
        Command::Forget(arguments) => node::forget(&arguments, &settings),
        Command::Logs(arguments) => logs::execute(&arguments, &settings),
        Command::Anchor(arguments) => anchor::execute(&arguments),
        Command::Baseline(arguments) => baseline::execute(&arguments, &settings),
        Command::Submit(arguments) => submit::execute(&arguments, &settings),
        Command::Cancel(arguments) => steer::cancel(&arguments, &settings),
        Command::Retry(arguments) => steer::retry(&arguments, &settings),
        Command::Restart(arguments) => steer::restart(&arguments, &settings),
        Command::Prune(arguments) => steer::prune(&arguments, &settings),
        Command::Pause(arguments) => steer::pause(&arguments, &settings),
        Command::Resume(arguments) => steer::resume(&arguments, &settings),
        Command::Queues(arguments) => steer::queues(&arguments, &settings),
        Command::Check(arguments) => check::execute(&arguments, &settings),
        Command::Status(arguments) => status::execute(&arguments, &settings),
        Command::Ps(arguments) => status::ps(&arguments, &settings),
        Command::Events(arguments) => events::execute(&arguments, &settings),
        Command::Audit(arguments) => audit::execute(&arguments, &settings),
        Command::Stop(arguments) => stop::execute(&arguments, &settings),
        Command::Takeover(arguments) => takeover::execute(&arguments, &settings),
        Command::Workspace(arguments) => workspace::execute(&arguments, &settings),
        Command::Progress(arguments) => progress::execute(&arguments),
        Command::Migrate(arguments) => migrate::execute(arguments, &settings),
        Command::Doctor(arguments) => doctor::execute(&arguments, &settings),
        Command::Demo(arguments) => demo::execute(&arguments),
        #[cfg(target_os = "linux")]
        Command::Drill(arguments) => drill::execute(&arguments, &settings),
        #[cfg(target_os = "linux")]
        Command::DrillProbe(arguments) => drill::probe(&arguments),
        #[cfg(target_os = "linux")]
        Command::DrillNode => drill::node(),
        Command::Embedded(arguments) => embedded::execute(&arguments),
        Command::Completions(arguments) => paperwork::completions(&arguments, Arguments::command()),
        Command::Man(arguments) => paperwork::man(&arguments, Arguments::command()),
        Command::Metrics => {
            print::text(&crate::metrics::document());
            Ok(code::OK)
        }
        Command::Help { topic } => help(topic.as_deref()),
    }
}

fn help(topic: Option<&str>) -> Result<u8, Failure> {
    let mut root = Arguments::command();
    match topic {
        None => print::text(&root.render_help().to_string()),
        Some("exit-codes") => print::text(exit::EXPLAINED),
        Some(name) => match root.find_subcommand_mut(name) {
            Some(command) => print::text(&command.render_long_help().to_string()),
            None => {
                return Err(Failure::new(
                    code::USAGE,
                    format!("there is no help on {name:?}; try systole help, or systole help exit-codes"),
                ));
            }
        },
    }
    Ok(code::OK)
}
