//! A node: claims queued runs for its free slots, makes an attempt of each, recovers what died, and gives way when asked.
//!
//! ```text
//! every second   file the deaths of this host · declare silent holders dead · wait for children that ended
//! when there is  a free slot, and a hint, an end, or the poll interval over: claim as many as fit
//! each run       guard → armed → a heartbeat acknowledged → exec → … → finish, in a task of its own
//! ```
//!
//! One process, one executor: all its runs share one heartbeat statement and one identity.

mod assignment;
mod berth;
mod claiming;
mod host;
mod leaving;
mod outputs;
mod sweep;
mod telling;
mod tidying;
mod turns;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::{Id, JoinSet};
use uuid::Uuid;

use crate::attempt::AttemptError;
use crate::db::{Hint, HintKind, Link, Target};
use crate::elapsed::{Instant, sleep_until};
use crate::guard;
use crate::guard::containment::Containment;
use crate::http::{Door, Readiness};
use crate::ids::NodeName;
use crate::instance::{Coordinator, Timing};
use crate::log::{self, About, What};
use crate::node::store::{self, Assignment, NodeState, Registration, Slot};
use crate::node::{Catalogue, Claimer};
use crate::state_dir::StateDir;
use crate::supervise::{Origin, Signals};
use crate::tenure::{History, Tenure};

pub(crate) use assignment::Report;
use berth::Spare;
pub(crate) use leaving::Leave;
use leaving::Phase;
use outputs::Outputs;
use tidying::Tidying;
pub(crate) use tidying::Workspaces;
use turns::Turns;

/// After the guards of this host could not be had: something is out of room, and claiming would only hurt.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);

/// Between two beats that hints have asked for. One that comes alone is served at once.
const HINTED_BEAT_INTERVAL: Duration = Duration::from_millis(200);

/// After a call of the database that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What a node needs to know.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) target: Target,
    pub(crate) name: NodeName,
    pub(crate) timing: Timing,
    pub(crate) stop_grace: Duration,
    pub(crate) containment: Option<Containment>,
    pub(crate) state: StateDir,
    pub(crate) catalogue: Catalogue,
    pub(crate) slots: i32,
    pub(crate) poll_interval: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) runs_dir: PathBuf,
    pub(crate) workspaces: Workspaces,
    /// Of an attempt.
    pub(crate) log_bytes_max: u64,
    /// Where it answers over HTTP, if it does.
    pub(crate) http: Option<Door>,
    /// It answers there for the whole fleet as well.
    pub(crate) shows_fleet: bool,
    /// Work off what is queued now, then end.
    pub(crate) once: bool,
    /// Its runs find in their environment what it finds in its own. Otherwise that is what programs need to find their way, and
    /// nothing that may be a secret.
    pub(crate) hands_all_down: bool,
    /// By which whoever has started it can end it.
    pub(crate) leaving: Option<mpsc::Receiver<Leave>>,
}

/// What all attempts of a node share.
struct Shared {
    setup: Setup,
    coordinator: Coordinator,
    fleet_id: Uuid,
    /// The disk does not take what commands write, and that was said.
    is_disk_full: Arc<AtomicBool>,
    outputs: Outputs,
    turns: Turns,
}

type Orders = mpsc::Sender<(i32, Origin)>;

struct Node {
    shared: Arc<Shared>,
    link: Link,
    /// Of the database, when it was last heard of.
    history: Option<History>,
    /// It had failed over, and granted nothing anew.
    is_quarantined: bool,
    claimer: Claimer,
    running: JoinSet<Report>,
    /// How to speak to each attempt, by its task.
    attempts: HashMap<Id, (Arc<Tenure>, Orders)>,
    spare: Option<Spare>,
    spare_due: Instant,
    phase: Phase,
    /// How many signals have asked it to go.
    signals: u32,
    /// How many runs have ended without the database knowing.
    left_behind: usize,
    /// Something is back in its queue that others have not been told of.
    has_given_back: bool,
    claim_due: Instant,
    claimed_at: Instant,
    /// The last claim was answered, or there was none yet.
    is_claiming_well: bool,
    /// Somebody has said that there is something to claim.
    is_prompted: bool,
    /// No claim before, whoever asks for it.
    paused_until: Instant,
    sweep_due: Instant,
    beat_due: Instant,
    beaten_at: Instant,
    prune_due: Instant,
    forget_due: Instant,
    tidying: Tidying,
    trouble_told: bool,
    readiness: watch::Sender<Readiness>,
}

