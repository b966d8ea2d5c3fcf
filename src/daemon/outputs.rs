//! The newest output of each attempt goes into the database: while it changes, and at its end. On a connection of its own,
//! which there is only while something runs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::db::{DbError, Link, Target};
use crate::elapsed::{Instant, sleep_until};
use crate::ids::{Fence, InstanceId};
use crate::log::{self, What};
use crate::output::Recording;
use crate::output::store::{self, Output};

/// Between two looks at what has changed.
const PUT_INTERVAL: Duration = Duration::from_secs(10);

/// How many attempts that have ended wait for a database that does not take their last words. Each keeps 64 kB.
const ENDED_MAX: usize = 500;

/// How attempts and the sweep speak to the task. It ends when the last of these is dropped, and all is put.
#[derive(Debug, Clone)]
pub(super) struct Outputs(mpsc::UnboundedSender<News>);

#[derive(Debug)]
enum News {
    Began(InstanceId, Fence, Arc<Recording>),
    Ended(InstanceId),
    Found(Vec<(InstanceId, PathBuf)>),
}

impl Outputs {
    /// Starts the task; it has no connection until there is something to be put.
    pub(super) fn start(target: Target, attempt_timeout: Duration) -> (Outputs, JoinHandle<()>) {
        let (sender, news) = mpsc::unbounded_channel();
        let putter = Putter {
            target,
            attempt_timeout,
            link: None,
            attempts: HashMap::new(),
            found: Vec::new(),
            trouble_told: false,
        };
        (Outputs(sender), tokio::spawn(putter.run(news)))
    }

    /// An attempt writes. The task is there for as long as we are.
    pub(super) fn began(&self, instance_id: InstanceId, fence: Fence, recording: Arc<Recording>) {
        let _ = self.0.send(News::Began(instance_id, fence, recording));
    }

    /// It has ended, and all that it wrote is recorded.
    pub(super) fn ended(&self, instance_id: InstanceId) {
        let _ = self.0.send(News::Ended(instance_id));
    }

    /// Logs of this host whose node is dead.
    pub(super) fn found(&self, logs: Vec<(InstanceId, PathBuf)>) {
        if !logs.is_empty() {
            let _ = self.0.send(News::Found(logs));
        }
    }
}

struct Putter {
    target: Target,
    attempt_timeout: Duration,
    link: Option<Link>,
    attempts: HashMap<InstanceId, Written>,
    found: Vec<(InstanceId, PathBuf)>,
    trouble_told: bool,
}

/// What an attempt writes.
struct Written {
    fence: Fence,
    recording: Arc<Recording>,
    /// How much was written when it was last put.
    put: u64,
    has_ended: bool,
}

impl Putter {
    async fn run(mut self, mut news: mpsc::UnboundedReceiver<News>) {
        let mut due = Instant::now() + PUT_INTERVAL;
        loop {
            let is_idle = self.attempts.is_empty() && self.found.is_empty();
            if is_idle {
                self.link = None;
            }
            tokio::select! {
                heard = news.recv() => {
                    if is_idle {
                        due = Instant::now() + PUT_INTERVAL;
                    }
                    let is_over = heard.is_none();
                    let mut is_urgent = is_over;
                    let more = std::iter::from_fn(|| news.try_recv().ok());
                    for heard in heard.into_iter().chain(more) {
                        is_urgent |= self.hear(heard);
                    }
                    // While the database does not answer, once each interval is enough.
                    if is_over || is_urgent && !self.trouble_told {
                        self.put(is_over).await;
                    }
                    if is_over {
                        return;
                    }
                }
                () = sleep_until(due), if !is_idle => {
                    due = Instant::now() + PUT_INTERVAL;
                    self.put(true).await;
                }
            }
        }
    }

    /// Takes note; true if it is not to wait for the next look.
    fn hear(&mut self, news: News) -> bool {
        match news {
            News::Began(instance_id, fence, recording) => {
                self.attempts.insert(instance_id, Written { fence, recording, put: 0, has_ended: false });
                return false;
            }
            News::Ended(instance_id) => {
                let waiting = self.attempts.values().filter(|written| written.has_ended).count();
                match self.attempts.get_mut(&instance_id) {
                    Some(written) if written.recording.bytes_total() > 0 && waiting < ENDED_MAX => {
                        written.has_ended = true
                    }
                    // It has said nothing; or those before it wait in vain.
                    _ => drop(self.attempts.remove(&instance_id)),
                }
            }
            News::Found(logs) => self.found.extend(logs),
        }
        true
    }

    /// Puts what has ended, and with `all` whatever has changed.
    async fn put(&mut self, all: bool) {
        let is_due = |written: &Written| written.has_ended || all && written.recording.bytes_total() != written.put;
        let due = self.attempts.iter().filter(|(_, written)| is_due(written));
        let due: Vec<InstanceId> = due.map(|(instance_id, _)| *instance_id).collect();
        if due.is_empty() && self.found.is_empty() {
            return;
        }
        let outcome = self.try_put(&due).await;
        match outcome {
            Ok(()) => self.trouble_told = false,
            Err(error) => {
                if !error.is_transient() {
                    self.found.clear();
                }
                if !std::mem::replace(&mut self.trouble_told, true) {
                    log::say(
                        What::OutputNotShown,
                        format_args!("what runs write does not get into the database: {error}"),
                    );
                }
            }
        }
    }

    async fn try_put(&mut self, due: &[InstanceId]) -> Result<(), DbError> {
        let link = self.link.get_or_insert_with(|| Link::new(self.target.clone(), self.attempt_timeout));
        for batch in due.chunks(store::BATCH_MAX) {
            let outputs: Vec<Output> = batch.iter().map(|id| self.attempts[id].output(*id)).collect();
            link.call(async |session| store::put(session, &outputs).await).await?;
            for output in outputs {
                match self.attempts.get_mut(&output.instance_id) {
                    Some(_) if output.is_last => drop(self.attempts.remove(&output.instance_id)),
                    Some(written) => written.put = output.bytes_total,
                    None => {}
                }
            }
        }
        store::put_last_words(link, &self.found).await?;
        self.found.clear();
        Ok(())
    }
}

impl Written {
    fn output(&self, instance_id: InstanceId) -> Output {
        let snapshot = self.recording.snapshot();
        Output {
            instance_id,
            fence: self.fence,
            tail: snapshot.tail,
            bytes_total: snapshot.bytes_total,
            bytes_lost: snapshot.bytes_lost,
            path: self.recording.path().to_owned(),
            is_last: self.has_ended,
        }
    }
}
