//! Every parameter that libpq knows (PostgreSQL 18, "Parameter Key Words"), with what it means here.

/// A parameter.
pub(super) struct Keyword {
    pub(super) name: &'static str,
    /// The variable that fills it in.
    pub(super) variable: Option<&'static str>,
    pub(super) meaning: Meaning,
}

/// What a parameter means here.
pub(super) enum Meaning {
    /// As in libpq.
    Used,
    /// Accepted, and without effect: systole bounds and watches its connections itself.
    Ours,
    /// Only these values are possible, for this reason. Anything else is refused: an ignored demand is a broken one.
    Only(&'static [&'static str], &'static str),
}

const fn used(name: &'static str, variable: &'static str) -> Keyword {
    Keyword { name, variable: Some(variable), meaning: Meaning::Used }
}

const fn ours(name: &'static str) -> Keyword {
    Keyword { name, variable: None, meaning: Meaning::Ours }
}

const fn only(
    name: &'static str,
    variable: Option<&'static str>,
    values: &'static [&'static str],
    reason: &'static str,
) -> Keyword {
    Keyword { name, variable, meaning: Meaning::Only(values, reason) }
}

pub(super) const KEYWORDS: &[Keyword] = &[
    used("host", "PGHOST"),
    used("hostaddr", "PGHOSTADDR"),
    used("port", "PGPORT"),
    used("dbname", "PGDATABASE"),
    used("user", "PGUSER"),
    used("password", "PGPASSWORD"),
    used("passfile", "PGPASSFILE"),
    used("service", "PGSERVICE"),
    used("servicefile", "PGSERVICEFILE"),
    used("options", "PGOPTIONS"),
    used("application_name", "PGAPPNAME"),
    Keyword { name: "fallback_application_name", variable: None, meaning: Meaning::Used },
    used("target_session_attrs", "PGTARGETSESSIONATTRS"),
    used("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    used("channel_binding", "PGCHANNELBINDING"),
    used("sslmode", "PGSSLMODE"),
    used("sslnegotiation", "PGSSLNEGOTIATION"),
    used("sslrootcert", "PGSSLROOTCERT"),
    used("sslcert", "PGSSLCERT"),
    used("sslkey", "PGSSLKEY"),
    used("sslcrl", "PGSSLCRL"),
    used("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    used("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    ours("connect_timeout"),
    ours("keepalives"),
    ours("keepalives_idle"),
    ours("keepalives_interval"),
    ours("keepalives_count"),
    ours("tcp_user_timeout"),
    ours("krbsrvname"),
    ours("gsslib"),
    ours("gssdelegation"),
    only("client_encoding", Some("PGCLIENTENCODING"), &["utf8", "utf-8", "unicode", "auto"], "it speaks UTF8 only"),
    only("gssencmode", Some("PGGSSENCMODE"), &["disable", "prefer"], "it has no GSSAPI; encrypt with TLS"),
    only("replication", None, &["false", "off", "no", "0"], "it makes ordinary connections only"),
    only("requirepeer", Some("PGREQUIREPEER"), &[], "it does not check who owns a socket; use TLS with verify-full"),
    only("require_auth", Some("PGREQUIREAUTH"), &[], "use channel_binding=require, which only SCRAM over TLS passes"),
    only("sslcertmode", Some("PGSSLCERTMODE"), &["allow"], "a client certificate is sent if the server asks for it"),
    only("sslcompression", Some("PGSSLCOMPRESSION"), &["0"], "TLS compression is insecure; leave it out"),
    only("sslcrldir", Some("PGSSLCRLDIR"), &[], "name one file with sslcrl"),
    only("sslpassword", None, &[], "keys with a passphrase cannot be read; decrypt it into a file of mode 0600"),
    only("sslsni", Some("PGSSLSNI"), &["1"], "the host name is always sent"),
];
