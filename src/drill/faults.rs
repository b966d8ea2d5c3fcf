//! Does what the plan says, to whom it can, and writes down when it really was.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;
use tokio_postgres::Row;

use super::DrillError;
use super::clock::{Chronicle, STEPS};
use super::fleet::Fleet;
use super::plan::{Kind, Step};
use super::processes::{is_guard, marked};
use super::server::Server;
use super::verdict::Fault;
use crate::db::Link;
use crate::elapsed::{Instant, sleep_until};

/// Between two questions whether the database is back, and how long that may take.
const LOOK: Duration = Duration::from_millis(20);
const RETURN_PATIENCE: Duration = Duration::from_secs(60);

/// Beyond this a plan is behind its moments.
const LATE: Duration = Duration::from_millis(500);

/// How long a server may take to notice that one of its processes was killed.
const NOTICE_PATIENCE: Duration = Duration::from_secs(1);

/// How long a standby may need to catch up before a failover is left out.
const FOLLOWED_PATIENCE: Duration = Duration::from_secs(2);

/// By how much a clock that was set may differ from what it was set to, for as long as it takes to ask.
const CLOCK_ERROR: f64 = 0.9;

/// Between two starts of a node that finds no database.
const RESTART_INTERVAL: Duration = Duration::from_millis(200);

const BACKEND: &str = "-- drill.backend
    SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
     ORDER BY pid LIMIT 1 OFFSET $1 % greatest((SELECT count(*) FROM pg_stat_activity
                                                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()), 1)";
const CLOCK: &str = "-- drill.clock
    SELECT extract(epoch FROM clock_timestamp())::float8 AS seconds";
const FOLLOWED: &str = "-- drill.followed
    SELECT count(*) > 0 AS is_followed FROM pg_stat_replication
     WHERE state = 'streaming' AND pg_wal_lsn_diff(pg_current_wal_flush_lsn(), flush_lsn) < 65536";
const NEWEST: &str = "-- drill.newest
    SELECT coalesce(max(id), 0) AS event_id, extract(epoch FROM clock_timestamp())::float8 AS seconds FROM systole.run_events";
const LOCK: &str = "-- drill.lock
    SELECT count(*), pg_sleep($1) FROM
     (SELECT FROM systole.runs WHERE status IN ('QUEUED', 'RUNNING') ORDER BY run_id FOR UPDATE) r,
     (SELECT FROM systole.executor_instances WHERE status = 'RUNNING' ORDER BY instance_id FOR UPDATE) i";

/// What is struck, and has to be healed.
enum Wound {
    /// What is over at once.
    None,
    Away(usize),
    Stopped(usize),
    GuardStopped(Pid),
    CutOff(usize),
    DiskFull(usize),
    Server,
    /// Its standby hears nothing, and takes its place.
    Deafened,
    Locked(JoinHandle<()>),
    ClockSet,
}

/// The one who breaks things.
pub(super) struct Injector {
    pub(super) fleet: Fleet,
    pub(super) server: Server,
    link: Link,
    mark: String,
    /// The database's clock less ours, in seconds.
    offset: f64,
    begun: Instant,
    pub(super) faults: Vec<Fault>,
    /// Steps that found nothing to strike.
    pub(super) missed: usize,
    pub(super) chronicle: Chronicle,
    wounds: BTreeMap<usize, (usize, Wound)>,
}

impl Injector {
    pub(super) async fn new(fleet: Fleet, server: Server, mark: &str) -> Result<Injector, DrillError> {
        let mut link = server.link();
        let before = wall();
        let rows = link.call(async |session| session.query(CLOCK, &[]).await).await?;
        let seconds: f64 = rows.first().expect("one row").get("seconds");
        let offset = if server.own.is_some() { 0.0 } else { seconds - (before + wall()) / 2.0 };
        let mark = mark.to_owned();
        let (faults, wounds) = (Vec::new(), BTreeMap::new());
        Ok(Injector {
            fleet,
            server,
            link,
            mark,
            offset,
            begun: Instant::now(),
            faults,
            missed: 0,
            chronicle: Chronicle::default(),
            wounds,
        })
    }

    /// The whole plan, at its moments.
    pub(super) async fn carry_out(&mut self, plan: &[Step]) -> Result<(), DrillError> {
        self.begun = Instant::now();
        let mut moments: Vec<(u64, usize, bool)> = Vec::new();
        for (number, step) in plan.iter().enumerate() {
            moments.push((step.at_ms, number, true));
            moments.push((step.at_ms + step.length_ms, number, false));
        }
        // Stable: a step without a length begins before it ends.
        moments.sort_by_key(|(at_ms, _, _)| *at_ms);
        for (at_ms, number, begins) in moments {
            self.look_on_until(self.begun + Duration::from_millis(at_ms)).await?;
            if begins {
                self.strike(number, &plan[number]).await?;
            } else {
                self.heal(number).await?;
            }
            // A database that takes longer to come back than was thought delays all that follows: one thing at a time.
            let late = Instant::now().since(self.begun + Duration::from_millis(at_ms));
            if late > LATE {
                self.begun = self.begun + late;
            }
        }
        Ok(())
    }

