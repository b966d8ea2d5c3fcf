//! A connection with a deadline: dialled when needed, thrown away at the first doubt.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::Row;
use uuid::Uuid;

use super::counting::called;
use super::error::DbError;
use super::hints::Hint;
use super::migrate::FUNCTIONS_VERSION;
use super::session::{Greeting, Hearing, Session};
use super::target::Target;
use super::version::Version;
use crate::backoff::Backoff;
use crate::metrics::Family;
use crate::tenure::History;

/// How many hints may wait to be heard. More are worth no more.
const HINTS_WAITING_MAX: usize = 64;

/// A connection that is made anew after every failure. All calls on it are bounded by `attempt_timeout`, dialling
/// included. One call at a time.
#[derive(Debug)]
pub struct Link {
    target: Target,
    attempt_timeout: Duration,
    session: Option<(Session, Hello)>,
    hints: Option<mpsc::Sender<Hint>>,
    is_listening: bool,
    /// One of its connections has listened.
    has_listened: bool,
    /// Listens beside a pooled connection.
    listener: Option<Listener>,
}

/// What the database said of itself when the connection was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hello {
    /// Names the database in certificates of death.
    pub(crate) fleet_id: Uuid,
    /// The oldest version of systole that may still take up work.
    oldest_allowed: Version,
    /// Which line of commits it continues; `None` of a standby.
    pub(crate) history: Option<History>,
}

impl Link {
    /// A link that will dial `target` at its first call. Must be used within a tokio runtime.
    pub fn new(target: Target, attempt_timeout: Duration) -> Link {
        Link {
            target,
            attempt_timeout,
            session: None,
            hints: None,
            is_listening: false,
            has_listened: false,
            listener: None,
        }
    }

    /// One that also hears hints while it is connected: by itself, or where it leads through a pooler by a connection
    /// beside it to the direct target, if there is one.
    pub fn listening(target: Target, attempt_timeout: Duration) -> (Link, mpsc::Receiver<Hint>) {
        let (link, hints) = Link::listening_later(target, attempt_timeout);
        (Link { is_listening: true, ..link }, hints)
    }

    /// The same, from [`Link::listen`] on: what is over in a moment need not hear anything.
    pub(crate) fn listening_later(target: Target, attempt_timeout: Duration) -> (Link, mpsc::Receiver<Hint>) {
        let (sender, hints) = mpsc::channel(HINTS_WAITING_MAX);
        (Link { hints: Some(sender), ..Link::new(target, attempt_timeout) }, hints)
    }

    /// Hears hints from now on, over every connection to come. If it cannot be done now, the next connection does it.
    pub(crate) async fn listen(&mut self) {
        if std::mem::replace(&mut self.is_listening, true) || self.session.is_none() {
            return;
        }
        self.has_listened = self.call(async |session| session.listen().await).await.is_ok();
        self.listen_beside_if_pooled();
    }

    /// That what was asked for cannot be had now.
    pub(crate) fn unavailable(&self, message: &str) -> DbError {
        DbError::Unavailable { target: self.target.describe(), message: message.to_owned() }
    }

    /// The database it leads to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Makes sure of a connection, and returns what the database said of itself. Whoever is about to take up work asks
    /// this first: a version that is too old for this database hears of it here.
    ///
    /// Each address of the target has `attempt_timeout`.
    pub(crate) async fn hello(&mut self) -> Result<Hello, DbError> {
        let mut outcome = self.bounded_dial().await;
        let mut tries = 1;
        // The next try begins with the next one. How many there are is learnt on the way.
        while matches!(outcome, Err(DbError::Timeout { .. })) && tries < self.target.turns().candidates() {
            outcome = self.bounded_dial().await;
            tries += 1;
        }
        let hello = outcome?;
        let ours = Version::OURS;
        if ours < hello.oldest_allowed {
            let (target, oldest) = (self.target.describe(), hello.oldest_allowed.to_string());
            return Err(DbError::TooOld { target, oldest, ours: ours.to_string() });
        }
        Ok(hello)
    }

    async fn bounded_dial(&mut self) -> Result<Hello, DbError> {
        let bound = self.attempt_timeout;
        let outcome = match tokio::time::timeout(bound, self.dial()).await {
            Ok(answer) => answer.map(|(_, hello)| *hello),
            Err(_) => Err(DbError::Timeout { target: self.target.describe(), after: bound }),
        };
        called(self.target.metrics(), &outcome, None);
        outcome
    }