/// Runs until it is drained. Ends at once if it cannot even begin.
pub(crate) async fn run(mut setup: Setup) -> Result<(), AttemptError> {
    let (readiness, http_address) = telling::begin(&mut setup)?;
    let mut signals = Signals::catch().map_err(AttemptError::Signals)?;
    let containment = host::containment(&setup).await?;
    host::say_what_is_scarce(&setup);
    let coordinator = Coordinator::start(setup.target.clone(), setup.timing)?;
    log::identify(&coordinator.identity().executor_id);
    let fleet_id = coordinator.hello().await?.fleet_id;
    // By the time a holder looks silent, our own heartbeats have long vouched for the clock.
    coordinator.keep_warm().await;
    let mut news = coordinator.news();
    let registration = Registration {
        node_id: Uuid::now_v7(),
        identity: coordinator.identity().clone(),
        name: setup.name.clone(),
        http_address,
        queues: setup.catalogue.queues.clone(),
        labels: setup.catalogue.labels.clone(),
        commands: setup.catalogue.commands.keys().cloned().collect(),
        starts_anything: setup.catalogue.allow_submitted_commands,
        slots: setup.slots,
        stale_after: setup.timing.stale_after,
    };
    let (outputs, putting) = Outputs::start(setup.target.clone(), setup.timing.attempt_timeout);
    let attempt_timeout = setup.timing.attempt_timeout;
    let mut leaving = setup.leaving.take();
    let now = Instant::now();
    let mut node = Node {
        link: Link::new(setup.target.clone(), setup.timing.attempt_timeout),
        history: None,
        is_quarantined: false,
        shared: Arc::new(Shared {
            setup,
            coordinator,
            fleet_id,
            is_disk_full: Arc::default(),
            outputs,
            turns: Turns::default(),
        }),
        claimer: Claimer::new(registration, containment),
        running: JoinSet::new(),
        attempts: HashMap::new(),
        spare: None,
        spare_due: now,
        phase: Phase::Starting,
        signals: 0,
        left_behind: 0,
        has_given_back: false,
        claim_due: now,
        claimed_at: Instant::from_nanos(0),
        is_claiming_well: true,
        is_prompted: true,
        paused_until: now,
        sweep_due: now,
        beat_due: now,
        beaten_at: Instant::from_nanos(0),
        prune_due: now + sweep::PRUNE_INTERVAL,
        forget_due: now,
        tidying: Tidying::new(),
        trouble_told: false,
        readiness,
    };
    node.beat().await;
    node.sweep().await;
    node.phase = Phase::Working.max(node.phase);
    node.beat().await;
    log::say(What::Ready, format_args!("ready: {}", node.describe()));
    let shared = node.shared.clone();
    while !node.is_done() {
        let due = node.next_due();
        tokio::select! {
            Some(ended) = node.running.join_next_with_id() => node.ended(ended),
            heard = news.recv() => node.heard(heard),
            (signal, _) = signals.next() => node.signalled(signal),
            leave = leaving::asked(&mut leaving) => node.leave(leave),
            // There may be room for another claim.
            () = shared.turns.given_back() => {}
            () = sleep_until(due) => node.due().await,
        }
    }
    let left = node.say_goodbye().await;
    drop((node, shared));
    // The last words of what has just ended.
    let _ = tokio::time::timeout(attempt_timeout * 2, putting).await;
    left
}

impl Node {
    fn next_due(&self) -> Instant {
        let claim = self.may_claim().then_some(self.claim_due.max(self.paused_until));
        let halt = match self.phase {
            Phase::Draining { until } => Some(until),
            _ => None,
        };
        let tell = self.has_given_back.then(Instant::now);
        let spare = self.lacks_spare().then_some(self.spare_due);
        let dues = [Some(self.sweep_due), Some(self.beat_due), claim, halt, tell, spare];
        dues.into_iter().flatten().min().expect("there is a sweep")
    }

