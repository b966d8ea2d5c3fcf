//! A history that could have been passes; with any one change to it, it does not.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use super::*;

/// How a tenure may end, and what else is written before the next one.
#[derive(Debug, Clone, Copy)]
enum End {
    Completed,
    Released,
    CancelledByHand,
    CrashedByProof,
    CrashedByAge,
    Forced(&'static str),
    ForcedUnsafely,
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        Just(End::Completed),
        Just(End::Released),
        Just(End::CancelledByHand),
        Just(End::CrashedByProof),
        Just(End::CrashedByAge),
        prop_oneof![Just("certified"), Just("silent"), Just("reported_by"), Just("unsafe")].prop_map(End::Forced),
        Just(End::ForcedUnsafely),
    ]
}

/// A run's history: some tenures that ended, and whether one runs now.
struct History {
    events: Vec<Evidence>,
}

impl History {
    fn of(ends: &[End], runs_now: bool) -> History {
        let mut history = History { events: Vec::new() };
        let attempts = ends.len() + usize::from(runs_now);
        history.add("submitted", None, json!({}), None);
        for n in 0..attempts {
            let attempt = n as i32 + 1;
            let (id, fence) = (Uuid::from_u128(1000 + n as u128), 500 + 10 * n as i64);
            let row = |status: &str| {
                let (status, bars_successor) = (status.to_owned(), false);
                Some(Row { attempt, fence, status, bars_successor, margin_seconds: Some(1.5) })
            };
            let mut say = |status: &str, kind: &str, detail| {
                history.add(kind, Some((id, fence)), detail, row(status));
            };
            let Some(end) = ends.get(n) else {
                say("RUNNING", "claimed", json!({"attempt": attempt}));
                continue;
            };
            let (status, kind, detail) = match end {
                End::Completed => ("COMPLETED", "completed", json!({"attempt": attempt, "exit_code": 0})),
                End::Released => ("RELEASED", "released", json!({"attempt": attempt})),
                End::CancelledByHand => ("CANCELLED", "cancelled", json!({"attempt": attempt})),
                End::CrashedByProof => ("CRASHED", "crashed", json!({"attempt": attempt, "cause": "proof"})),
                End::CrashedByAge => {
                    ("CRASHED", "crashed", json!({"attempt": attempt, "cause": "stale", "margin_seconds": 0.25}))
                }
                End::Forced(_) => {
                    ("CRASHED", "crashed", json!({"attempt": attempt, "cause": "forced", "unsafe": false}))
                }
                End::ForcedUnsafely => {
                    ("CRASHED", "crashed", json!({"attempt": attempt, "cause": "forced", "unsafe": true}))
                }
            };
            say(status, "claimed", json!({"attempt": attempt, "purpose": "x"}));
            say(status, "stop_requested", json!({}));
            say(status, "refused", json!({"reason": "fresh"}));
            say(status, kind, detail);
            if let End::Forced(by) = end {
                say(status, "unbarred", json!({*by: true}));
            }
            history.add("cancelled", None, json!({"cancelled_by": "1@h"}), None);
        }
        history.events.iter_mut().for_each(|evidence| evidence.run_attempt = Some(attempts as i32));
        history
    }

    fn add(&mut self, kind: &str, instance: Option<(Uuid, i64)>, detail: serde_json::Value, row: Option<Row>) {
        let id = self.events.len() as i64 + 1;
        let event = Event {
            id,
            at: DateTime::from_timestamp(1000 + id, 0).unwrap(),
            run_id: "r".to_owned(),
            kind: kind.to_owned(),
            instance_id: instance.map(|(id, _)| id),
            executor_id: instance.map(|(id, _)| format!("{}@h", id.as_u128())),
            fence: instance.map(|(_, fence)| fence),
            detail,
        };
        self.events.push(Evidence { event, run_attempt: None, row });
    }

    fn judge(&self) -> (Verdict, Vec<Takeover>) {
        let mut judge = Judge::of("r");
        let takeovers = self.events.iter().filter_map(|evidence| judge.hear(evidence)).collect();
        (judge.close(), takeovers)
    }

    /// Where the events are that begin, end or free a tenure.
    fn transitions(&self) -> Vec<usize> {
        let moves = |evidence: &Evidence| {
            evidence.event.instance_id.is_some()
                && !["refused", "stop_requested"].contains(&evidence.event.kind.as_str())
        };
        (0..self.events.len()).filter(|n| moves(&self.events[*n])).collect()
    }

    /// The rules that it breaks.
    fn broken(&self) -> Vec<Rule> {
        self.judge().0.violations.iter().map(|violation| violation.rule).collect()
    }

