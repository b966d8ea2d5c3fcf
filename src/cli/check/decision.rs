//! What to do with a run, out of what the database and this host know of it. Pure.

use chrono::{DateTime, Utc};
use clap::ValueEnum;
use serde::Serialize;

use super::super::print::ago;
use crate::attempt::quarantine_line;
use crate::guard::remains::{Known, Trace};
use crate::ids::RunId;
use crate::instance::Holder;
use crate::outcome::{End, InstanceStatus};
use crate::run::batch;
use crate::run::store::HolderView;

/// What somebody is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Intent {
    /// Start it
    Launch,
    /// Watch it
    Monitor,
    /// Stop it, and start it again
    Restart,
    /// Judge what it has made
    Validate,
}

/// What is to be done first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Decision {
    /// Nobody is at it.
    Launch,
    /// Somebody is: watch, instead of starting a second one.
    Attach,
    /// Something has to be over before anything can be started.
    StopFirst,
    /// Whoever is said to be at it is dead or silent: a start takes over from it.
    TakeOver,
}

/// What is known of a run.
#[derive(Debug, Serialize)]
pub(super) struct Findings {
    pub(super) run_id: RunId,
    pub(super) intent: Intent,
    /// `None` if it was never heard of, or nobody could be asked.
    pub(super) status: Option<String>,
    pub(super) queue: Option<String>,
    pub(super) holder: Option<HolderView>,
    /// Nothing is granted anew until then.
    pub(super) quarantined_until: Option<DateTime<Utc>>,
    /// The tenures of this run that this host knows of.
    pub(super) here: Vec<Known>,
}

/// The decision, why, and what to type next.
#[derive(Debug, Serialize)]
pub(super) struct Advice {
    pub(super) decision: Decision,
    pub(super) reason: String,
    pub(super) next: String,
}

impl Findings {
    /// Decides. What this host can prove comes before what the database was last told.
    pub(super) fn advice(&self) -> Advice {
        match &self.holder {
            Some(view) => self.of_a_held_run(view),
            None => self.of_a_free_run(),
        }
    }

    fn of_a_held_run(&self, view: &HolderView) -> Advice {
        let (run, holder) = (&self.run_id, &view.holder);
        let is_running = holder.status == InstanceStatus::Running;
        let here = self.here.iter().find(|known| known.instance_id == holder.instance_id).map(|known| &known.trace);
        let who = self.who(holder);
        let limit = holder.stale_after_seconds;
        match here {
            Some(Trace::Certified(end)) => self.start(
                Decision::Launch,
                format!("{who}: but it is over on this host ({}), and whatever systole starts here next tells the database", how(end)),
            ),
            Some(Trace::Sweepable) => self.start(
                Decision::TakeOver,
                format!(
                    "{who}: its supervisor and its guard on this host are gone, and whatever systole starts here next kills what \
                     is left of it"
                ),
            ),
            _ if view.stale => self.start(Decision::TakeOver, format!("{who}: it is silent (stale after {limit:.0} s)")),
            Some(Trace::Unproven) => self.wait(format!(
                "{who}: its supervisor and its guard on this host are gone, but nothing proves that its command is. It may be \
                 taken over from {limit:.0} s after its last heartbeat"
            )),
            _ if !is_running => self.wait(who),
            _ => {
                let (decision, next) = match (self.intent, &self.queue) {
                    (Intent::Restart, Some(_)) => (Decision::StopFirst, format!("systole restart {run} --wait")),
                    (Intent::Restart, None) => {
                        (Decision::StopFirst, format!("systole stop {run} --wait && systole run {run} -- COMMAND"))
                    }
                    (Intent::Monitor, Some(_)) => (Decision::Attach, format!("systole logs {run} -f")),
                    _ => (Decision::Attach, format!("systole events {run} -f")),
                };
                let unfinished = if self.intent == Intent::Validate { ": what it makes is not finished" } else { "" };
                Advice { decision, reason: format!("{who}{unfinished}"), next }
            }
        }
    }

