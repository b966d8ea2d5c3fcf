//! Which database: where its servers are, how each is spoken to, and how that is told without its secrets.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::seq::SliceRandom;
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::conninfo::{Conninfo, Environment, InvalidTarget, password_of};
use super::endpoint::{Endpoint, Place, endpoints};
use super::schema::Schema;
use super::tls::{Mode, Tls};
use super::turns::{Candidate, Turns, share};
use crate::metrics::Metrics;
use crate::tenure::History;

/// A startup option that only a server of our own can have set: whoever does not find it speaks through a pooler.
pub(super) const MARKER: &str = "systole_session.direct";

/// A database to connect to, with the schema in it. Its `Debug` and [`Target::describe`] show no password.
///
/// Read from a libpq connection string (URL or `keyword=value`); what that leaves open is taken from its service, from
/// PG* variables and from a passfile, as psql does. Beyond this machine TLS with `verify-full` is the default.
#[derive(Clone)]
pub struct Target {
    endpoints: Vec<Endpoint>,
    /// Without hosts and options.
    base: Config,
    options: String,
    user: String,
    passfile: Option<PathBuf>,
    tls: Tls,
    /// A server that only reads will not do.
    pub(super) read_write: bool,
    schema: Schema,
    pub(super) direct: Option<Box<Target>>,
    pub(super) metrics: Metrics,
    memory: Arc<Memory>,
}

/// How to dial one server.
pub(super) struct Dialling {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
    /// Why there is no password: it matters only if the server asks for one.
    pub(super) no_password: Option<String>,
}

/// What all connections to a target have learnt.
#[derive(Debug)]
struct Memory {
    turns: Turns,
    /// There is a pooler in between that refuses startup options.
    options_refused: AtomicBool,
    /// The newest history of each cluster.
    newest: Mutex<Vec<History>>,
}

impl FromStr for Target {
    type Err = InvalidTarget;

    /// Reads files and variables of this process, as libpq would.
    fn from_str(text: &str) -> Result<Target, InvalidTarget> {
        let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
        Target::resolve(text, &Environment { variable: &|name| std::env::var(name).ok(), home })
    }
}