    fn place(&self, kind: &str, nth: usize) -> usize {
        let of_kind = |n: &usize| self.events[*n].event.kind == kind && self.events[*n].event.instance_id.is_some();
        (0..self.events.len()).filter(of_kind).nth(nth).unwrap()
    }
}

proptest! {
    #[test]
    fn what_could_have_been_is_sound(ends in prop::collection::vec(end(), 0..8), runs_now: bool) {
        let history = History::of(&ends, runs_now);
        let (verdict, takeovers) = history.judge();
        prop_assert_eq!(verdict.violations, vec![]);
        prop_assert_eq!(verdict.tenures, ends.len() as u64 + u64::from(runs_now));
        prop_assert_eq!(verdict.is_running, runs_now);
        let followed = ends.len() - usize::from(!runs_now && !ends.is_empty());
        let crashed = |end: &&End| !matches!(end, End::Completed | End::Released | End::CancelledByHand);
        prop_assert_eq!(takeovers.len(), ends[..followed].iter().filter(crashed).count());
        let unsafely = |end: &&End| matches!(end, End::ForcedUnsafely | End::Forced("unsafe"));
        prop_assert_eq!(
            takeovers.iter().filter(|takeover| takeover.two_may_have_worked).count(),
            ends[..followed].iter().filter(unsafely).count()
        );
    }

    #[test]
    fn any_one_change_is_found(
        ends in prop::collection::vec(end(), 1..8), runs_now: bool, change in 0..7, place: Index, by in 1..1000_i64,
    ) {
        let mut history = History::of(&ends, runs_now);
        let transitions = history.transitions();
        let n = transitions[place.index(transitions.len())];
        match change {
            // What is missing, and what is there twice.
            0 => drop(history.events.remove(n)),
            1 => history.events.insert(n, history.events[n].clone()),
            2 => {
                let again = history.events[n].clone();
                history.events.push(again);
            }
            // In another order.
            3 => {
                let place = place.index(transitions.len() - 1);
                history.events.swap(transitions[place], transitions[place + 1]);
            }
            // With another fence, of another instance, of another attempt. What lifts a bar is known by its instance alone.
            4 if history.events[n].event.kind != "unbarred" => {
                let event = &mut history.events[n].event;
                event.fence = event.fence.map(|fence| fence - by);
            }
            5 => {
                history.events[n].event.instance_id = Some(Uuid::from_u128(1));
                history.events[n].row = None;
            }
            _ => {
                let claim = history.place("claimed", 0);
                history.events[claim].event.detail = json!({"attempt": 1 + by});
            }
        }
        prop_assert!(!history.broken().is_empty(), "{:#?}", history.events);
    }
}

#[test]
fn an_instance_that_is_claimed_while_another_is_live_is_an_overlap_and_both_are_named() {
    let mut history = History::of(&[End::Completed], true);
    let end = history.place("completed", 0);
    let claim = history.place("claimed", 1);
    history.events.swap(end, claim);
    let (verdict, _) = history.judge();
    let overlap = &verdict.violations[0];
    assert_eq!((overlap.rule, overlap.run_id.as_str()), (Rule::Overlap, "r"));
    assert_eq!(overlap.instance_ids, [Uuid::from_u128(1001), Uuid::from_u128(1000)]);
    assert_eq!(overlap.message, "attempt 2 by 1001@h was claimed while attempt 1 by 1000@h had not ended");
    // And when the other one ended, it was no longer the newest.
    assert!(verdict.violations.iter().any(|violation| violation.rule == Rule::Order));
}

#[test]
fn who_was_taken_away_from_bars_the_next_claim_until_that_is_lifted() {
    let mut history = History::of(&[End::Forced("certified")], true);
    let (_, takeovers) = history.judge();
    assert_eq!((takeovers[0].cleared_by, takeovers[0].margin_seconds), (Some("certificate"), None));
    let unbarred = history.place("unbarred", 0);
    history.events.remove(unbarred);
    assert_eq!(history.broken(), [Rule::BarredClaim]);
    // By silence, with the margin of that moment.
    let (_, takeovers) = History::of(&[End::Forced("silent")], true).judge();
    assert_eq!((takeovers[0].cleared_by, takeovers[0].margin_seconds), (Some("silence"), Some(1.5)));
    // Without a successor the row alone shows that it was lifted.
    let mut history = History::of(&[End::Forced("silent")], false);
    let unbarred = history.place("unbarred", 0);
    history.events.remove(unbarred);
    assert_eq!(history.broken(), [Rule::Rows]);
}

#[test]
fn a_new_beginning_behind_a_crash_is_no_takeover_and_still_no_overlap() {
    for end in [End::CrashedByProof, End::CrashedByAge, End::Forced("certified")] {
        let mut history = History::of(&[end], true);
        assert_eq!(history.judge().1.len(), 1);
        let claim = history.place("claimed", 1);
        history.events[claim].event.detail["afresh"] = json!(true);
        assert_eq!((history.judge().1.len(), history.broken()), (0, vec![]), "{end:?}");
        let crash = history.place("crashed", 0);
        history.events.swap(crash, claim);
        assert!(history.broken().contains(&Rule::Overlap), "{end:?}");
    }
}