    fn of_a_free_run(&self) -> Advice {
        let run = &self.run_id;
        if let Some(known) = self.here.iter().find(|known| known.trace == Trace::Guarded) {
            let reason = format!(
                "the database knows of nobody who holds run \"{run}\", but executor {} is still at work on it on this host: it \
                 ends as soon as it hears that it has lost the run, or behind a failover takes it up again",
                known.executor_id
            );
            return Advice { decision: Decision::StopFirst, reason, next: format!("systole check {run}") };
        }
        let is_in_batch = self.queue.as_deref() == Some(batch::QUEUE);
        if is_in_batch && self.status.as_deref() == Some("QUEUED") {
            let reason = format!("run \"{run}\" is QUEUED in a batch: a systole supervise starts it in its turn");
            return Advice { decision: Decision::Attach, reason, next: format!("systole status {run}") };
        }
        let reason = match (self.status.as_deref(), &self.queue) {
            (None, _) => format!("nobody holds run \"{run}\"; it is new"),
            (Some("QUEUED"), Some(queue)) => format!(
                "nobody holds run \"{run}\"; it is QUEUED in queue \"{queue}\", where a node starts it in its turn, unless somebody \
                 does by hand"
            ),
            (Some(status), _) => format!("nobody holds run \"{run}\"; it is {status}"),
        };
        self.start(Decision::Launch, reason)
    }

    /// What to type where nobody is at it, or need not be minded. Behind a failover nobody is granted anything.
    fn start(&self, decision: Decision, reason: String) -> Advice {
        let run = &self.run_id;
        let launch = format!("systole run {run} -- COMMAND");
        if let Some(until) = self.quarantined_until {
            return self.wait(format!("{reason}. But {}", quarantine_line(Some(until))));
        }
        let is_free = self.holder.is_none();
        let has_ended = is_free && self.status.as_deref().is_some_and(|status| status != "QUEUED");
        let next = match (self.intent, &self.queue) {
            (Intent::Monitor, _) | (Intent::Validate, _) if self.status.is_some() => format!("systole status {run}"),
            (Intent::Monitor, _) => "systole status".to_owned(),
            (_, Some(queue)) if has_ended && queue != batch::QUEUE => format!("systole retry {run}"),
            _ => launch,
        };
        Advice { decision, reason, next }
    }

    /// Nothing can be started yet, and nothing but time helps.
    fn wait(&self, reason: String) -> Advice {
        let run = &self.run_id;
        let next = match self.intent {
            Intent::Launch | Intent::Restart => format!("systole run --wait {run} -- COMMAND"),
            Intent::Monitor | Intent::Validate => format!("systole status {run}"),
        };
        Advice { decision: Decision::StopFirst, reason, next }
    }

    fn who(&self, holder: &Holder) -> String {
        let is_running = holder.status == InstanceStatus::Running;
        let held = if is_running { "is held by" } else { "was taken away by force, but may still be worked on by" };
        let purpose = holder.purpose.as_ref().map(|purpose| format!(", for: {purpose:?}")).unwrap_or_default();
        let stop = if holder.stop_requested_at.is_some() { ", asked to stop" } else { "" };
        format!(
            "run \"{}\" {held} executor {}, attempt {}, last heartbeat {}{purpose}{stop}",
            self.run_id,
            holder.executor_id,
            holder.attempt,
            ago(holder.heartbeat_age_seconds)
        )
    }
}

