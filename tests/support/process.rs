//! Real processes of the `systole` program, with a state folder of their own, and what they print.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Cgroup, Database, eventually};

/// A host's worth of configuration: a database, a state folder, fast but safe timing.
#[derive(Debug, Clone)]
pub struct Systole {
    pub state: Arc<tempfile::TempDir>,
    environment: Vec<(String, String)>,
    program: PathBuf,
    /// What the program is started by: a program and its arguments, or nothing.
    launcher: Vec<String>,
    cgroup: Option<Arc<Cgroup>>,
}

impl Systole {
    /// Against this database, with default timing.
    pub fn on(database: &Database) -> Systole {
        let state = Arc::new(tempfile::Builder::new().prefix("sy").tempdir().expect("a folder"));
        let environment = vec![
            ("SYSTOLE_DATABASE_URL".to_owned(), database.url.clone()),
            // Many nodes of many tests share this machine's ports.
            ("SYSTOLE_HTTP".to_owned(), "off".to_owned()),
            ("SYSTOLE_STATE_DIR".to_owned(), state.path().join("state").display().to_string()),
        ];
        let program = PathBuf::from(env!("CARGO_BIN_EXE_systole"));
        Systole { state, environment, program, launcher: Vec::new(), cgroup: None }
    }

    /// Started by another program, which becomes it: `launcher… systole …`. The last one that is given is the innermost.
    pub fn through(mut self, launcher: &[&str]) -> Systole {
        self.launcher.extend(launcher.iter().map(|&part| part.to_owned()));
        self
    }

    /// As another user without any rights, who owns the state folder and can reach the program. To be told before
    /// anything has been started, and the server is reached over TCP. Takes root.
    pub fn by_user(mut self, uid: u32) -> Systole {
        // The folder of the build may be closed to others. Copied by a process of its own: a descriptor of ours on which it is
        // written, inherited by somebody else's fork, would keep it from being executed.
        self.program = self.state.path().join("program");
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_systole")).arg(&self.program).status();
        assert!(copied.expect("cp is everywhere").success());
        std::os::unix::fs::chown(self.state.path(), Some(uid), Some(uid)).expect("we are root");
        let home = self.state.path().display().to_string();
        let uid = uid.to_string();
        self.with("HOME", &home).with("XDG_CONFIG_HOME", &home).through(&[
            "setpriv",
            "--reuid",
            &uid,
            "--regid",
            &uid,
            "--clear-groups",
        ])
    }

    /// In this cgroup, which lives as long as this. To be told before the user: moving there takes rights.
    pub fn within(mut self, cgroup: Cgroup) -> Systole {
        let path = cgroup.path().display().to_string();
        self.cgroup = Some(Arc::new(cgroup));
        self.through(&["sh", "-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\"", &path])
    }

    /// With a variable more, or another value.
    pub fn with(mut self, name: &str, value: &str) -> Systole {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// By another build of the program.
    pub fn program(self, program: &Path) -> Systole {
        Systole { program: program.to_owned(), ..self }
    }

    /// A tenth of the default timing and some: frozen after 1.5 s, stale after 4 s.
    pub fn fast(self) -> Systole {
        self.with("SYSTOLE_HEARTBEAT_INTERVAL", "400ms")
            .with("SYSTOLE_ATTEMPT_TIMEOUT", "500ms")
            .with("SYSTOLE_FENCE_AFTER", "1500ms")
            .with("SYSTOLE_KILL_GRACE", "1s")
            .with("SYSTOLE_STALE_AFTER", "4s")
    }

    /// Where its instances' files are.
    pub fn instances(&self) -> PathBuf {
        self.state.path().join("state/instances")
    }

    /// The program with these arguments, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // The suite must not depend on what its user has configured.
        for (name, _) in std::env::vars() {
            if name.starts_with("SYSTOLE_") || name.starts_with("PG") || name == "DATABASE_URL" {
                command.env_remove(name);
            }
        }
        // For those who read it: us.
        command.env("SYSTOLE_LOG_FORMAT", "text");
        command.args(arguments).envs(self.environment.clone()).stdin(Stdio::null());
        command.current_dir(self.state.path());
        let Some((outer, before)) = self.launcher.split_first() else { return command };
        through(outer, &before.iter().map(String::as_str).collect::<Vec<_>>(), &command)
    }

    /// What the doctor says of containment here.
    #[track_caller]
    pub fn containment(&self) -> serde_json::Value {
        let output = self.output(&["doctor", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let checks = report["checks"].as_array().expect("checks");
        checks.iter().find(|check| check["name"] == "containment").expect("it is checked").clone()
    }

    /// The cgroup in which it is started, if it was told one.
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_deref()
    }

    /// Runs it to its end.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("systole starts")
    }

