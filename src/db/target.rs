//! Which database: a connection string, checked, described without its secrets, and named for local locks.

use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Config, NoTls};

/// The schema that holds our tables and functions.
pub(crate) const SCHEMA: &str = "systole";

/// A database to connect to. Its `Debug` and [`Target::describe`] show no password.
#[derive(Clone)]
pub struct Target {
    config: Config,
}

/// Why a connection string cannot be used; says what to write instead, and never shows the string, which may hold a
/// password.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InvalidTarget {
    /// It is not a connection string at all, or names an option that is not known.
    #[error(
        "the database URL cannot be read: {0}. It looks like postgresql://user@host:5432/database, \
         or host=/var/run/postgresql dbname=systole"
    )]
    Unreadable(String),
    /// It leaves this machine without saying how it is protected.
    #[error(
        "the database URL points at {host}, beyond this machine, and TLS is not supported yet. \
         Tunnel it to localhost, or add sslmode=disable if the network itself is trusted"
    )]
    Unprotected {
        /// The first host that is neither loopback nor a unix socket.
        host: String,
    },
    /// TLS was asked for by name.
    #[error("the database URL asks for TLS (sslmode={asked}), which is not supported yet")]
    TlsAsked {
        /// The mode that was asked for.
        asked: &'static str,
    },
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Target, InvalidTarget> {
        let mut config: Config = text
            .trim()
            .parse()
            .map_err(|error: tokio_postgres::Error| InvalidTarget::Unreadable(super::error::chain(&error)))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host("localhost");
        }
        if config.get_ssl_mode() == SslMode::Require {
            return Err(InvalidTarget::TlsAsked { asked: "require" });
        }
        if config.get_ssl_mode() != SslMode::Disable
            && let Some(host) = config.get_hosts().iter().find_map(beyond_this_machine)
        {
            return Err(InvalidTarget::Unprotected { host });
        }
        config
            .application_name("systole")
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3);
        Ok(Target { config })
    }
}

fn beyond_this_machine(host: &Host) -> Option<String> {
    match host {
        Host::Tcp(name) => {
            let local = name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
            (!local).then(|| name.clone())
        }
        #[cfg(unix)]
        Host::Unix(_) => None,
    }
}

impl Target {
    /// Where it is, for people: `database at host:port`. No password.
    pub fn describe(&self) -> String {
        let hosts: Vec<String> = self
            .config
            .get_hosts()
            .iter()
            .enumerate()
            .map(|(n, host)| {
                let ports = self.config.get_ports();
                let port = ports.get(n).or(ports.first()).copied().unwrap_or(5432);
                match host {
                    Host::Tcp(name) => format!("{name}:{port}"),
                    #[cfg(unix)]
                    Host::Unix(path) => format!("{}/.s.PGSQL.{port}", path.display()),
                }
            })
            .collect();
        format!("\"{}\" at {}", self.database(), hosts.join(", "))
    }

    /// The database's name: by PostgreSQL's rule that of the user, if none is given.
    fn database(&self) -> &str {
        self.config.get_dbname().or(self.config.get_user()).unwrap_or("postgres")
    }

    /// Connects; the returned future drives the connection and must be polled. Not bounded: the caller has a deadline.
    pub(crate) async fn connect(
        &self,
        attempt_timeout: Duration,
    ) -> Result<
        (tokio_postgres::Client, tokio_postgres::Connection<tokio_postgres::Socket, tokio_postgres::tls::NoTlsStream>),
        tokio_postgres::Error,
    > {
        let mut config = self.config.clone();
        // Keepalives do not notice a query in flight into a dead link; this does.
        config.tcp_user_timeout(attempt_timeout).connect_timeout(attempt_timeout);
        config.connect(NoTls).await
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

    #[test]
    fn descriptions_and_errors_show_no_password() {
        let target: Target = "postgresql://me:hunter2@localhost:6543/fleet".parse().unwrap();
        assert_eq!(target.describe(), "\"fleet\" at localhost:6543");
        assert!(!format!("{target:?}").contains("hunter2"));
        for bad in ["postgresql://me:hunter2@db.example/x", "postgresql://me:hunter2@localhost/x?sslmode=verify-full"] {
            let error = bad.parse::<Target>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn leaving_the_machine_in_the_clear_must_be_asked_for() {
        assert!("postgresql://db.example/x".parse::<Target>().is_err());
        assert!("postgresql://db.example/x?sslmode=disable".parse::<Target>().is_ok());
        assert!("postgresql://127.0.0.1/x".parse::<Target>().is_ok());
        assert!("host=/run/postgresql dbname=x".parse::<Target>().is_ok());
        assert!("postgresql://localhost/x?sslmode=require".parse::<Target>().is_err());
    }
}