/// How it ended, in words.
fn how(end: &End) -> String {
    let code = end.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
    format!("{}{code}", end.status.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ids::InstanceId;

    fn findings(intent: Intent) -> Findings {
        Findings {
            run_id: "r".parse().unwrap(),
            intent,
            status: None,
            queue: None,
            holder: None,
            quarantined_until: None,
            here: Vec::new(),
        }
    }

    fn held(intent: Intent, status: &str, stale: bool, here: Option<Trace>) -> Findings {
        let holder: Holder = serde_json::from_value(json!({
            "instance_id": uuid::Uuid::nil(), "executor_id": "1@a", "host": "a", "pid": 1, "attempt": 2, "fence": 1,
            "status": status, "containment": "none", "started_at": "2026-01-01T00:00:00Z",
            "last_heartbeat": "2026-01-01T00:00:00Z", "age_seconds": 50.0, "heartbeat_age_seconds": 3.0,
            "stale_after_seconds": 30.0,
        }))
        .unwrap();
        let known = |trace| Known { instance_id: InstanceId(uuid::Uuid::nil()), executor_id: "1@a".to_owned(), trace };
        Findings {
            status: Some("RUNNING".to_owned()),
            holder: Some(HolderView { holder, stale }),
            here: here.map(known).into_iter().collect(),
            ..findings(intent)
        }
    }

    #[track_caller]
    fn expect(found: &Findings, decision: Decision, next: &str, said: &str) {
        let advice = found.advice();
        assert_eq!((advice.decision, advice.next.as_str()), (decision, next), "{}", advice.reason);
        assert!(advice.reason.contains(said), "{}", advice.reason);
    }

    const RUN: &str = "systole run r -- COMMAND";
    const WAIT: &str = "systole run --wait r -- COMMAND";

    #[test]
    fn a_free_run_is_launched_in_the_way_it_came() {
        expect(&findings(Intent::Launch), Decision::Launch, RUN, "it is new");
        expect(&findings(Intent::Monitor), Decision::Launch, "systole status", "it is new");
        let ended = |intent, queue: Option<&str>| Findings {
            status: Some("FAILED".to_owned()),
            queue: queue.map(str::to_owned),
            ..findings(intent)
        };
        expect(&ended(Intent::Launch, None), Decision::Launch, RUN, "it is FAILED");
        expect(&ended(Intent::Restart, Some("q")), Decision::Launch, "systole retry r", "it is FAILED");
        expect(&ended(Intent::Validate, None), Decision::Launch, "systole status r", "it is FAILED");
        let queued = Findings { status: Some("QUEUED".to_owned()), ..ended(Intent::Launch, Some("q")) };
        expect(&queued, Decision::Launch, RUN, "a node starts it");
        let in_batch = Findings { queue: Some("supervise".to_owned()), ..queued };
        expect(&in_batch, Decision::Attach, "systole status r", "QUEUED in a batch");
        expect(&ended(Intent::Launch, Some("supervise")), Decision::Launch, RUN, "it is FAILED");
    }

    #[test]
    fn a_live_holder_is_watched_or_stopped_first() {
        let held = |intent| held(intent, "RUNNING", false, Some(Trace::Guarded));
        expect(&held(Intent::Launch), Decision::Attach, "systole events r -f", "held by executor 1@a, attempt 2");
        expect(&held(Intent::Validate), Decision::Attach, "systole events r -f", "not finished");
        expect(&held(Intent::Restart), Decision::StopFirst, &format!("systole stop r --wait && {RUN}"), "held by");
        let queued = |intent| Findings { queue: Some("q".to_owned()), ..held(intent) };
        expect(&queued(Intent::Restart), Decision::StopFirst, "systole restart r --wait", "held by");
        expect(&queued(Intent::Monitor), Decision::Attach, "systole logs r -f", "held by");
    }

    #[test]
    fn what_this_host_proves_comes_before_what_the_database_was_told() {
        let over = Trace::Certified(End { exit_code: Some(3), ..End::of(InstanceStatus::Failed) });
        let launch = |status, stale, here| held(Intent::Launch, status, stale, here);
        expect(&launch("RUNNING", false, Some(over.clone())), Decision::Launch, RUN, "FAILED, exit code 3");
        expect(&launch("CRASHED", false, Some(over)), Decision::Launch, RUN, "over on this host");
        expect(&launch("RUNNING", false, Some(Trace::Sweepable)), Decision::TakeOver, RUN, "kills what is left");
        expect(&launch("RUNNING", false, Some(Trace::Unproven)), Decision::StopFirst, WAIT, "nothing proves");
        expect(&launch("RUNNING", true, Some(Trace::Unproven)), Decision::TakeOver, RUN, "silent");
        expect(&launch("RUNNING", true, None), Decision::TakeOver, RUN, "silent");
        expect(&launch("CRASHED", false, Some(Trace::Guarded)), Decision::StopFirst, WAIT, "taken away by force");
    }

    #[test]
    fn a_guard_that_the_database_does_not_know_of_is_minded() {
        let mut unknown = held(Intent::Launch, "RUNNING", false, Some(Trace::Guarded));
        unknown.holder = None;
        expect(&unknown, Decision::StopFirst, "systole check r", "still at work on it on this host");
    }

    #[test]
    fn in_a_quarantine_nothing_is_promised_but_a_live_holder_is_watched_as_ever() {
        let until = Some("2026-01-01T00:00:30Z".parse().unwrap());
        let within = |found| Findings { quarantined_until: until, ..found };
        let free = within(findings(Intent::Launch));
        expect(&free, Decision::StopFirst, WAIT, "nothing is started anew until 00:00:30 UTC");
        let silent = within(held(Intent::Launch, "RUNNING", true, None));
        expect(&silent, Decision::StopFirst, WAIT, "until 00:00:30 UTC");
        let alive = within(held(Intent::Launch, "RUNNING", false, None));
        expect(&alive, Decision::Attach, "systole events r -f", "held by");
    }
}
