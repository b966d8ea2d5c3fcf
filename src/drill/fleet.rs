//! The nodes: real processes of this program, one on each host.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};

use super::error::DrillError;
use super::host::Host;
use super::processes::{guards, is_at_work, marked};
use super::server::Server;
use super::{HOSTS, SCHEMA, SLOTS, TIMING};

/// How long nodes may take to begin, and to end when nothing runs any more.
const BEGIN_PATIENCE: Duration = Duration::from_secs(30);
const END_PATIENCE: Duration = Duration::from_secs(15);

/// A host and its node.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) host: Host,
    folder: PathBuf,
    pub(super) log: PathBuf,
    node: Option<Child>,
    /// Somebody has stopped it, or cut it off.
    pub(super) is_struck: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) places: Vec<Place>,
    url: String,
    mark: String,
}

impl Fleet {
    /// Starts hosts and nodes. What they print goes into `logs`.
    pub(super) fn start(server: &Server, folder: &Path, logs: &Path, mark: &str) -> Result<Fleet, DrillError> {
        let mut fleet = Fleet { places: Vec::new(), url: server.url.clone(), mark: mark.to_owned() };
        for number in 0..HOSTS {
            let name = format!("drill-{}", number + 1);
            let host = Host::start(&name, server.network().is_some())?;
            let folder = folder.join(&name);
            std::fs::create_dir(&folder).map_err(DrillError::at(format!("make {}", folder.display())))?;
            if let Some(network) = server.network() {
                network.plug_in(&host, number)?;
                host.mount_disk(&folder)?;
            }
            let log = logs.join(format!("{name}.log"));
            fleet.places.push(Place { host, folder, log, node: None, is_struck: false });
            fleet.begin(number)?;
        }
        fleet.wait_until_ready()?;
        Ok(fleet)
    }

