//! One connection to one server: dialled, recognised, and ended at the first doubt.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Error, Row};

use super::counting::Dial;
use super::error::{DbError, chain};
use super::hints::Hint;
use super::schema::Schema;
use super::target::{Dialling, MARKER, Target};
use super::turns::Candidate;
use crate::metrics::{Family, Metrics, statement_label};
use crate::tenure::History;

/// Whether a session hears hints.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hearing<'a> {
    /// From the start: in the same round trip.
    AtOnce(&'a mpsc::Sender<Hint>),
    /// When it is told to listen.
    Later(&'a mpsc::Sender<Hint>),
    Never,
}

/// What a new session asks first.
#[derive(Debug, Clone, Copy)]
pub(super) enum Greeting {
    /// Who the server is: `pooled`, `read_only`.
    Server,
    /// That, and what of ours is there: `history`, `fleet_id`, `functions_version`, `oldest_allowed`.
    Schema,
}

/// A connection, with what its server said of itself. Statements say `systole.`, whatever the schema is called.
#[derive(Debug)]
pub struct Session {
    client: Client,
    driver: JoinHandle<()>,
    schema: Schema,
    pooled: bool,
    history: Option<History>,
    metrics: Metrics,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Whatever was in flight is abandoned with its socket; the server notices by client_connection_check_interval.
        self.driver.abort();
        self.metrics.add(Family::DbConnections, [], -1.0);
    }
}

impl Session {
    /// Connects to the first server that answers and serves, and returns what it said to `greeting`.
    ///
    /// Not bounded: the caller has a deadline. Cut off, the next call begins with whoever has not had his time yet.
    pub(super) async fn open(
        target: &Target,
        attempt_timeout: Duration,
        hints: Hearing<'_>,
        greeting: Greeting,
    ) -> Result<(Session, Row), DbError> {
        let begun = Instant::now();
        let mut attempt = target.turns().attempt(attempt_timeout);
        let mut failure = None;
        while let Some(candidate) = attempt.next(begun.elapsed()) {
            let outcome = match target.look_up(candidate, attempt_timeout).await {
                Some(Ok(addresses)) => {
                    attempt.found(candidate.server, &addresses);
                    continue;
                }
                Some(Err(reason)) => Err(DbError::Unreachable { target: target.describe(), reason }),
                None => Session::open_one(target, candidate, attempt_timeout, hints, greeting).await,
            };
            match outcome {
                Ok(opened) => {
                    attempt.answered(candidate);
                    return Ok(opened);
                }
                // What another server might do better. A wrong password is wrong everywhere; a certificate is one server's.
                Err(error) if error.is_transient() || matches!(error, DbError::Untrusted { .. }) => {
                    failure = Some(worse(failure, error));
                }
                Err(error) => {
                    attempt.answered(candidate);
                    return Err(error);
                }
            }
        }
        Err(failure.expect("a target has a server, and a name that was found an address"))
    }

    async fn open_one(
        target: &Target,
        candidate: Candidate,
        attempt_timeout: Duration,
        hints: Hearing<'_>,
        greeting: Greeting,
    ) -> Result<(Session, Row), DbError> {
        let dial = Dial::begin(target.metrics());
        let mut session = Session::dial(target, candidate, attempt_timeout, hints).await?;
        let told = |error: Error| DbError::from_driver(target.describe(), &error, true);
        let answer = session.greet(attempt_timeout, greeting).await.map_err(told)?;
        if answer.get("read_only") && target.read_write {
            let message = "it is a standby, or default_transaction_read_only is on".to_owned();
            return Err(DbError::ReadOnly { target: target.describe(), message });
        }
        session.history = answer.get::<_, Option<&str>>("history").and_then(|text| text.parse().ok());
        if let Some(newer) = session.history.and_then(|history| target.saw(history)) {
            return Err(DbError::Outdated { target: target.describe(), newer: newer.timeline() });
        }
        session.pooled = answer.get("pooled");
        if let (Hearing::AtOnce(_), false) = (hints, session.pooled) {
            session.listen().await.map_err(told)?;
        }
        dial.succeeded();
        Ok((session, answer))
    }

