//! The protocol as a state machine: two hosts, one database, a tick of true time, and every fault we can think of.

use stateright::{Model, Property};
use systole::elapsed::Instant;
use systole::guard::Hold;

use super::database::{Database, Grant};
use super::host::{Beat, Host, Life, Link, Tenure};
use super::rule::{Rule, Rules};

/// What is checked: which rules, on what machines, how long, and what may go wrong.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    pub(crate) rules: Rules,
    /// How the guards hold a frozen tree.
    pub(crate) hold: Hold,
    /// Milliseconds of true time in a tick.
    pub(crate) tick: u64,
    /// How many of them.
    pub(crate) ticks: u8,
    /// How many faults at most, and which.
    pub(crate) faults: u8,
    pub(crate) kinds: Vec<Fault>,
    /// The rates of the clocks of both hosts and of the database, in percent; each may be the case.
    pub(crate) rates: Vec<[u64; 3]>,
    pub(crate) begins: Begin,
    /// Whether the commands have transactions of their own.
    pub(crate) writes: Writes,
}

/// How it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Nobody has the run.
    Free,
    /// One host has just been granted it, and either may be the one.
    Held,
}

/// What the commands do in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    Nothing,
    Fenced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    SupervisorKilled,
    SupervisorStopped,
    /// In its PID namespace the tree goes with it.
    GuardKilled,
    GuardStopped,
    LinkDown,
    RequestsHeld,
    AnswersHeld,
    /// The database's clock is set, by this many milliseconds.
    ClockStep(i64),
    ServerRestarted,
    /// Somebody's transaction holds the rows of the run.
    RowsLocked,
    TakenAway,
}

/// A tick has an order: first what goes wrong, then one host, then the other, each from its heartbeat to its transactions.
/// What happens in another order happens in two ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Tick,
    Happens(Fault, usize),
    Unlock,
    Step(usize, Step),
}

/// What a host does, and the database for it, in the order of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Continue,
    GuardContinues,
    FailBeat,
    LinkUp,
    ClaimLooks,
    ClaimLocks,
    KillGuardAndTree,
    GuardTurns,
    FileCertificate,
    BeginAnew,
    Fence,
    Commit,
}

impl Step {
    pub(crate) const ALL: [Step; 12] = [
        Step::Continue,
        Step::GuardContinues,
        Step::FailBeat,
        Step::LinkUp,
        Step::ClaimLooks,
        Step::ClaimLocks,
        Step::KillGuardAndTree,
        Step::GuardTurns,
        Step::FileCertificate,
        Step::BeginAnew,
        Step::Fence,
        Step::Commit,
    ];
}

fn turn(action: &Action) -> u8 {
    match action {
        Action::Tick | Action::Happens(..) | Action::Unlock => 0,
        Action::Step(host, step) => 1 + 20 * *host as u8 + *step as u8,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) tick: u8,
    /// The place in the order of the tick of what happened last.
    pub(crate) turn: u8,
    pub(crate) rates: [u64; 3],
    pub(crate) faults_left: u8,
    pub(crate) database: Database,
    pub(crate) hosts: [Host; 2],
}

/// Neither clock begins at zero, and they know nothing of each other.
const BOOTED: u64 = 1_000_000;
const EPOCH: i64 = 1_700_000_000_000;
const DATABASE: usize = 2;

impl Fault {
    pub(crate) const ALL: [Fault; 13] = [
        Fault::SupervisorKilled,
        Fault::SupervisorStopped,
        Fault::GuardKilled,
        Fault::GuardStopped,
        Fault::LinkDown,
        Fault::RequestsHeld,
        Fault::AnswersHeld,
        // J, which may go unseen, and more than L in both directions.
        Fault::ClockStep(500),
        Fault::ClockStep(6000),
        Fault::ClockStep(-6000),
        Fault::ServerRestarted,
        Fault::RowsLocked,
        Fault::TakenAway,
    ];
}

impl Protocol {
    /// All rules, the run just granted to one of two hosts with even clocks and freezers, and two faults.
    pub(crate) fn new() -> Protocol {
        Protocol {
            rules: Rules::all(),
            hold: Hold::Freezer,
            begins: Begin::Held,
            tick: 1000,
            ticks: 9,
            faults: 2,
            kinds: Fault::ALL.to_vec(),
            rates: vec![[100; 3]],
            writes: Writes::Nothing,
        }
    }

