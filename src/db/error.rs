//! What went wrong with the database, by what a caller can do about it.

use std::error::Error;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::version::Version;

/// A call of the database that did not answer as hoped.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DbError {
    /// No connection could be made, so nothing was asked. Try again later.
    #[error("PostgreSQL {target} cannot be reached: {reason}")]
    Unreachable {
        /// Which database, without secrets.
        target: String,
        /// The chain of causes.
        reason: String,
    },
    /// The connection broke after the statement was sent: whether it happened is unknown. Ask again.
    #[error("the connection to PostgreSQL {target} broke: {reason}")]
    Broken {
        /// Which database, without secrets.
        target: String,
        /// The chain of causes.
        reason: String,
    },
    /// No answer within the bound: whether it happened is unknown. Ask again.
    #[error("PostgreSQL {target} did not answer within {}", humantime::format_duration(*.after))]
    Timeout {
        /// Which database, without secrets.
        target: String,
        /// The bound on dialling and statement together.
        after: Duration,
    },
    /// The server turned us away for now (starting up, shutting down, out of connections, locks or memory). Try again.
    #[error("PostgreSQL {target} cannot serve us now: {message}")]
    Unavailable {
        /// Which database, without secrets.
        target: String,
        /// The server's words.
        message: String,
    },
    /// Wrong user, password, database name or pg_hba rule. Only a person can mend it.
    #[error(
        "PostgreSQL {target} refuses us: {message}. Check user, password (or sslcert) and database in the URL, and \
         pg_hba.conf"
    )]
    Refused {
        /// Which database, without secrets.
        target: String,
        /// The server's words.
        message: String,
    },
    /// The server, or the way to it, is not what it should be: nothing was sent to it. Only a person can mend it.
    #[error("PostgreSQL {target} is not trusted: {reason}")]
    Untrusted {
        /// Which database, without secrets.
        target: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A file that is needed to connect (passfile, certificate, key) cannot be used. Only a person can mend it.
    #[error("PostgreSQL {target} cannot be connected to: {reason}")]
    Unprepared {
        /// Which database, without secrets.
        target: String,
        /// Which file, and what is wrong with it.
        reason: String,
    },
    /// This binary is older than what the fleet still allows. Only an upgrade mends it.
    #[error(
        "systole {ours} is too old for PostgreSQL {target}, where {oldest} is the oldest allowed: upgrade it on this host"
    )]
    TooOld {
        /// Which database, without secrets.
        target: String,
        /// The oldest version that may take up work.
        oldest: String,
        /// This one.
        ours: String,
    },
    /// Our tables or functions are not there, or are older than this binary. Only `systole migrate` mends it.
    #[error(
        "PostgreSQL {target} has no systole schema for this version ({message}). Create or update it with: systole migrate"
    )]
    NotMigrated {
        /// Which database, without secrets.
        target: String,
        /// What is missing.
        message: String,
    },
    /// The server only reads: a standby, or default_transaction_read_only.
    #[error("PostgreSQL {target} is read-only ({message}). Point the URL at the primary")]
    ReadOnly {
        /// Which database, without secrets.
        target: String,
        /// The server's words.
        message: String,
    },
    /// A former primary that accepts writes again, or still: what it acknowledges, its successor never hears of.
    #[error(
        "PostgreSQL {target} is not the primary any more: this host has seen timeline {newer} of the same cluster, and this \
         is an older one. Shut it down or rejoin it as a standby. If it is meant to be the primary again, remove the folder \
         outbox from the state folder of each host (systole doctor names it), and restart systole there"
    )]
    Outdated {
        /// Which database, without secrets.
        target: String,
        /// The newest timeline seen.
        newer: u32,
    },
    /// The role lacks a right.
    #[error("PostgreSQL {target} does not permit this: {message}. systole doctor says which role needs what")]
    Denied {
        /// Which database, without secrets.
        target: String,
        /// The server's words.
        message: String,
    },
    /// Any other answer of the server: a value it refuses, or a bug of ours.
    #[error("PostgreSQL {target} answered with an error: {message} (SQLSTATE {code})")]
    Statement {
        /// Which database, without secrets.
        target: String,
        /// Five characters, from PostgreSQL's table of error codes.
        code: String,
        /// The server's words.
        message: String,
    },
}

impl DbError {
    /// Whether the database refuses what it was told, and always will: values that cannot be stored, in classes 22 and 23, or
    /// what our own functions raise.
    pub(crate) fn is_about_the_value(&self) -> bool {
        matches!(self, DbError::Statement { code, .. } if code.starts_with("22") || code.starts_with("23") || code == "P0001")
    }

    /// Whether asking again later may succeed without anybody mending something.
    pub fn is_transient(&self) -> bool {
        match self {
            DbError::Unreachable { .. }
            | DbError::Broken { .. }
            | DbError::Timeout { .. }
            | DbError::Unavailable { .. }
            // A failover or a repaired setting mends these two under a running child.
            | DbError::ReadOnly { .. }
            | DbError::Outdated { .. } => true,
            DbError::Refused { .. }
            | DbError::Untrusted { .. }
            | DbError::Unprepared { .. }
            | DbError::TooOld { .. }
            | DbError::NotMigrated { .. }
            | DbError::Denied { .. }
            | DbError::Statement { .. } => false,
        }
    }

