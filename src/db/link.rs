//! A connection with a deadline: dialled when needed, thrown away at the first doubt.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::error::DbError;
use super::hints::Hint;
use super::migrate::FUNCTIONS_VERSION;
use super::session::Session;
use super::target::Target;
use super::version::Version;
use crate::backoff::Backoff;

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
}

impl Link {
    /// A link that will dial `target` at its first call. Must be used within a tokio runtime.
    pub fn new(target: Target, attempt_timeout: Duration) -> Link {
        Link { target, attempt_timeout, session: None, hints: None, listener: None }
    }

    /// One that also hears hints while it is connected: by itself, or where it leads through a pooler by a connection
    /// beside it to the direct target, if there is one.
    pub fn listening(target: Target, attempt_timeout: Duration) -> (Link, mpsc::Receiver<Hint>) {
        let (sender, hints) = mpsc::channel(HINTS_WAITING_MAX);
        (Link { hints: Some(sender), ..Link::new(target, attempt_timeout) }, hints)
    }

    /// The database it leads to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Makes sure of a connection, and returns what the database said of itself. Whoever is about to take up work asks
    /// this first: a version that is too old for this database hears of it here.
    ///
    /// Each server of the target has `attempt_timeout`.
    pub(crate) async fn hello(&mut self) -> Result<Hello, DbError> {
        let mut outcome = self.bounded_dial().await;
        for _ in 1..self.target.servers() {
            // The next try begins with the next server.
            if !matches!(outcome, Err(DbError::Timeout { .. })) {
                break;
            }
            outcome = self.bounded_dial().await;
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
        match tokio::time::timeout(bound, self.dial()).await {
            Ok(answer) => answer.map(|(_, hello)| *hello),
            Err(_) => Err(DbError::Timeout { target: self.target.describe(), after: bound }),
        }
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
        let outcome = tokio::time::timeout(bound, async {
            let (session, _) = self.dial().await?;
            statements(session).await.map_err(|error| DbError::from_driver(target.clone(), &error, false))
        })
        .await
        .unwrap_or_else(|_| Err(DbError::Timeout { target: target.clone(), after: bound }));
        if outcome.is_err() {
            self.session = None;
        }
        outcome
    }

    async fn dial(&mut self) -> Result<&(Session, Hello), DbError> {
        if self.session.as_ref().is_some_and(|(session, _)| session.is_closed()) {
            self.session = None;
        }
        if self.session.is_none() {
            let target = self.target.describe();
            let opened =
                Session::open(&self.target, self.attempt_timeout, self.hints.as_ref(), async |session: &Session| {
                    greet(session, &target).await
                })
                .await?;
            if opened.0.is_pooled() && self.listener.is_none() {
                self.listener = self.listen_beside();
            }
            self.session = Some(opened);
        }
        Ok(self.session.as_ref().expect("a session was made just above"))
    }

    fn listen_beside(&self) -> Option<Listener> {
        let (hints, direct) = (self.hints.clone()?, self.target.direct()?.clone());
        Some(Listener(tokio::spawn(listen(direct, self.attempt_timeout, hints))))
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
        let opening = Session::open(&direct, attempt_timeout, Some(&hints), async |_: &Session| Ok(()));
        if let Ok(Ok((session, ()))) = tokio::time::timeout(attempt_timeout, opening).await {
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

/// Learns whether the schema is ours.
async fn greet(session: &Session, target: &str) -> Result<Hello, DbError> {
    const HELLO: &str = "-- link.hello
        SELECT fleet_id, functions_version, oldest_allowed FROM systole.settings";
    let rows =
        session.query(HELLO, &[]).await.map_err(|error| DbError::from_driver(target.to_owned(), &error, true))?;
    let not_migrated = |message: String| DbError::NotMigrated { target: target.to_owned(), message };
    let row = rows.first().ok_or_else(|| not_migrated("systole.settings is empty".to_owned()))?;
    let version: i32 = row.get("functions_version");
    if version < FUNCTIONS_VERSION {
        return Err(not_migrated(format!(
            "its functions are version {version}, this binary needs {FUNCTIONS_VERSION}"
        )));
    }
    let oldest_allowed: &str = row.get("oldest_allowed");
    Ok(Hello { fleet_id: row.get("fleet_id"), oldest_allowed: oldest_allowed.parse().unwrap_or(Version::NONE) })
}