    /// Sees to it that what has ended by itself is started again.
    pub(super) async fn look_on_until(&mut self, moment: Instant) -> Result<(), DrillError> {
        while Instant::now() < moment {
            self.fleet.look_after()?;
            sleep_until(moment.min(Instant::now() + RESTART_INTERVAL)).await;
        }
        Ok(())
    }

    /// Whatever is still broken.
    pub(super) async fn heal_all(&mut self) -> Result<(), DrillError> {
        for number in self.wounds.keys().copied().collect::<Vec<_>>() {
            self.heal(number).await?;
        }
        Ok(())
    }

    /// The moment, by the database's clock.
    pub(super) fn now(&self) -> f64 {
        wall() + self.offset
    }

    async fn strike(&mut self, number: usize, step: &Step) -> Result<(), DrillError> {
        if step.kind == Kind::FailedOver && !self.is_followed().await {
            if let Some(servers) = &mut self.server.own {
                servers.follow_anew();
            }
            self.missed += 1;
            return Ok(());
        }
        let candidates = self.fleet.candidates();
        let target = (!candidates.is_empty()).then(|| candidates[step.pick as usize % candidates.len()]);
        let at = self.now();
        let mut instance_id = None;
        let wound = match (step.kind, target) {
            (Kind::NodeKilled, Some(host)) => {
                self.fleet.kill(host);
                self.fleet.begin(host)?;
                Some(Wound::None)
            }
            (Kind::NodeAndGuardsKilled, Some(host)) => {
                self.fleet.kill_with_guards(host);
                self.fleet.begin(host)?;
                Some(Wound::None)
            }
            (Kind::HostLost, Some(host)) => {
                self.fleet.kill_with_guards(host);
                self.fleet.places[host].is_struck = true;
                Some(Wound::Away(host))
            }
            (Kind::GuardKilled | Kind::GuardStopped, Some(host)) => self.strike_guard(step, host),
            (Kind::ProbeKilled, Some(host)) => {
                let at_host = format!("@{}", self.fleet.places[host].host.name);
                let probes: Vec<_> =
                    marked(&self.mark).into_iter().filter(|probe| probe.executor_id.ends_with(&at_host)).collect();
                let probe = (!probes.is_empty()).then(|| &probes[step.pick as usize % probes.len()]);
                probe.map(|probe| {
                    instance_id = Some(probe.instance_id.clone());
                    let _ = kill_process(probe.pid, Signal::KILL);
                    Wound::None
                })
            }
            (Kind::NodePaused | Kind::NodeStopped, Some(host)) => {
                self.fleet.signal(host, Signal::STOP);
                self.fleet.places[host].is_struck = true;
                Some(Wound::Stopped(host))
            }
            (Kind::CutOffBriefly | Kind::CutOff, Some(host)) => match self.server.network() {
                Some(network) => {
                    network.cut(host)?;
                    self.fleet.places[host].is_struck = true;
                    Some(Wound::CutOff(host))
                }
                None => None,
            },
            (Kind::DiskFull, Some(host)) => {
                self.fleet.fill_disk(host, true).map_err(DrillError::at("fill a disk"))?;
                self.fleet.places[host].is_struck = true;
                Some(Wound::DiskFull(host))
            }
            (Kind::BackendKilled, _) => self.kill_backend(step.pick).await.then_some(Wound::Server),
            (Kind::PostmasterKilled, _) => {
                if let Some(servers) = &self.server.own {
                    servers.kill()?;
                }
                Some(Wound::Server)
            }
            (Kind::FailedOver, _) => match &mut self.server.own {
                Some(servers) => servers.deafen().await?.then_some(Wound::Deafened),
                None => None,
            },
            (Kind::RowsLocked, _) => Some(Wound::Locked(self.lock_rows(step.length_ms))),
            (Kind::ClockStepped, _) => {
                let off_by = STEPS[step.pick as usize % STEPS.len()];
                if self.set_clock(off_by).await? {
                    Some(Wound::ClockSet)
                } else {
                    self.set_clock(0.0).await?;
                    None
                }
            }
            (_, None) => None,
        };
        let Some(wound) = wound else {
            self.missed += 1;
            return Ok(());
        };
        let host = target.filter(|_| !step.kind.is_of_database()).map(|host| self.fleet.places[host].host.name.clone());
        let seconds = Instant::now().since(self.begun).as_secs_f64();
        eprintln!("systole: {seconds:>6.1} s  {} {}", step.kind.name(), host.as_deref().unwrap_or("(database)"));
        self.wounds.insert(number, (self.faults.len(), wound));
        // What was killed is killed by now; what lasts has its end written down when it is healed.
        self.faults.push(Fault { kind: step.kind, host, instance_id, at, until: self.now() });
        Ok(())
    }