#[test]
fn a_tenure_that_is_gone_without_a_trace_leaves_a_gap_between_its_neighbours() {
    let mut history = History::of(&[End::Completed; 3], false);
    history.events.retain(|evidence| evidence.row.as_ref().is_none_or(|row| row.attempt != 2));
    assert_eq!(history.broken(), [Rule::Attempts]);
    // And an end tells of the attempt that was claimed.
    let mut history = History::of(&[End::Completed], false);
    let end = history.place("completed", 0);
    history.events[end].event.detail["attempt"] = json!(2);
    assert_eq!(history.broken(), [Rule::Attempts]);
}

#[test]
fn a_fence_that_does_not_grow_is_found_although_everybody_agrees_on_it() {
    for (fence, is_sound) in [(501, true), (500, false), (499, false)] {
        let mut history = History::of(&[End::Completed, End::Completed], false);
        let of_the_second = |evidence: &&mut Evidence| evidence.row.as_ref().is_some_and(|row| row.attempt == 2);
        for evidence in history.events.iter_mut().filter(of_the_second) {
            evidence.event.fence = Some(fence);
            evidence.row.as_mut().unwrap().fence = fence;
        }
        let expected: &[Rule] = if is_sound { &[] } else { &[Rule::Fences] };
        assert_eq!(history.broken(), expected, "{fence}");
    }
}

#[test]
fn an_instance_that_has_ended_never_returns() {
    let mut history = History::of(&[End::Completed, End::Completed], false);
    let again = Uuid::from_u128(1000);
    let first = history.events[history.place("claimed", 0)].row.clone();
    for evidence in
        history.events.iter_mut().filter(|evidence| evidence.event.instance_id == Some(Uuid::from_u128(1001)))
    {
        evidence.event.instance_id = Some(again);
        evidence.row = first.clone();
    }
    let broken = history.broken();
    assert!(broken.contains(&Rule::Order) && broken.contains(&Rule::Rows), "{broken:?}");
}

#[test]
fn a_death_by_age_needs_a_margin() {
    for (margin, is_sound) in [(json!(0.000001), true), (json!(0), false), (json!(-1.0), false), (json!(null), false)] {
        let mut history = History::of(&[End::CrashedByAge], true);
        let crash = history.place("crashed", 0);
        history.events[crash].event.detail["margin_seconds"] = margin.clone();
        let expected: &[Rule] = if is_sound { &[] } else { &[Rule::EarlyTakeover] };
        assert_eq!(history.broken(), expected, "{margin}");
    }
}

#[test]
fn tables_that_tell_otherwise_are_found() {
    let sound = || History::of(&[End::CrashedByProof], true);
    // A claim without its row, rows with another attempt or fence, an end that the row does not know.
    let mut history = sound();
    let claim = history.place("claimed", 0);
    history.events[claim].row = None;
    assert_eq!(history.broken(), [Rule::Rows]);
    let mut history = sound();
    history.events[claim].row.as_mut().unwrap().fence = 7;
    assert_eq!(history.broken(), [Rule::Rows]);
    let mut history = sound();
    let crash = history.place("crashed", 0);
    history.events[crash].row.as_mut().unwrap().status = "RUNNING".to_owned();
    assert_eq!(history.broken(), [Rule::Rows]);
    // One that has ended without an event, attempts without events, events without a run.
    let mut history = sound();
    let claim = history.place("claimed", 1);
    history.events[claim].row.as_mut().unwrap().status = "COMPLETED".to_owned();
    assert_eq!(history.broken(), [Rule::Rows]);
    for run_attempt in [Some(3), None] {
        let mut history = sound();
        history.events.last_mut().unwrap().run_attempt = run_attempt;
        assert_eq!(history.broken(), [Rule::Rows], "{run_attempt:?}");
    }
}

#[test]
fn what_is_refused_has_no_place_in_the_order() {
    let mut history = History::of(&[End::Completed], false);
    let refused = history.place("refused", 0);
    let refused = history.events.remove(refused);
    history.events.push(refused);
    assert_eq!(history.broken(), []);
}

#[test]
fn a_run_that_is_wrong_all_through_is_told_in_part_and_counted_whole() {
    let mut history = History::of(&[End::Completed; 100], false);
    history.events.iter_mut().for_each(|evidence| evidence.row = None);
    let (verdict, _) = history.judge();
    assert_eq!((verdict.violations.len(), verdict.violations_total), (VIOLATIONS_TOLD_MAX, 100));
}