    /// Sorts an error of the driver. `dialling`: no statement of ours had been sent yet.
    pub(crate) fn from_driver(target: String, error: &tokio_postgres::Error, dialling: bool) -> DbError {
        let Some(answer) = error.as_db_error() else {
            let reason = chain(error);
            // The driver's own words, here and below; there is no other sign.
            if reason.contains("unsupported authentication method") {
                let message = "it asks for GSSAPI, SSPI or Kerberos, and systole has none of them".to_owned();
                return DbError::Refused { target, message };
            }
            if reason.contains("unsupported SASL mechanism") {
                let message =
                    "of SASL it knows none but mechanisms that systole has not (OAUTHBEARER, perhaps); systole \
                               has SCRAM-SHA-256"
                        .to_owned();
                return DbError::Refused { target, message };
            }
            if let Some(reason) = distrust(error, &reason) {
                return DbError::Untrusted { target, reason };
            }
            return if dialling { DbError::Unreachable { target, reason } } else { DbError::Broken { target, reason } };
        };
        let message = match answer.detail() {
            Some(detail) => format!("{} ({detail})", answer.message()),
            None => answer.message().to_owned(),
        };
        let code = answer.code();
        match code.code() {
            _ if *code == SqlState::READ_ONLY_SQL_TRANSACTION => DbError::ReadOnly { target, message },
            "SY001" => {
                let (oldest, ours) = (answer.message().to_owned(), Version::OURS.to_string());
                DbError::TooOld { target, oldest, ours }
            }
            "3F000" | "42P01" | "42883" | "42703" => DbError::NotMigrated { target, message },
            "3D000" | "28000" | "28P01" => DbError::Refused { target, message },
            "42501" => DbError::Denied { target, message },
            // Lost connection, out of resources, operator intervention, serialization and deadlock, lock not available.
            "40001" | "40P01" | "55P03" | "23505" => DbError::Unavailable { target, message },
            other if ["08", "53", "57", "58"].iter().any(|class| other.starts_with(class)) => {
                DbError::Unavailable { target, message }
            }
            other => DbError::Statement { target, code: other.to_owned(), message },
        }
    }
}

/// What is wrong with the other side, and what to do, if it is its certificate or the lack of one.
fn distrust(error: &tokio_postgres::Error, words: &str) -> Option<String> {
    if words.contains("server does not support TLS") {
        return Some(
            "it does not speak TLS. Turn on ssl there, or write sslmode=disable if the network itself is trusted"
                .to_owned(),
        );
    }
    if words.contains("server did not use channel binding") {
        return Some(
            "it did not bind our password to the TLS channel, as channel_binding=require demands. It has to ask for \
             scram-sha-256 in its pg_hba.conf, and to speak TLS"
                .to_owned(),
        );
    }
    if let Some((_, what)) = words.split_once("authentication error: ") {
        return Some(format!("it cannot show that it knows our password ({what}): look at what is answering there"));
    }
    let mut source = error.source();
    while let Some(cause) = source {
        // An io::Error shows what it wraps, and not as its source.
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref()).or_else(|| cause.downcast_ref()) {
            return Some(distrust_in(tls));
        }
        source = cause.source();
    }
    None
}

fn distrust_in(error: &rustls::Error) -> String {
    use rustls::{AlertDescription, CertificateError as Wrong, Error as Tls, PeerIncompatible as Peer};
    let (what, remedy) = match error {
        Tls::InvalidCertificate(wrong) => match wrong {
            Wrong::Expired | Wrong::ExpiredContext { .. } => {
                ("its certificate has expired", "renew it there, or set the clock here, if that is what is wrong")
            }
            Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
                ("its certificate is not valid yet", "set the clock here, if that is what is wrong")
            }
            wrong if *wrong == Wrong::UnknownIssuer || is_an_authoritys(wrong) => (
                "its certificate is signed by nobody we know",
                "name its CA's certificate with sslrootcert=FILE, also if it is signed by itself",
            ),
            Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => (
                "its certificate is for another name",
                "connect by a name in its subjectAltName, or give that as host and the address as hostaddr",
            ),
            Wrong::Revoked => ("its certificate was revoked", "look at who is answering there"),
            Wrong::UnknownRevocationStatus => (
                "no list says whether its certificate was revoked",
                "put a list of each issuer of its chain into the file of sslcrl (~/.postgresql/root.crl)",
            ),
            Wrong::ExpiredRevocationList | Wrong::ExpiredRevocationListContext { .. } => (
                "the list of what was revoked has expired",
                "put a new one into the file of sslcrl (~/.postgresql/root.crl)",
            ),
            _ => ("its certificate cannot be verified", "look at it with: openssl s_client -starttls postgres"),
        },
        Tls::AlertReceived(AlertDescription::ProtocolVersion)
        | Tls::PeerIncompatible(Peer::ServerDoesNotSupportTls12Or13 | Peer::ServerTlsVersionIsDisabledByOurConfig) => (
            "it speaks no version of TLS that may be used",
            "compare ssl_min_protocol_version and ssl_max_protocol_version here with those of its settings",
        ),
        Tls::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied,
        ) => ("it does not accept our client certificate", "name one it accepts with sslcert=FILE and sslkey=FILE"),
        _ => ("TLS with it failed", "look at its log"),
    };
    format!("{what} ({error}): {remedy}")
}

/// Of a server that shows the certificate of an authority, most likely signed by itself. The words are all there is.
fn is_an_authoritys(wrong: &rustls::CertificateError) -> bool {
    matches!(wrong, rustls::CertificateError::Other(reason) if reason.to_string().contains("CaUsedAsEndEntity"))
}

/// An error with all its causes: `tokio_postgres::Error` alone prints only "db error".
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