    async fn dial(
        target: &Target,
        candidate: Candidate,
        attempt_timeout: Duration,
        hints: Hearing<'_>,
    ) -> Result<Session, DbError> {
        let mut marked = !target.options_refused();
        let (client, mut connection) = loop {
            let unprepared = |reason| DbError::Unprepared { target: target.describe(), reason };
            let Dialling { config, tls, no_password } =
                target.dialling(candidate, attempt_timeout, marked).map_err(unprepared)?;
            match config.connect(tls).await {
                Ok(connected) => break connected,
                Err(error) if marked && refuses_options(&error) => {
                    marked = false;
                    target.remember_that_options_are_refused();
                }
                Err(error) => {
                    return Err(match no_password.filter(|_| lacks_password(&error)) {
                        Some(reason) => unprepared(format!("it asks for a password, and there is none: {reason}")),
                        None => DbError::from_driver(target.describe(), &error, true),
                    });
                }
            }
        };
        let hints = match hints {
            Hearing::AtOnce(hints) | Hearing::Later(hints) => Some(hints.clone()),
            Hearing::Never => None,
        };
        let metrics = target.metrics().clone();
        let counted = metrics.clone();
        let driver = tokio::spawn(async move {
            // Its errors reach the caller through the client.
            while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if let (AsyncMessage::Notification(notification), Some(hints)) = (message, &hints)
                    && let Some(hint) = Hint::read(notification.payload())
                {
                    counted.count(Family::Notifications, []);
                    // A hint that finds no room is not missed: polling is the truth.
                    let _ = hints.try_send(hint);
                }
            }
        });
        metrics.add(Family::DbConnections, [], 1.0);
        Ok(Session { client, driver, schema: target.schema().clone(), pooled: false, history: None, metrics })
    }

    /// Asks who answered, and with [`Greeting::Schema`] what of ours is there; and bounds, where the session is ours alone, what
    /// an abandoned statement may do there. One statement: until it is known that there is no pooler, nothing is sent behind it.
    async fn greet(&self, attempt_timeout: Duration, greeting: Greeting) -> Result<Row, Error> {
        const SERVER: &str = "-- session.server
            SELECT NOT own AS pooled,
                   pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS read_only,
                   NULL AS history,
                   CASE WHEN own THEN set_config('statement_timeout', $1, false) END,
                   CASE WHEN own THEN set_config('idle_in_transaction_session_timeout', $1, false) END,
                   CASE WHEN own AND current_setting('server_version_num')::int >= 140000
                        THEN set_config('client_connection_check_interval', '500ms', false) END
              FROM (SELECT current_setting($2, true) IS NOT NULL AS own) AS session";
        const SCHEMA: &str = "-- session.schema
            SELECT NOT own AS pooled,
                   pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS read_only,
                   systole.history() AS history,
                   CASE WHEN own THEN set_config('statement_timeout', $1, false) END,
                   CASE WHEN own THEN set_config('idle_in_transaction_session_timeout', $1, false) END,
                   CASE WHEN own AND current_setting('server_version_num')::int >= 140000
                        THEN set_config('client_connection_check_interval', '500ms', false) END,
                   fleet_id, functions_version, oldest_allowed
              FROM (SELECT current_setting($2, true) IS NOT NULL AS own) AS session
              LEFT JOIN systole.settings ON true";
        let statement = match greeting {
            Greeting::Server => SERVER,
            Greeting::Schema => SCHEMA,
        };
        let bound = attempt_timeout.as_millis().to_string();
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&bound, Type::TEXT), (&MARKER, Type::TEXT)];
        let answer = match self.query(statement, &parameters).await {
            // Somebody who may not ask, or before an upgrade: he is told what is missing by whatever he does next.
            Err(error) if lacks_function(&error) => {
                self.query(&statement.replace("systole.history()", "NULL"), &parameters).await
            }
            answer => answer,
        };
        let mut rows = answer?;
        Ok(rows.pop().expect("a LEFT JOIN of one row returns one row"))
    }

    /// Runs one statement of ours, in a transaction of its own and in one round trip, and reads all its rows.
    pub async fn query(&self, statement: &str, parameters: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Error> {
        let begun = Instant::now();
        let answer = self.client.query_typed(&self.schema.qualify(statement), parameters).await;
        self.metrics.took(Family::DbQueryDuration, [statement_label(statement)], begun.elapsed());
        answer
    }

    /// The same in a transaction that cannot write, and that the server ends after `bound` also where a pooler lends the session
    /// out. After an error, or cut off, the session must not be used any more.
    pub(crate) async fn query_read_only(&self, statement: &str, bound: Duration) -> Result<Vec<Row>, Error> {
        let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {}", bound.as_millis());
        self.client.batch_execute(&begin).await?;
        let rows = self.query(statement, &[]).await?;
        self.client.batch_execute("COMMIT").await?;
        Ok(rows)
    }

    /// From now on this session hears hints, unless it is one that a pooler lends out.
    pub(super) async fn listen(&self) -> Result<(), Error> {
        self.client.batch_execute(&listen(&self.schema)).await
    }

    /// Whether a pooler is in between: then nothing that outlives a transaction can be had, neither settings nor LISTEN.
    pub fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// Which line of commits the server continued when we came; `None` of one that only follows.
    pub(crate) fn history(&self) -> Option<History> {
        self.history
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The driver's own client, for what is no single statement.
    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// A LISTEN in a session that a pooler lends out would stay with it, for strangers to hear. A standby has none.
fn listen(schema: &Schema) -> String {
    format!(
        "DO $$ BEGIN IF current_setting('{MARKER}', true) IS NOT NULL AND NOT pg_is_in_recovery()
         THEN LISTEN \"{schema}\"; END IF; END $$"
    )
}

/// Poolers say so each in its own way; a server of PostgreSQL's never does.
fn refuses_options(error: &Error) -> bool {
    error.as_db_error().is_some_and(|answer| {
        let message = answer.message();
        message.contains("startup parameter") || message.contains("command-line options")
    })
}

fn lacks_function(error: &Error) -> bool {
    error.code().is_some_and(|code| [SqlState::INSUFFICIENT_PRIVILEGE, SqlState::UNDEFINED_FUNCTION].contains(code))
}

/// The driver's own words for it; there is no other sign.
fn lacks_password(error: &Error) -> bool {
    chain(error).contains("password missing")
}

/// Of several failures the one that says most: a server that is not trusted, which time does not mend; one that answered
/// and does not serve; one that is silent.
fn worse(before: Option<DbError>, now: DbError) -> DbError {
    match (before, now) {
        (Some(before @ DbError::Untrusted { .. }), _) => before,
        (Some(before @ DbError::Outdated { .. }), DbError::ReadOnly { .. } | DbError::Unreachable { .. }) => before,
        (Some(before @ (DbError::ReadOnly { .. } | DbError::Unavailable { .. })), DbError::Unreachable { .. }) => {
            before
        }
        (_, now) => now,
    }
}
