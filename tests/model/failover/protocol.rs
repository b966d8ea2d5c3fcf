//! The failover as a state machine: two hosts, one run, and a database that loses any of its newest commits.

use stateright::{Model, Property};
use systole::elapsed::Instant;
use systole::instance::Timing;

use super::database::Database;
use super::host::{Host, Moment};
use super::rule::{Rules, SHORT};

/// What is checked: which rules, how long, and how often what may go wrong.
#[derive(Debug, Clone)]
pub(crate) struct Failover {
    pub(crate) rules: Rules,
    /// How many ticks of a second.
    pub(crate) ticks: u8,
    pub(crate) failovers: u8,
    pub(crate) faults: u8,
    pub(crate) kinds: Vec<Fault>,
    /// By how many milliseconds the clock of the server that is promoted may be ahead of the last one's.
    pub(crate) clocks: Vec<i64>,
    /// The rates of the clocks of both hosts and of the databases, in percent; each may be the case.
    pub(crate) rates: Vec<[u64; 3]>,
    /// How many commands may end by themselves.
    pub(crate) ends: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    LinkDown,
    /// Nothing is left, and nobody knows how it ended.
    PowerLost,
}

/// A tick has an order: heartbeats, then what goes wrong, then one host, then the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Tick,
    FailOver { losing: usize, clock: i64 },
    Happens(Fault, usize),
    Step(usize, Step),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    LinkUp,
    Readopt,
    Freeze,
    Finish,
    Claim,
}

const STEPS: [Step; 5] = [Step::LinkUp, Step::Readopt, Step::Freeze, Step::Finish, Step::Claim];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) tick: u8,
    turn: u8,
    rates: [u64; 3],
    failovers_left: u8,
    faults_left: u8,
    ends_left: u8,
    pub(crate) database: Database,
    pub(crate) hosts: [Host; 2],
}

const BOOTED: u64 = 1_000_000;
const EPOCH: i64 = 1_700_000_000_000;
const DATABASE: usize = 2;

fn turn(action: &Action) -> u8 {
    match action {
        Action::Tick | Action::FailOver { .. } | Action::Happens(..) => 0,
        Action::Step(host, step) => 1 + 10 * *host as u8 + *step as u8,
    }
}

impl Failover {
    /// All rules, even clocks and leases, and two failovers.
    pub(crate) fn new() -> Failover {
        Failover {
            rules: Rules::all([SHORT; 2]),
            ticks: 14,
            failovers: 2,
            faults: 2,
            kinds: vec![Fault::LinkDown],
            clocks: vec![0],
            rates: vec![[100; 3]],
            ends: 0,
        }
    }

    pub(crate) fn leased(self, timing: [Timing; 2]) -> Failover {
        Failover { rules: Rules { taken_away: self.rules.taken_away, ..Rules::all(timing) }, ..self }
    }

    fn elapsed(state: &State, clock: usize) -> u64 {
        u64::from(state.tick) * 10 * state.rates[clock]
    }

    pub(crate) fn moment(&self, state: &State, number: usize) -> Moment<'_> {
        let at = EPOCH + Self::elapsed(state, DATABASE) as i64 + state.database.offset;
        let now = Instant::from_nanos((BOOTED + Self::elapsed(state, number)) * 1_000_000);
        Moment { rules: &self.rules, number, at, now }
    }

    fn tick(&self, state: &mut State) -> bool {
        if state.tick == self.ticks {
            return false;
        }
        state.tick += 1;
        for number in [0, 1] {
            let moment = self.moment(state, number);
            let host = &mut state.hosts[number];
            let timing = &self.rules.timing[number];
            if host.tenure.as_ref().is_some_and(|it| it.is_overdue(timing, moment.now)) {
                return false;
            }
            host.lives_on(moment, &mut state.database);
        }
        true
    }

    fn fail_over(&self, state: &mut State, losing: usize, clock: i64) -> bool {
        let Some(left) = state.failovers_left.checked_sub(1) else { return false };
        state.failovers_left = left;
        state.database.offset += clock;
        let at = self.moment(state, 0).at;
        state.database.fail_over(losing, at);
        // Statements end with their server.
        state.hosts.iter_mut().flat_map(|it| &mut it.tenure).for_each(|it| it.asking = None);
        true
    }

    fn happens(&self, state: &mut State, fault: Fault, number: usize) -> bool {
        let Some(left) = state.faults_left.checked_sub(1) else { return false };
        state.faults_left = left;
        let host = &mut state.hosts[number];
        match fault {
            Fault::LinkDown if host.is_linked => {
                host.is_linked = false;
                // What the server has begun it may end, but nobody hears of it.
                host.tenure.iter_mut().for_each(|it| it.asking = None);
            }
            Fault::PowerLost if host.tenure.is_some() => host.tenure = None,
            _ => return false,
        }
        true
    }

    fn step(&self, state: &mut State, number: usize, step: Step) -> bool {
        let moment = self.moment(state, number);
        let (database, host) = (&mut state.database, &mut state.hosts[number]);
        match step {
            Step::LinkUp if !host.is_linked => {
                host.is_linked = true;
                host.lives_on(moment, database);
                true
            }
            Step::Readopt => host.readopts(moment, database),
            Step::Freeze => host.tenure.as_mut().is_some_and(|it| it.freezes(moment.now)),
            Step::Finish => {
                let Some(left) = state.ends_left.checked_sub(1) else { return false };
                state.ends_left = left;
                host.finishes(moment, database)
            }
            Step::Claim if host.is_linked && host.tenure.is_none() => {
                let granted = database.claim(&self.rules, number, moment.at);
                granted.into_iter().for_each(|tenancy| host.granted(moment, tenancy));
                granted.is_some()
            }
            Step::LinkUp | Step::Claim => false,
        }
    }
}

impl Model for Failover {
    type State = State;
    type Action = Action;

    /// The first host, or the second, has just been granted the run.
    fn init_states(&self) -> Vec<State> {
        let both = self.rates.iter().flat_map(|rates| [0, 1].map(|host| (*rates, host)));
        both.map(|(rates, host)| {
            let mut state = State {
                tick: 0,
                turn: 0,
                rates,
                failovers_left: self.failovers,
                faults_left: self.faults,
                ends_left: self.ends,
                database: Database::new(EPOCH),
                hosts: [Host::new(), Host::new()],
            };
            assert!(self.step(&mut state, host, Step::Claim), "the run is free");
            state
        })
        .collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        if state.turn == 0 {
            let losses = 0..=state.database.losses_max();
            actions
                .extend(losses.flat_map(|losing| {
                    self.clocks.iter().map(move |clock| Action::FailOver { losing, clock: *clock })
                }));
            actions.extend(self.kinds.iter().flat_map(|fault| [0, 1].map(|host| Action::Happens(*fault, host))));
        }
        let steps = STEPS.iter().flat_map(|step| [0, 1].map(|host| Action::Step(host, *step)));
        actions.extend(steps.filter(|action| turn(action) > state.turn));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.turn = turn(&action);
        let is_possible = match action {
            Action::Tick => self.tick(&mut state),
            Action::FailOver { losing, clock } => self.fail_over(&mut state, losing, clock),
            Action::Happens(fault, host) => self.happens(&mut state, fault, host),
            Action::Step(host, step) => self.step(&mut state, host, step),
        };
        is_possible.then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        super::properties::all()
    }
}