    /// Starts the node of a host, if none runs there.
    pub(super) fn begin(&mut self, number: usize) -> Result<(), DrillError> {
        let place = &mut self.places[number];
        if place.node.is_some() {
            return Ok(());
        }
        let failed = || DrillError::at(format!("start the node of {}", place.host.name));
        let log = OpenOptions::new().create(true).append(true).open(&place.log).map_err(failed())?;
        let mut command = Command::new(std::env::current_exe().map_err(failed())?);
        // Nothing of what its user has configured.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("SYSTOLE_") || name.starts_with("PG") || name == "DATABASE_URL" {
                command.env_remove(name.as_ref());
            }
        }
        let ms = |span: Duration| format!("{}ms", span.as_millis());
        command
            .arg("drill-node")
            .current_dir(place.log.parent().unwrap_or(Path::new("/")))
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env("SYSTOLE_DATABASE_URL", &self.url)
            .env("SYSTOLE_SCHEMA", SCHEMA)
            .env("SYSTOLE_HOST", &place.host.name)
            .env("SYSTOLE_STATE_DIR", place.folder.join("state"))
            .env("SYSTOLE_RUNS_DIR", place.folder.join("runs"))
            .env("SYSTOLE_ALLOW_SUBMITTED_COMMANDS", "true")
            .env("SYSTOLE_HTTP", "off")
            .env("SYSTOLE_LOG_FORMAT", "text")
            .env("SYSTOLE_SLOTS", SLOTS.to_string())
            .env("SYSTOLE_POLL_INTERVAL", "1s")
            .env("SYSTOLE_HEARTBEAT_INTERVAL", ms(TIMING.heartbeat_interval))
            .env("SYSTOLE_ATTEMPT_TIMEOUT", ms(TIMING.attempt_timeout))
            .env("SYSTOLE_FENCE_AFTER", ms(TIMING.fence_after))
            .env("SYSTOLE_KILL_GRACE", ms(TIMING.kill_grace))
            .env("SYSTOLE_STALE_AFTER", ms(TIMING.stale_after))
            // Of its own, so that a key on our terminal is for us.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // Born by the host's thread, so that it is in the host's network, and ends with the thread.
        place.node = Some(place.host.run(move || command.spawn()).map_err(failed())?);
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<(), DrillError> {
        let begun = Instant::now();
        for number in 0..self.places.len() {
            let Place { host, log, .. } = &self.places[number];
            let (name, log) = (host.name.clone(), log.clone());
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            while !said().contains("ready: ") {
                if begun.elapsed() > BEGIN_PATIENCE {
                    return Err(DrillError::Fleet(format!("node {name} is not ready, and says: {}", said())));
                }
                self.look_after()?;
                std::thread::sleep(Duration::from_millis(50)); // between two looks, and two starts
            }
        }
        Ok(())
    }

    /// Starts what has ended by itself, as an init system would: a node that finds no database at its start gives up.
    pub(super) fn look_after(&mut self) -> Result<(), DrillError> {
        for number in 0..self.places.len() {
            let place = &mut self.places[number];
            if place.node.as_mut().is_some_and(|node| node.try_wait().is_ok_and(|end| end.is_some())) {
                place.node = None;
                self.begin(number)?;
            }
        }
        Ok(())
    }

    /// How the trees of the first node are contained, in its own words.
    pub(super) fn has_pid_namespaces(&self) -> bool {
        let said = self.places.first().map(|place| std::fs::read_to_string(&place.log).unwrap_or_default());
        said.is_some_and(|said| said.lines().any(|line| line.starts_with("ready: ") && line.contains("pid_namespace")))
    }

    pub(super) fn pid(&self, number: usize) -> Option<Pid> {
        self.places[number].node.as_ref().map(Pid::from_child)
    }

    /// The guards of what runs on a host.
    pub(super) fn guards(&self, number: usize) -> Vec<Pid> {
        let guards = self.pid(number).map(guards).unwrap_or_default();
        guards.into_iter().filter(|guard| is_at_work(*guard)).collect()
    }

    /// The hosts that can be struck: those with work before those without, in the order of their names.
    pub(super) fn candidates(&self) -> Vec<usize> {
        let free = |number: &usize| !self.places[*number].is_struck && self.places[*number].node.is_some();
        let (busy, idle): (Vec<_>, Vec<_>) =
            (0..self.places.len()).filter(free).partition(|number| !self.guards(*number).is_empty());
        if busy.is_empty() { idle } else { busy }
    }

    /// kill -9 of the node. Its guards see that it is gone.
    pub(super) fn kill(&mut self, number: usize) {
        if let Some(mut node) = self.places[number].node.take() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }

    /// kill -9 of the node and all its guards, none of whom is left to see the others' end.
    pub(super) fn kill_with_guards(&mut self, number: usize) {
        self.signal(number, Signal::STOP);
        for guard in self.pid(number).map(guards).unwrap_or_default() {
            let _ = kill_process(guard, Signal::KILL);
        }
        self.kill(number);
    }

    pub(super) fn signal(&self, number: usize, signal: Signal) {
        if let Some(pid) = self.pid(number) {
            let _ = kill_process(pid, signal);
        }
    }

    /// What fills a host's disk, or makes room again.
    pub(super) fn fill_disk(&self, number: usize, is_full: bool) -> io::Result<()> {
        let file = self.places[number].folder.join("filling");
        self.places[number].host.run(move || {
            if !is_full {
                return std::fs::remove_file(&file);
            }
            let mut file = std::fs::File::create(&file)?;
            let zeros = [0; 64 * 1024];
            for size in [zeros.len(), 4096, 1] {
                while io::Write::write_all(&mut file, &zeros[..size]).is_ok() {}
            }
            Ok(())
        })
    }

    /// Ends all nodes, as somebody would who has done with them, and says whether all of them did.
    pub(super) fn end(&mut self) -> Vec<String> {
        for number in 0..self.places.len() {
            self.signal(number, Signal::CONT);
            self.signal(number, Signal::TERM);
        }
        let begun = Instant::now();
        let mut left = Vec::new();
        for place in &mut self.places {
            let Some(node) = &mut place.node else { continue };
            while node.try_wait().is_ok_and(|end| end.is_none()) {
                if begun.elapsed() > END_PATIENCE {
                    left.push(format!(
                        "the node of {} does not end within {END_PATIENCE:?} of SIGTERM",
                        place.host.name
                    ));
                    break;
                }
                std::thread::sleep(Duration::from_millis(10)); // between two looks
            }
        }
        left
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for number in 0..self.places.len() {
            self.kill(number);
        }
        // Their guards have killed them. Whoever is left was told of in the verdict, and goes now.
        for process in marked(&self.mark) {
            let _ = kill_process(process.pid, Signal::KILL);
        }
    }
}

/// Becomes a node that does not outlive the thread that started it. Returns only what went wrong.
pub(crate) fn become_node() -> io::Error {
    let asked = set_parent_process_death_signal(Some(Signal::KILL));
    if let (Ok(()), Some(1) | None) = (asked, getppid().map(Pid::as_raw_pid)) {
        return io::Error::other("the drill that started this node is gone");
    }
    match std::env::current_exe() {
        Ok(program) => Command::new(program).arg("node").exec(),
        Err(error) => error,
    }
}
