//! The database as a line of commits, of which a failover keeps an older part. The rules are those of `migrations/functions`,
//! each named after its SQL function.

use super::rule::{Rule, Rules};

/// What its holder says when it takes its tenure up again. Instances are numbered in the order in which they were granted, by
/// whichever server; nobody but the properties goes by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Tenancy {
    pub(crate) instance: u8,
    pub(crate) host: usize,
    pub(crate) fence: i64,
    /// In which history it was granted.
    pub(crate) granted_in: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Status {
    Running,
    /// As its holder, or its certificate, has said.
    EndedAsSaid,
    /// By somebody else's conclusion.
    EndedOtherwise,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) tenancy: Tenancy,
    pub(crate) status: Status,
}

/// What a commit leaves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tables {
    pub(crate) history: u8,
    pub(crate) history_before: u8,
    history_since: i64,
    quarantined_until: i64,
    /// Whether the run was claimed behind `last_event_before`.
    claimed_since: bool,
    fence: i64,
    pub(crate) rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Database {
    /// The line of commits that it continues: its timeline.
    pub(crate) line: u8,
    /// Since when it accepts writes.
    promoted: i64,
    /// By how much its clock is wrong.
    pub(crate) offset: i64,
    /// Of the RUNNING instance. Heartbeats are not among the commits: behind a failover all ages count from `promoted` on.
    last_heartbeat: i64,
    /// What each commit has left. The last one is the present.
    commits: Vec<Tables>,
    /// All fences that were ever given, by whichever server.
    fences: Vec<i64>,
    pub(crate) wrongs: Wrongs,
}

impl Tables {
    fn end_instance(&mut self, instance: u8, status: Status) {
        let row = self.rows.iter_mut().find(|row| row.tenancy.instance == instance);
        row.filter(|row| row.status == Status::Running).into_iter().for_each(|row| row.status = status);
    }
}

/// What must never have happened, and what should sometimes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Wrongs {
    pub(crate) repeated_fence: bool,
    pub(crate) returned: bool,
    pub(crate) readopted: bool,
    pub(crate) ended_the_known: bool,
    pub(crate) granted_behind_failover: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BeatVerdict {
    Ok,
    Lost,
}

impl Database {
    pub(crate) fn new(at: i64) -> Database {
        let long_ago = at - 1_000_000;
        let tables = Tables {
            history: 1,
            history_before: 0,
            history_since: long_ago,
            quarantined_until: long_ago,
            claimed_since: false,
            fence: 0,
            rows: Vec::new(),
        };
        Database {
            line: 1,
            promoted: long_ago,
            offset: 0,
            last_heartbeat: long_ago,
            commits: vec![tables],
            fences: Vec::new(),
            wrongs: Wrongs::default(),
        }
    }

    pub(crate) fn tables(&self) -> &Tables {
        self.commits.last().expect("there is always one")
    }

    /// How many commits a failover may lose.
    pub(crate) fn losses_max(&self) -> usize {
        self.commits.len() - 1
    }

    fn commit(&mut self, change: impl FnOnce(&mut Tables)) {
        let mut tables = self.tables().clone();
        change(&mut tables);
        if tables != *self.tables() {
            self.commits.push(tables);
        }
    }

    /// A standby that lacks so many commits is promoted, with a clock of its own. The old primary is down.
    pub(crate) fn fail_over(&mut self, losing: usize, at: i64) {
        self.commits.truncate(self.commits.len() - losing);
        self.line += 1;
        self.promoted = at;
        self.last_heartbeat = at;
    }

    /// `quarantine()`: whether nothing is granted now. Whoever sees the new line first writes that down.
    pub(crate) fn quarantine(&mut self, rules: &Rules, at: i64) -> bool {
        let (line, promoted) = (self.line, self.promoted);
        self.commit(|tables| {
            if tables.history != line {
                let since = promoted.min(at);
                tables.quarantined_until = tables.quarantined_until.max(since + rules.quarantine());
                (tables.history_before, tables.history) = (tables.history, line);
                (tables.history_since, tables.claimed_since) = (since, false);
            } else if at < tables.history_since.min(tables.quarantined_until) {
                tables.quarantined_until += at - tables.history_since;
                tables.history_since = at;
            }
        });
        at < self.tables().quarantined_until
    }

    fn row(&self, instance: u8) -> Option<&Row> {
        self.tables().rows.iter().find(|row| row.tenancy.instance == instance)
    }

    fn running(&self) -> Option<Tenancy> {
        let running = self.tables().rows.iter().find(|row| row.status == Status::Running);
        running.map(|row| row.tenancy)
    }

    /// Whether somebody who was granted the run later is known here.
    fn knows_a_later_one(&self, instance: u8) -> bool {
        self.tables().rows.iter().any(|row| row.tenancy.instance > instance)
    }