    /// Runs `statements` on the connection. Dialling and statements together take at most `attempt_timeout`.
    ///
    /// After any error the connection is dropped, so that no later call waits behind a statement of unknown fate.
    /// Dropping the future leaves the statement's outcome unknown, and the connection in use: the next call may wait
    /// behind it, within its own bound.
    pub async fn call<T>(
        &mut self,
        statements: impl AsyncFnOnce(&Session) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, DbError> {
        let bound = self.attempt_timeout;
        let target = self.target.describe();
        let mut code = None;
        let outcome = tokio::time::timeout(bound, async {
            let (session, _) = self.dial().await?;
            statements(session).await.map_err(|error| {
                code = error.code().cloned();
                DbError::from_driver(target.clone(), &error, false)
            })
        })
        .await
        .unwrap_or_else(|_| Err(DbError::Timeout { target: target.clone(), after: bound }));
        called(self.target.metrics(), &outcome, code.as_ref());
        if outcome.is_err() {
            self.session = None;
        }
        outcome
    }

    async fn dial(&mut self) -> Result<&(Session, Hello), DbError> {
        let is_former = |session: &Session| session.history().is_some_and(|history| self.target.saw(history).is_some());
        if self.session.as_ref().is_some_and(|(session, _)| session.is_closed() || is_former(session)) {
            self.session = None;
        }
        if self.session.is_none() {
            let (session, answer) =
                Session::open(&self.target, self.attempt_timeout, self.hearing(), Greeting::Schema).await?;
            let hello = read_hello(&session, &answer, &self.target)?;
            self.session = Some((session, hello));
            if self.is_listening && std::mem::replace(&mut self.has_listened, true) {
                self.target.metrics().count(Family::ListenReconnects, []);
            }
            self.listen_beside_if_pooled();
        }
        Ok(self.session.as_ref().expect("a session was made just above"))
    }

    fn hearing(&self) -> Hearing<'_> {
        match &self.hints {
            Some(hints) if self.is_listening => Hearing::AtOnce(hints),
            Some(hints) => Hearing::Later(hints),
            None => Hearing::Never,
        }
    }

    fn listen_beside_if_pooled(&mut self) {
        let is_pooled = self.session.as_ref().is_some_and(|(session, _)| session.is_pooled());
        if let (true, true, None, Some(hints), Some(direct)) =
            (is_pooled, self.is_listening, &self.listener, &self.hints, self.target.direct())
        {
            let listening = listen(direct.clone(), self.attempt_timeout, hints.clone());
            self.listener = Some(Listener(tokio::spawn(listening)));
        }
    }
}

/// Ends with whoever holds it.
#[derive(Debug)]
struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Keeps a connection that only listens, for ever. What goes wrong with it costs nothing but haste.
async fn listen(direct: Target, attempt_timeout: Duration, hints: mpsc::Sender<Hint>) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    loop {
        let opening = Session::open(&direct, attempt_timeout, Hearing::AtOnce(&hints), Greeting::Server);
        if let Ok(Ok((session, _))) = tokio::time::timeout(attempt_timeout, opening).await {
            if session.is_pooled() {
                // The direct way is none.
                return;
            }
            backoff.reset();
            while !session.is_closed() {
                tokio::time::sleep(attempt_timeout).await;
            }
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Whether the schema is ours, and for us.
fn read_hello(session: &Session, answer: &Row, target: &Target) -> Result<Hello, DbError> {
    let not_migrated = |message: String| DbError::NotMigrated { target: target.describe(), message };
    let fleet_id: Option<Uuid> = answer.get("fleet_id");
    let fleet_id = fleet_id.ok_or_else(|| not_migrated("systole.settings is empty".to_owned()))?;
    let version: i32 = answer.get("functions_version");
    if version < FUNCTIONS_VERSION {
        return Err(not_migrated(format!(
            "its functions are version {version}, this binary needs {FUNCTIONS_VERSION}"
        )));
    }
    let oldest_allowed: &str = answer.get("oldest_allowed");
    Ok(Hello { fleet_id, oldest_allowed: oldest_allowed.parse().unwrap_or(Version::NONE), history: session.history() })
}
