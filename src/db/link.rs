//! One connection with a deadline: dialled when needed, thrown away at the first doubt.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::error::DbError;
use super::migrate::FUNCTIONS_VERSION;
use super::target::Target;

/// A connection that is made anew after every failure. All calls on it are bounded by `attempt_timeout`, dialling
/// included. One call at a time.
#[derive(Debug)]
pub struct Link {
    target: Target,
    attempt_timeout: Duration,
    session: Option<Session>,
}

/// What the database said of itself when the connection was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hello {
    /// Names the database in certificates of death.
    pub(crate) fleet_id: Uuid,
}

#[derive(Debug)]
struct Session {
    client: Client,
    driver: JoinHandle<()>,
    hello: Hello,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Whatever was in flight is abandoned with its socket; the server notices by client_connection_check_interval.
        self.driver.abort();
    }
}

impl Link {
    /// A link that will dial `target` at its first call. Must be used within a tokio runtime.
    pub fn new(target: Target, attempt_timeout: Duration) -> Link {
        Link { target, attempt_timeout, session: None }
    }

    /// The database it leads to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Makes sure of a connection, and returns what the database said of itself.
    pub(crate) async fn hello(&mut self) -> Result<Hello, DbError> {
        let bound = self.attempt_timeout;
        match tokio::time::timeout(bound, self.dial()).await {
            Ok(answer) => answer.map(|session| session.hello),
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
        statements: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, DbError> {
        let bound = self.attempt_timeout;
        let target = self.target.describe();
        let outcome = tokio::time::timeout(bound, async {
            let session = self.dial().await?;
            statements(&session.client).await.map_err(|error| DbError::from_driver(target.clone(), &error, false))
        })
        .await
        .unwrap_or_else(|_| Err(DbError::Timeout { target: target.clone(), after: bound }));
        if outcome.is_err() {
            self.session = None;
        }
        outcome
    }

    async fn dial(&mut self) -> Result<&Session, DbError> {
        if self.session.as_ref().is_some_and(|session| session.client.is_closed()) {
            self.session = None;
        }
        if self.session.is_none() {
            let target = self.target.describe();
            let (client, connection) = self
                .target
                .connect(self.attempt_timeout)
                .await
                .map_err(|error| DbError::from_driver(target.clone(), &error, true))?;
            let driver = tokio::spawn(async move {
                // Its error reaches the caller through the client.
                let _ = connection.await;
            });
            let mut session = Session { client, driver, hello: Hello { fleet_id: Uuid::nil() } };
            session.hello = greet(&session.client, &target, self.attempt_timeout).await?;
            self.session = Some(session);
        }
        Ok(self.session.as_ref().expect("a session was made just above"))
    }
}

/// Bounds what an abandoned statement may do in the server, and learns whether the schema is ours. One round trip.
async fn greet(client: &Client, target: &str, attempt_timeout: Duration) -> Result<Hello, DbError> {
    const HELLO: &str = "-- link.hello
        SELECT fleet_id, functions_version,
               set_config('statement_timeout', $1, false),
               set_config('idle_in_transaction_session_timeout', $1, false),
               CASE WHEN current_setting('server_version_num')::int >= 140000
                    THEN set_config('client_connection_check_interval', '500ms', false) END
          FROM systole.settings";
    let bound = attempt_timeout.as_millis().to_string();
    let rows = client
        .query_typed(HELLO, &[(&bound, Type::TEXT)])
        .await
        .map_err(|error| DbError::from_driver(target.to_owned(), &error, true))?;
    let not_migrated = |message: String| DbError::NotMigrated { target: target.to_owned(), message };
    let row = rows.first().ok_or_else(|| not_migrated("systole.settings is empty".to_owned()))?;
    let version: i32 = row.get("functions_version");
    if version < FUNCTIONS_VERSION {
        return Err(not_migrated(format!(
            "its functions are version {version}, this binary needs {FUNCTIONS_VERSION}"
        )));
    }
    Ok(Hello { fleet_id: row.get("fleet_id") })
}