    /// Starts it, and collects what it prints.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }

    /// Starts `run` and waits until its command has printed `ready`.
    pub fn start_run(&self, run_id: &str, script: &str) -> Running {
        let script = format!("echo ready; {script}");
        let running = self.start(&["run", run_id, "--", "sh", "-c", &script]);
        running.wait_for_output("ready");
        running
    }
}

/// How long what was printed may stay in a pipe on a busy machine.
const READING_PATIENCE: Duration = Duration::from_millis(500);

/// A started program. Killed with its guard's help when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    output: Arc<Mutex<String>>,
    errors: Arc<Mutex<String>>,
    reading: [JoinHandle<()>; 2],
}

impl Running {
    pub fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("systole starts");
        let (output, reading_output) = collect(child.stdout.take().expect("piped"));
        let (errors, reading_errors) = collect(child.stderr.take().expect("piped"));
        Running { child, output, errors, reading: [reading_output, reading_errors] }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it has not been waited for");
    }

    pub fn output(&self) -> String {
        self.output.lock().expect("no panic").clone()
    }

    pub fn errors(&self) -> String {
        self.errors.lock().expect("no panic").clone()
    }

    #[track_caller]
    pub fn wait_for_output(&self, text: &str) {
        let started = Instant::now();
        while !self.output().contains(text) {
            let limit = Duration::from_secs(20);
            assert!(started.elapsed() < limit, "{text:?} was not printed, but: {}{}", self.output(), self.errors());
            std::thread::sleep(Duration::from_millis(5)); // between two looks at a condition
        }
    }

    #[track_caller]
    pub fn wait_for_errors(&self, text: &str, limit: Duration) {
        eventually(format_args!("{text:?} in the errors"), limit, || self.errors().contains(text).then_some(()));
    }

    /// The end, within `limit`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let errors = self.errors.clone();
        let child = &mut self.child;
        let status = eventually(format_args!("its end; errors: {}", errors.lock().expect("no panic")), limit, || {
            child.try_wait().expect("it is ours")
        });
        // Its last words may still lie in the pipes, which somebody else may hold open.
        let ended = Instant::now();
        while self.reading.iter().any(|reading| !reading.is_finished()) && ended.elapsed() < READING_PATIENCE {
            std::thread::sleep(Duration::from_millis(1)); // between two looks at a condition
        }
        status
    }

    /// The exit code, within `limit`; 128 + n for signal n.
    #[track_caller]
    pub fn code(&mut self, limit: Duration) -> i32 {
        let status = self.wait(limit);
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its guard sees the end of the socket, and kills the tree.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program whose pipes the test has for itself. Killed when dropped, as [`Running`] is.
#[derive(Debug)]
pub struct Piped(pub Child);

impl Piped {
    pub fn start(command: &mut Command) -> Piped {
        Piped(command.stderr(Stdio::null()).spawn().expect("it starts"))
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let text = Arc::new(Mutex::new(String::new()));
    let into = text.clone();
    let reading = std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut chunk) {
            into.lock().expect("no panic").push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
    });
    (text, reading)
}

/// Whether a process of this number lives, and is no zombie.
pub fn lives(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !matches!(stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]), Some(b'Z' | b'X') | None)
}

/// All living processes whose environment holds `SYSTOLE_TEST_TREE=mark`: whatever they did to hide their parents.
pub fn marked(mark: &str) -> Vec<i32> {
    let needle = format!("SYSTOLE_TEST_TREE={mark}");
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        environment.split(|byte| *byte == 0).any(|variable| variable == needle.as_bytes()).then_some(pid)
    });
    pids.filter(|pid| lives(*pid)).collect()
}

/// The state letter of a process, as ps shows it; `None` if there is none.
pub fn state(pid: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The children of a process, whichever of its threads they belong to.
pub fn children(pid: Pid) -> Vec<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())).into_iter().flatten().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let pids = lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    pids.filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// The guard of a supervisor.
#[track_caller]
pub fn guard_of(supervisor: Pid) -> Pid {
    eventually("a guard", Duration::from_secs(5), || {
        children(supervisor).into_iter().find(|child| {
            let name = std::fs::read_to_string(format!("/proc/{}/comm", child.as_raw_pid())).unwrap_or_default();
            name.trim() == "deadman"
        })
    })
}

/// `inner`, started by another program: `outer arguments… inner…`, with the environment and folder of `inner`.
pub fn through(outer: &str, arguments: &[&str], inner: &Command) -> Command {
    let mut command = Command::new(outer);
    command.args(arguments).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(folder) = inner.get_current_dir() {
        command.current_dir(folder);
    }
    command.stdin(Stdio::null());
    command
}