    fn elapsed(&self, state: &State, clock: usize, tick: u8) -> u64 {
        u64::from(tick) * self.tick * state.rates[clock] / 100
    }

    /// The clock of a host.
    fn now(&self, state: &State, host: usize) -> Instant {
        Instant::from_nanos((BOOTED + self.elapsed(state, host, state.tick)) * 1_000_000)
    }

    /// The clock of the database.
    fn at(&self, state: &State) -> i64 {
        EPOCH + self.elapsed(state, DATABASE, state.tick) as i64 + state.database.offset
    }

    fn tick(&self, state: &mut State) -> bool {
        if state.tick == self.ticks {
            return false;
        }
        state.tick += 1;
        state.turn = 0;
        let at = self.at(state);
        for number in 0..2 {
            let now = self.now(state, number);
            let host = &mut state.hosts[number];
            let supervisor = host.supervisor;
            if host.tenure.as_ref().is_some_and(|it| it.is_overdue(&self.rules, self.hold, supervisor, now)) {
                return false;
            }
            host.lives_on(&self.rules, self.hold, &mut state.database, at, now);
        }
        true
    }

    /// What goes wrong. Supervisor and guard of one tree are not both stopped or killed by hand.
    fn happens(&self, state: &mut State, fault: Fault, host: usize) -> bool {
        let Some(left) = state.faults_left.checked_sub(1) else { return false };
        state.faults_left = left;
        let at = self.at(state);
        let now = self.now(state, host);
        let Host { supervisor, tenure, beat, claim, link, has_slept, .. } = &mut state.hosts[host];
        let guard = tenure.as_ref().map(|it| it.guard);
        match fault {
            Fault::SupervisorKilled if *supervisor == Life::Running && guard != Some(Life::Stopped) => {
                *supervisor = Life::Dead;
                (*beat, *claim) = (None, None);
            }
            Fault::SupervisorStopped if *supervisor == Life::Running && guard != Some(Life::Stopped) => {
                *supervisor = Life::Stopped;
                *has_slept = true;
                // In the middle of a heartbeat.
                let verdict = tenure.as_ref().map(|it| state.database.beat(it.instance, at));
                beat.get_or_insert(Beat { sent: now, answer: Some((at, verdict)) });
            }
            Fault::GuardKilled if *supervisor == Life::Running && guard == Some(Life::Running) => {
                // What it leaves is swept, by its supervisor or by the next one.
                tenure.iter_mut().for_each(Tenure::end);
            }
            Fault::GuardStopped if *supervisor == Life::Running && guard == Some(Life::Running) => {
                tenure.iter_mut().for_each(|it| it.guard = Life::Stopped);
            }
            Fault::LinkDown if *link == Link::Up => *link = Link::Down,
            Fault::RequestsHeld if *link == Link::Up => *link = Link::RequestsHeld,
            Fault::AnswersHeld if *link == Link::Up => *link = Link::AnswersHeld,
            Fault::ClockStep(by) if host == 0 => state.database.offset += by,
            Fault::ServerRestarted if host == 0 => {
                state.database.restart(at);
                state.hosts.iter_mut().for_each(|it| it.claim = None);
            }
            Fault::RowsLocked if host == 0 && !state.database.is_claim_blocked(&self.rules) => {
                state.database.is_locked = true;
            }
            Fault::TakenAway if host == 0 && !state.database.is_claim_blocked(&self.rules) => {
                state.database.take_away(at)
            }
            _ => return false,
        }
        true
    }