    /// Whether it stands here how it has ended, or that it was followed.
    pub(crate) fn knows_the_end_of(&self, instance: u8) -> bool {
        let row = self.row(instance);
        row.is_some_and(|row| row.status == Status::EndedAsSaid) || self.knows_a_later_one(instance)
    }

    /// Whether nobody was ever granted the run behind it, on whichever line.
    pub(crate) fn is_newest(&self, instance: u8) -> bool {
        usize::from(instance) + 1 == self.fences.len()
    }

    /// `claim()`; what a taker's witness would say is left out, which only lets it take over sooner.
    pub(crate) fn claim(&mut self, rules: &Rules, host: usize, at: i64) -> Option<Tenancy> {
        let is_quarantined = self.quarantine(rules, at);
        let holder = self.running();
        if let Some(holder) = holder {
            let known = self.last_heartbeat.max(self.promoted).min(at);
            let is_fresh = known >= at - rules.stale_after(holder.host);
            if is_fresh || is_quarantined && rules.keep(Rule::AgeWaits) {
                return None;
            }
        } else if is_quarantined || self.tables().rows.iter().any(|row| row.status == Status::EndedAsSaid) {
            // What was done once is not done again.
            return None;
        }
        let fence = (self.tables().fence + 1).max(at);
        let tenancy = Tenancy { instance: self.fences.len() as u8, host, fence, granted_in: self.line };
        self.wrongs.repeated_fence |= self.fences.contains(&fence);
        self.wrongs.repeated_fence |= self.tables().rows.iter().any(|row| row.tenancy.fence >= fence);
        self.fences.push(fence);
        self.last_heartbeat = at;
        self.commit(|tables| {
            holder.into_iter().for_each(|it| tables.end_instance(it.instance, Status::EndedOtherwise));
            (tables.fence, tables.claimed_since) = (fence, true);
            tables.rows.push(Row { tenancy, status: Status::Running });
        });
        self.wrongs.granted_behind_failover |= self.line > 1;
        Some(tenancy)
    }

    /// `beat()` of one instance.
    pub(crate) fn beat(&mut self, instance: u8, at: i64) -> BeatVerdict {
        if self.row(instance).is_none_or(|row| row.status != Status::Running) {
            return BeatVerdict::Lost;
        }
        self.last_heartbeat = at;
        BeatVerdict::Ok
    }

    /// `readopt()` as far as it looks: whether there is a quarantine.
    pub(crate) fn look(&mut self, rules: &Rules, at: i64) -> bool {
        self.quarantine(rules, at)
    }

    /// `readopt()` with its locks. True is `ok`.
    pub(crate) fn readopt(&mut self, rules: &Rules, at: i64, tenancy: Tenancy, known_in: u8, saw: bool) -> bool {
        if let Some(row) = self.row(tenancy.instance) {
            return row.status == Status::Running;
        }
        let tables = self.tables();
        // Or of one behind that, of which nothing has come down to this server.
        let is_of_the_line_before = known_in >= tables.history_before || !rules.keep(Rule::OnlyTheLineBefore);
        let is_heard = known_in == tables.history_before || rules.keep(Rule::UnheardLines);
        let is_later = tenancy.fence > tables.fence || !rules.keep(Rule::FenceDecides);
        let is_free = !tables.claimed_since || !rules.keep(Rule::NobodyClaimedSince);
        if !(is_of_the_line_before && is_heard && is_later && is_free && rules.keep(Rule::Readoption)) {
            return false;
        }
        let is_quarantined = if rules.keep(Rule::TestBehindTheLock) { self.quarantine(rules, at) } else { saw };
        let before = self.running();
        if before.is_some() {
            let keeps = if is_quarantined { Rule::EndsTheKnown } else { Rule::KnownKeepsTheRun };
            if is_quarantined != rules.keep(keeps) {
                return false;
            }
            self.wrongs.ended_the_known = true;
        }
        self.wrongs.returned |= self.knows_a_later_one(tenancy.instance);
        self.wrongs.readopted = true;
        self.last_heartbeat = at;
        self.commit(|tables| {
            before.into_iter().for_each(|it| tables.end_instance(it.instance, Status::EndedOtherwise));
            tables.fence = tables.fence.max(tenancy.fence);
            tables.rows.push(Row { tenancy, status: Status::Running });
        });
        true
    }

    /// `finish()` or `file_certificate()`, behind a failover with `readopt()` before it.
    pub(crate) fn end(&mut self, rules: &Rules, at: i64, tenancy: Tenancy, known_in: u8) {
        let saw = self.look(rules, at);
        if self.row(tenancy.instance).is_some() || self.readopt(rules, at, tenancy, known_in, saw) {
            self.commit(|tables| tables.end_instance(tenancy.instance, Status::EndedAsSaid));
        }
    }
}