    fn strike_guard(&self, step: &Step, host: usize) -> Option<Wound> {
        let guards = self.fleet.guards(host);
        let guard = *guards.get(step.pick as usize % guards.len().max(1))?;
        if step.kind == Kind::GuardKilled {
            let _ = kill_process(guard, Signal::KILL);
            return Some(Wound::None);
        }
        let _ = kill_process(guard, Signal::STOP);
        Some(Wound::GuardStopped(guard))
    }

    /// And waits until all other sessions are ended by that: only then there is something to come back from.
    async fn kill_backend(&mut self, pick: u32) -> bool {
        let pick = i64::from(pick);
        let parameters = &[(&pick as _, tokio_postgres::types::Type::INT8)];
        let rows = self.link.call(async |session| session.query(BACKEND, parameters).await).await.unwrap_or_default();
        let pid = rows.first().and_then(|row| Pid::from_raw(row.get("pid")));
        let Some(Ok(())) = pid.map(|pid| kill_process(pid, Signal::KILL)) else { return false };
        let killed = Instant::now();
        while self.link.call(async |session| session.query(CLOCK, &[]).await).await.is_ok()
            && Instant::now().since(killed) < NOTICE_PATIENCE
        {
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    /// Whether the standby knows what the primary knows, give or take what is on its way.
    async fn is_followed(&mut self) -> bool {
        let asked = Instant::now();
        while Instant::now().since(asked) < FOLLOWED_PATIENCE {
            let rows = self.link.call(async |session| session.query(FOLLOWED, &[]).await).await.unwrap_or_default();
            if rows.first().is_some_and(|row| row.get("is_followed")) {
                return true;
            }
            tokio::time::sleep(LOOK).await;
        }
        false
    }

    /// False if the servers do not go by it.
    async fn set_clock(&mut self, off_by: f64) -> Result<bool, DrillError> {
        if let Some(clock) = self.server.clock() {
            clock.set(off_by).map_err(DrillError::at("set the clock of the servers"))?;
        }
        let since = self.now();
        let row = self.ask(NEWEST).await?;
        let told: f64 = row.get("seconds");
        self.chronicle.note(since, row.get("event_id"), off_by);
        Ok((told - self.now() - off_by).abs() < CLOCK_ERROR)
    }

    /// By somebody else, who ends when his statement does.
    fn lock_rows(&self, length_ms: u64) -> JoinHandle<()> {
        let mut link = self.server.link();
        let seconds = length_ms as f64 / 1000.0;
        tokio::spawn(async move {
            let parameters = &[(&seconds as _, tokio_postgres::types::Type::FLOAT8)];
            // It may be the one whose server process is killed.
            let _ = link.call(async |session| session.query(LOCK, parameters).await).await;
        })
    }

    async fn heal(&mut self, number: usize) -> Result<(), DrillError> {
        let Some((fault, wound)) = self.wounds.remove(&number) else { return Ok(()) };
        let struck = match wound {
            Wound::None => return Ok(()),
            Wound::Away(host) => {
                self.fleet.begin(host)?;
                Some(host)
            }
            Wound::Stopped(host) => {
                self.fleet.signal(host, Signal::CONT);
                Some(host)
            }
            Wound::GuardStopped(guard) => {
                if is_guard(guard) {
                    let _ = kill_process(guard, Signal::CONT);
                }
                None
            }
            Wound::CutOff(host) => {
                if let Some(network) = self.server.network() {
                    network.mend(host)?;
                }
                Some(host)
            }
            Wound::DiskFull(host) => {
                self.fleet.fill_disk(host, false).map_err(DrillError::at("make room on a disk"))?;
                Some(host)
            }
            Wound::Server | Wound::Deafened => {
                if let Some(servers) = &mut self.server.own {
                    if matches!(wound, Wound::Deafened) { servers.fail_over()? } else { servers.restart()? }
                }
                self.ask(CLOCK).await?;
                None
            }
            Wound::ClockSet => {
                self.set_clock(0.0).await?;
                None
            }
            Wound::Locked(locker) => {
                let _ = locker.await;
                None
            }
        };
        if let Some(host) = struck {
            self.fleet.places[host].is_struck = false;
        }
        self.faults[fault].until = self.now();
        Ok(())
    }

    /// Asks until the database answers: it may be on its way back.
    async fn ask(&mut self, statement: &str) -> Result<Row, DrillError> {
        let begun = Instant::now();
        loop {
            match self.link.call(async |session| session.query(statement, &[]).await).await {
                Ok(mut rows) => return Ok(rows.pop().expect("an aggregate has a row")),
                Err(error) if Instant::now().since(begun) > RETURN_PATIENCE => return Err(error.into()),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

fn wall() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