    /// Those steps of a host that are its own, or the server's for it. False if there is no such step now.
    fn step(&self, state: &mut State, number: usize, step: Step) -> bool {
        let (rules, at) = (&self.rules, self.at(state));
        let now = self.now(state, number);
        let (database, host) = (&mut state.database, &mut state.hosts[number]);
        let is_up = host.supervisor == Life::Running;
        match step {
            Step::FailBeat if is_up && host.beat.as_ref().is_some_and(|it| it.sent < now) => {
                host.fail_beat();
                true
            }
            Step::LinkUp if host.link != Link::Up => {
                host.link = Link::Up;
                host.pass(rules, database, at, now);
                true
            }
            Step::ClaimLooks if is_up && host.claim.is_none() && host.tenure.is_none() && host.link == Link::Up => {
                host.claim = database.look(rules, at, host.witness.testimony(now));
                host.claim.is_some()
            }
            Step::ClaimLocks => {
                let Some(claim) = host.claim.take() else { return false };
                if database.is_claim_blocked(rules) {
                    database.evict_blockers(rules, at, &claim);
                } else if let Grant::Ok(instance) = database.test_and_grant(rules, number, at, &claim) {
                    host.tenure = Some(Tenure::armed(rules, instance, now));
                    // A heartbeat under way names nobody.
                    host.beat = None;
                }
                true
            }
            Step::GuardTurns => {
                let Host { supervisor, tenure, .. } = host;
                tenure.as_mut().is_some_and(|it| it.guard_turns(rules, self.hold, now, *supervisor))
            }
            Step::GuardContinues => {
                let Some(tenure) = host.tenure.as_mut().filter(|it| it.guard == Life::Stopped) else { return false };
                tenure.guard = Life::Running;
                true
            }
            Step::KillGuardAndTree if is_up => {
                let Some(tenure) = host.tenure.as_mut() else { return false };
                let is_found_out = tenure.is_guard_found_out(rules, self.hold, now);
                if is_found_out {
                    tenure.end();
                }
                is_found_out
            }
            Step::FileCertificate => {
                let Some(tenure) = host.tenure.as_ref().filter(|_| host.link == Link::Up) else { return false };
                let seems_dead = host.supervisor == Life::Dead && !rules.keep(Rule::CertificateIsProof);
                (tenure.is_certified || seems_dead) && database.file_certificate(rules, tenure.instance)
            }
            Step::BeginAnew => {
                let is_over = host.tenure.as_ref().is_none_or(|it| {
                    let row = &database.instances[it.instance];
                    it.is_certified && !row.is_running && !row.bars_successor
                });
                let is_done = host.tenure.is_some() || host.supervisor == Life::Dead;
                if is_over && is_done && host.supervisor == Life::Dead {
                    *host = Host::new();
                } else if is_over && is_done {
                    (host.tenure, host.beat) = (None, None);
                }
                is_over && is_done
            }
            Step::Continue if host.supervisor == Life::Stopped => {
                host.supervisor = Life::Running;
                host.pass(rules, database, at, now);
                true
            }
            Step::Fence if self.writes == Writes::Fenced && host.is_at_work(self.hold) => {
                let instance = host.tenure.as_ref().expect("it is at work").instance;
                !database.instances[instance].is_fencing && database.fence(instance)
            }
            Step::Commit => {
                let Some(tenure) = &host.tenure else { return false };
                let is_open = database.instances[tenure.instance].is_fencing;
                if is_open {
                    database.commit(tenure.instance);
                }
                is_open
            }
            _ => false,
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let free = self.rates.iter().map(|rates| State {
            tick: 0,
            turn: 0,
            rates: *rates,
            faults_left: self.faults,
            database: Database::new(EPOCH),
            hosts: [Host::new(), Host::new()],
        });
        if self.begins == Begin::Free {
            return free.collect();
        }
        let grant = |mut state: State, host| {
            assert!(self.step(&mut state, host, Step::ClaimLooks) && self.step(&mut state, host, Step::ClaimLocks));
            state
        };
        free.flat_map(|state| [grant(state.clone(), 0), grant(state, 1)]).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        if state.turn == 0 {
            let faults = self.kinds.iter().flat_map(|fault| [0, 1].map(|host| Action::Happens(*fault, host)));
            actions.extend(faults);
            actions.push(Action::Unlock);
        }
        let both = Step::ALL.iter().flat_map(|step| [0, 1].map(|host| Action::Step(host, *step)));
        actions.extend(both.filter(|action| turn(action) > state.turn));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.turn = turn(&action);
        let is_possible = match action {
            Action::Tick => self.tick(&mut state),
            Action::Happens(fault, host) => self.happens(&mut state, fault, host),
            Action::Unlock => std::mem::take(&mut state.database.is_locked),
            Action::Step(host, step) => self.step(&mut state, host, step),
        };
        is_possible.then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        super::properties::all()
    }
}