impl Target {
    fn resolve(text: &str, environment: &Environment<'_>) -> Result<Target, InvalidTarget> {
        let conninfo = Conninfo::resolve(text, environment)?;
        let tls = Tls::of(&conninfo, environment)?;
        let mut endpoints = endpoints(&conninfo, &tls)?;
        if endpoints.iter().any(|endpoint| endpoint.mode >= Mode::Require) {
            tls.check(&conninfo)?;
        }
        let in_plain_text =
            |endpoint: &Endpoint| matches!(endpoint.place, Place::Tcp { .. }) && endpoint.mode < Mode::Require;
        if tls.direct && endpoints.iter().any(in_plain_text) {
            let expected = "postgres, unless TLS is a must with every server: sslmode=require or stronger";
            return Err(conninfo.refuse("sslnegotiation", "direct", expected));
        }
        let random = conninfo.read("load_balance_hosts", "disable or random", |text| match text {
            "disable" => Some(false),
            "random" => Some(true),
            _ => None,
        })?;
        if random == Some(true) {
            endpoints.shuffle(&mut rand::rng());
        }
        let read_write = conninfo.read("target_session_attrs", "read-write, primary or any", |text| match text {
            "any" => Some(false),
            "read-write" | "primary" => Some(true),
            _ => None,
        })?;

        let user = conninfo.text("user").map_or_else(|| whoami::username().unwrap_or_default(), str::to_owned);
        let mut base = Config::new();
        base.user(&user)
            .dbname(conninfo.text("dbname").unwrap_or(&user))
            .application_name(
                conninfo.text("application_name").or(conninfo.text("fallback_application_name")).unwrap_or("systole"),
            )
            .ssl_negotiation(if tls.direct { SslNegotiation::Direct } else { SslNegotiation::Postgres })
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3);
        if let Some(password) = conninfo.text("password") {
            base.password(password);
        }
        let binding = conninfo.read("channel_binding", "disable, prefer or require", |text| match text {
            "disable" => Some(ChannelBinding::Disable),
            "prefer" => Some(ChannelBinding::Prefer),
            "require" => Some(ChannelBinding::Require),
            _ => None,
        })?;
        base.channel_binding(binding.unwrap_or(ChannelBinding::Prefer));
        Ok(Target {
            read_write: read_write.unwrap_or(endpoints.len() > 1),
            memory: Arc::new(Memory {
                turns: Turns::of(endpoints.len()),
                options_refused: AtomicBool::new(false),
                newest: Mutex::default(),
            }),
            endpoints,
            base,
            options: conninfo.text("options").unwrap_or_default().to_owned(),
            user,
            passfile: conninfo.text("passfile").map(PathBuf::from).or_else(|| environment.at_home(".pgpass")),
            tls,
            schema: Schema::default(),
            direct: None,
            metrics: Metrics::default(),
        })
    }

    /// The same database, with our tables in another schema than `systole`.
    pub fn in_schema(mut self, schema: Schema) -> Target {
        self.direct = self.direct.map(|direct| Box::new(direct.in_schema(schema.clone())));
        self.schema = schema;
        self
    }

    /// The same database, with a way to it that passes no pooler: for LISTEN, and for migrations.
    pub fn with_direct(mut self, direct: Target) -> Target {
        self.direct = Some(Box::new(direct.in_schema(self.schema.clone())));
        self
    }

    /// The way around a pooler, if one was given.
    pub(super) fn direct(&self) -> Option<&Target> {
        self.direct.as_deref()
    }

    /// Whether there is a way to it that passes no pooler.
    pub fn has_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// The schema of our tables and functions.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Where it is, for people: `"database" at host:port`. No password.
    pub fn describe(&self) -> String {
        let hosts: Vec<String> = self.endpoints.iter().map(Endpoint::describe).collect();
        let schema = if self.schema.is_default() { String::new() } else { format!(", schema {}", self.schema) };
        format!("\"{}\" at {}{schema}", self.database(), hosts.join(", "))
    }

    /// What a person should know before he trusts this connection: one sentence for each unprotected server.
    pub fn warnings(&self) -> Vec<String> {
        let beyond = self.endpoints.iter().filter(|endpoint| !endpoint.is_local());
        beyond
            .filter_map(|endpoint| {
                let (what, mode) = (endpoint.describe(), endpoint.mode.as_str());
                match endpoint.mode {
                    Mode::Disable => Some(format!("the connection to {what} is not encrypted (sslmode={mode})")),
                    Mode::Prefer => Some(format!(
                        "the connection to {what} is encrypted only if the server wants it, and nobody checks whose \
                         server that is (sslmode={mode})"
                    )),
                    Mode::Require => Some(format!(
                        "the connection to {what} is encrypted, but nobody checks whose server that is (sslmode={mode})"
                    )),
                    Mode::VerifyCa | Mode::VerifyFull => None,
                }
            })
            .collect()
    }

    /// As whom to log in.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    fn database(&self) -> &str {
        self.base.get_dbname().unwrap_or(&self.user)
    }

    /// Somebody continues this history. Returns a newer one of the same cluster, if we know of one.
    pub(crate) fn saw(&self, history: History) -> Option<History> {
        let mut newest = self.memory.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = newest.iter().find(|known| history.is_older_than(**known)).copied();
        if newer.is_none() {
            newest.retain(|known| *known != history && !known.is_older_than(history));
            newest.push(history);
        }
        newer
    }

    /// Whose turn it is, for all connections to this target.
    pub(super) fn turns(&self) -> &Turns {
        &self.memory.turns
    }

    /// The addresses of a candidate that is a name; `None` if it is none, and can be dialled as it is.
    pub(super) async fn look_up(
        &self,
        candidate: Candidate,
        attempt_timeout: Duration,
    ) -> Option<Result<Vec<IpAddr>, String>> {
        let endpoint = &self.endpoints[candidate.server];
        let Place::Tcp { host, address: None } = &endpoint.place else { return None };
        if candidate.address.is_some() {
            return None;
        }
        let found = tokio::time::timeout(share(attempt_timeout), tokio::net::lookup_host((&**host, endpoint.port)));
        Some(match found.await {
            Ok(Ok(found)) => Ok(found.map(|address| address.ip()).collect()),
            Ok(Err(error)) => Err(format!("{host}: {error}")),
            Err(_) => Err(format!("{host}: nobody says which address that is")),
        })
    }

    pub(super) fn options_refused(&self) -> bool {
        self.memory.options_refused.load(Ordering::Relaxed)
    }

    pub(super) fn remember_that_options_are_refused(&self) {
        self.memory.options_refused.store(true, Ordering::Relaxed);
    }

    /// What to dial. Reads passfile and certificates anew.
    pub(super) fn dialling(
        &self,
        candidate: Candidate,
        attempt_timeout: Duration,
        marked: bool,
    ) -> Result<Dialling, String> {
        let endpoint = &self.endpoints[candidate.server];
        let mut config = self.base.clone();
        // Keepalives do not notice a query in flight into a dead link; this does.
        config.tcp_user_timeout(attempt_timeout).port(endpoint.port);
        // The next one has its chance within this attempt.
        config.connect_timeout(share(attempt_timeout));
        match &endpoint.place {
            Place::Tcp { host, address } => {
                config.host(host);
                if let Some(address) = address.or(candidate.address) {
                    config.hostaddr(address);
                }
            }
            Place::Unix(path) => {
                config.host_path(path);
            }
        }
        config.ssl_mode(match endpoint.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        });
        if marked {
            config.options(format!("{} -c {MARKER}=yes", self.options));
        } else if !self.options.is_empty() {
            config.options(&self.options);
        }
        let mut no_password = None;
        if config.get_password().is_none() {
            match self.password_for(endpoint) {
                Ok(Some(password)) => {
                    config.password(password);
                }
                Ok(None) => {
                    no_password =
                        Some("put one into ~/.pgpass (mode 0600), PGPASSWORD or SYSTOLE_DATABASE_URL".to_owned());
                }
                Err(reason) => no_password = Some(reason),
            }
        }
        Ok(Dialling { config, tls: MakeRustlsConnect::new(self.tls.config(endpoint.mode)?), no_password })
    }

    fn password_for(&self, endpoint: &Endpoint) -> Result<Option<String>, String> {
        let Some(passfile) = &self.passfile else { return Ok(None) };
        password_of(passfile, &endpoint.in_passfiles, endpoint.port, self.database(), &self.user)
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Target").field(&self.describe()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Result<Target, InvalidTarget> {
        Target::resolve(text, &Environment { variable: &|_| None, home: None })
    }

    fn modes(text: &str) -> Vec<Mode> {
        target(text).unwrap().endpoints.iter().map(|endpoint| endpoint.mode).collect()
    }

    #[test]
    fn descriptions_and_errors_show_no_password() {
        let found = target("postgresql://me:hunter2@localhost:6543/fleet").unwrap();
        assert_eq!(found.describe(), "\"fleet\" at localhost:6543");
        assert!(!format!("{found:?}").contains("hunter2"));
        for bad in ["postgresql://me:hunter2@h:port/x", "postgresql://me:hunter2@h/x?sslmode=verify"] {
            let error = target(bad).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn beyond_this_machine_everything_is_verified_unless_told_otherwise() {
        assert_eq!(
            modes("postgresql://db.example,127.0.0.1,localhost/x"),
            [Mode::VerifyFull, Mode::Prefer, Mode::Prefer]
        );
        assert_eq!(
            modes("host=/run/postgresql,::1,10.0.0.1 sslmode=require"),
            [Mode::Disable, Mode::Require, Mode::Require]
        );
        // Neither a name that leads elsewhere nor a tunnel's end is this machine.
        assert_eq!(modes("host=localhost hostaddr=10.0.0.1"), [Mode::VerifyFull]);
        assert_eq!(modes("host=db.example hostaddr=127.0.0.1"), [Mode::VerifyFull]);
        assert_eq!(modes("hostaddr=127.0.0.1"), [Mode::Prefer]);
    }

    #[test]
    fn what_is_unprotected_is_said_aloud() {
        let said = |text: &str| target(text).unwrap().warnings();
        assert!(said("postgresql://db.example/x").is_empty());
        assert!(said("postgresql://localhost/x?sslmode=disable").is_empty());
        assert_eq!(
            said("postgresql://db.example/x?sslmode=disable"),
            ["the connection to db.example:5432 is not encrypted (sslmode=disable)"]
        );
        assert!(said("postgresql://a,b/x?sslmode=require")[1].contains("b:5432 is encrypted, but nobody checks"));
    }

    #[test]
    fn several_servers_must_be_writable() {
        assert!(target("postgresql://a:1,b:2,c:3/x").unwrap().read_write);
        assert!(!target("postgresql://a/x").unwrap().read_write);
        assert!(target("postgresql://a:1,b:2/x?target_session_attrs=standby").is_err());
    }

    #[test]
    fn passfiles_know_a_server_by_libpqs_name_for_it() {
        let known_as = |text: &str| target(text).unwrap().endpoints.remove(0).in_passfiles;
        assert_eq!(known_as("postgresql://db.example/x"), "db.example");
        assert_eq!(known_as("host=db.example hostaddr=10.0.0.1"), "db.example");
        assert_eq!(known_as("hostaddr=10.0.0.1"), "10.0.0.1");
        assert_eq!(known_as("host=/var/run/postgresql"), "localhost");
        assert_eq!(known_as(""), "localhost");
        assert_eq!(known_as("host=/run/elsewhere"), "/run/elsewhere");
        assert_eq!(known_as("host=/run/elsewhere hostaddr=10.0.0.1"), "/run/elsewhere");
    }

    #[test]
    fn an_address_is_nearer_than_a_socket() {
        let both = target("host=/run/elsewhere hostaddr=10.0.0.1 port=1").unwrap();
        assert_eq!(both.endpoints[0].describe(), "10.0.0.1:1");
        assert_eq!(both.endpoints[0].mode, Mode::VerifyFull);
    }

    #[test]
    fn lists_must_fit_together() {
        for bad in ["host=a,b hostaddr=1.2.3.4", "host=a port=1,2", "host=a port=0", "hostaddr=nowhere"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