    async fn due(&mut self) {
        let now = Instant::now();
        if self.sweep_due <= now {
            guard::reap();
        }
        if let Phase::Draining { until } = self.phase
            && until <= now
        {
            log::say(What::Halting, "drain_timeout is over: giving back what still runs");
            self.halt();
        }
        if self.beat_due <= now && !self.beat().await {
            // Whatever else is asked of it now would only keep us from hearing signals.
            let later = Instant::now() + RETRY_PAUSE;
            for due in [&mut self.beat_due, &mut self.sweep_due, &mut self.claim_due, &mut self.spare_due] {
                *due = later.max(*due);
            }
            return;
        }
        if self.sweep_due <= now {
            self.sweep().await;
        }
        if self.may_claim() && self.claim_due.max(self.paused_until) <= now {
            self.claim().await;
        } else {
            self.tell_of_no_claim();
        }
        if std::mem::take(&mut self.has_given_back) {
            self.tell_of_what_is_queued().await;
        }
        self.keep_spare();
    }

    fn heard(&mut self, heard: Result<Hint, broadcast::error::RecvError>) {
        let now = Instant::now();
        match heard {
            Ok(Hint { kind: HintKind::Queued, name })
                if name == store::ANY_QUEUE || self.shared.setup.catalogue.queues.contains(&name) =>
            {
                self.claim_soon();
            }
            Ok(Hint { kind: HintKind::Node, .. }) => {
                self.beat_due = self.beat_due.min(now.max(self.beaten_at + HINTED_BEAT_INTERVAL));
            }
            Ok(_) => {}
            // It may have been among what we were too slow to hear.
            Err(_) => self.claim_soon(),
        }
    }

    /// False if the database did not answer.
    async fn beat(&mut self) -> bool {
        self.beaten_at = Instant::now();
        self.beat_due = self.beaten_at + self.shared.setup.timing.heartbeat_interval;
        let state = match self.phase {
            Phase::Starting => NodeState::Starting,
            Phase::Working => NodeState::Ready,
            Phase::Draining { .. } | Phase::Halting => NodeState::Draining,
        };
        let running = i32::try_from(self.running.len()).unwrap_or(i32::MAX);
        let registration = self.claimer.registration();
        let answer = self.link.call(async |session| store::beat(session, registration, running, state).await).await;
        self.tell(state, &answer);
        match answer {
            Ok(heard) => {
                self.trouble_told = false;
                self.learn(&heard);
                if let Some(by) = heard.drain_requested_by.filter(|_| self.phase <= Phase::Working) {
                    self.drain(&format!("asked by {by}"));
                }
            }
            Err(error) => {
                self.trouble(&error);
                return false;
            }
        }
        true
    }

    fn start(&mut self, assignment: Assignment, slot: Slot) {
        let secret = slot.secret.expect("a slot of a node has one");
        let (orders, heard) = mpsc::channel(8);
        let tenure = Arc::new(assignment.tenure.clone());
        let (spare, turn) = (self.spare_of(&slot), self.shared.turns.take());
        let attempt = assignment::carry_out(self.shared.clone(), assignment, secret, spare, turn, Signals::from(heard));
        let task = self.running.spawn(attempt);
        self.attempts.insert(task.id(), (tenure, orders));
    }

    fn ended(&mut self, ended: Result<(Id, Report), tokio::task::JoinError>) {
        self.claim_due = Instant::now();
        match ended {
            Ok((task, report)) => {
                self.attempts.remove(&task);
                if report.is_trouble {
                    self.paused_until = Instant::now() + TROUBLE_PAUSE;
                }
                self.left_behind += usize::from(report.is_unrecorded);
                self.has_given_back |= report.goes_back;
            }
            Err(error) => {
                // Its guard has killed the command when its socket was closed.
                if let Some((tenure, _)) = self.attempts.remove(&error.id()) {
                    let Tenure { run_id, attempt, fence, .. } = &*tenure;
                    let about = About { run: Some(run_id.as_str()), attempt: Some(*attempt), fence: Some(*fence) };
                    log::say_of(What::Bug, about, format_args!("it ended in a bug of ours: {error}"));
                }
            }
        }
    }
}
