//! What a server has to prove, and what is said when it cannot. With one server, whose certificate changes.

use std::process::Output;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::certificates::{Authority, Flaw};
use super::server::{Server, by_tcp, worker};
use super::support::{Database, Systole};
use super::{PASSWORD, STATUS, assert_good, assert_told, told, user, write};

/// A server that takes nobody without TLS by TCP, and who has signed for it.
pub(crate) struct TlsServer {
    pub(crate) server: Server,
    pub(crate) authority: Authority,
    /// Somebody who has signed nothing here.
    pub(crate) stranger: Authority,
}

/// A user of it, with the files that describe it.
pub(crate) struct Client {
    pub(crate) host: Systole,
    rest: String,
}

/// The server, for one test at a time and with a certificate of this kind; `None` if it was built without TLS.
pub(crate) fn server(flaw: Flaw) -> Option<MutexGuard<'static, TlsServer>> {
    static SERVER: OnceLock<Option<Mutex<TlsServer>>> = OnceLock::new();
    let Some(found) = SERVER.get_or_init(TlsServer::new) else {
        eprintln!("skipped: this PostgreSQL was built without TLS");
        return None;
    };
    let server = found.lock().unwrap_or_else(PoisonError::into_inner);
    server.show(flaw);
    Some(server)
}

impl TlsServer {
    fn new() -> Option<Mutex<TlsServer>> {
        let server = Server::new();
        if server.database.try_sql("ALTER SYSTEM SET ssl = on").is_err() {
            return None;
        }
        let made = TlsServer { server, authority: Authority::new("ours"), stranger: Authority::new("strangers") };
        made.server.own.write("ca.crt", &made.authority.certificate());
        worker(&made.server.database, "agent");
        made.server.admit(&[
            "hostssl all agent 127.0.0.1/32 scram-sha-256",
            "host    all agent_without 127.0.0.1/32 scram-sha-256",
            "hostssl all by_certificate 127.0.0.1/32 cert",
            "hostssl all by_both 127.0.0.1/32 scram-sha-256 clientcert=verify-full",
            "hostssl all by_text 127.0.0.1/32 password",
            "hostssl all by_trust 127.0.0.1/32 trust",
        ]);
        made.show(Flaw::None);
        made.server.set(&[("ssl", "on"), ("ssl_ca_file", "ca.crt")]);
        Some(Mutex::new(made))
    }

    fn show(&self, flaw: Flaw) {
        let certified = self.authority.server(flaw);
        self.server.own.write("server.crt", &certified.certificate);
        self.server.own.write("server.key", &certified.key);
        self.server.reload();
    }

    /// A user who knows everybody's certificates, as `ours.crt`, `strangers.crt` and `shown.crt` in his folder.
    pub(crate) fn client(&self) -> Client {
        let host = user(&self.server.database, "").with("PGPASSWORD", PASSWORD);
        write(&host, "ours.crt", 0o644, &self.authority.certificate());
        write(&host, "strangers.crt", 0o644, &self.stranger.certificate());
        let shown = self.server.own.folder().join("cluster/data/server.crt");
        write(&host, "shown.crt", 0o644, &std::fs::read_to_string(shown).unwrap());
        Client { host, rest: format!("hostaddr=127.0.0.1 port={} dbname=systole", self.server.port()) }
    }
}

impl Client {
    /// `systole status` by this string; `@x` stands for the file x of this user.
    pub(crate) fn asks(&self, url: &str) -> Output {
        let folder = self.host.state.path().display().to_string();
        let user = if url.contains("user=") { "" } else { "user=agent" };
        // The last one counts.
        let url = format!("{} {user} {}", self.rest, url.replace('@', &format!("{folder}/")));
        self.host.clone().with("SYSTOLE_DATABASE_URL", &url).output(&STATUS)
    }
}

#[test]
fn beyond_this_machine_a_server_proves_who_it_is() {
    let Some(server) = server(Flaw::None) else { return };
    let client = server.client();
    assert_good(&client.asks("host=db.example sslrootcert=@ours.crt"));
    let issuer = &["db.example", "is not trusted", "signed by nobody we know", "sslrootcert=FILE"];
    assert_told(&client.asks("host=db.example sslrootcert=@strangers.crt"), 78, issuer);
    let name = &["other.example", "is not trusted", "for another name", "subjectAltName", "hostaddr"];
    assert_told(&client.asks("host=other.example sslrootcert=@ours.crt"), 78, name);
    // A name and nothing else: whoever has only an address has no proof.
    assert_told(&client.asks("host=10.0.0.7 sslrootcert=@ours.crt"), 78, &["10.0.0.7", "for another name"]);

    let by_system = |file: &str| {
        let mut client = server.client();
        client.host = client.host.with("SSL_CERT_FILE", file);
        client.asks("host=db.example sslrootcert=system")
    };
    let folder = client.host.state.path();
    assert_told(&client.asks("host=db.example sslrootcert=system"), 78, &["db.example"]);
    assert_told(&by_system(folder.join("strangers.crt").to_str().unwrap()), 78, issuer);
    assert_good(&by_system(folder.join("ours.crt").to_str().unwrap()));

    // Where libpq looks for it.
    assert_told(&client.asks("host=db.example"), 78, &["db.example"]);
    write(&client.host, "home/.postgresql/root.crt", 0o644, &server.authority.certificate());
    assert_good(&client.asks("host=db.example"));
    assert_told(&client.asks("host=db.example sslrootcert=system"), 78, &["db.example"]);
}

#[test]
fn verify_ca_takes_any_name_and_not_any_issuer() {
    let Some(server) = server(Flaw::None) else { return };
    let client = server.client();
    assert_good(&client.asks("host=other.example sslmode=verify-ca sslrootcert=@ours.crt"));
    let issuer = &["signed by nobody we know"];
    assert_told(&client.asks("host=other.example sslmode=verify-ca sslrootcert=@strangers.crt"), 78, issuer);
    // As in libpq: who names a certificate wants it to be verified with.
    assert_told(&client.asks("host=other.example sslmode=require sslrootcert=@strangers.crt"), 78, issuer);
    assert_good(&client.asks("host=other.example sslmode=require sslrootcert=@ours.crt"));
    // And so does whoever keeps one where libpq looks for it.
    assert_eq!(client.asks("host=other.example sslmode=require").status.code(), Some(0));
    write(&client.host, "home/.postgresql/root.crt", 0o644, &server.stranger.certificate());
    assert_told(&client.asks("host=other.example sslmode=require"), 78, issuer);
    write(&client.host, "home/.postgresql/root.crt", 0o644, &server.authority.certificate());
    assert_good(&client.asks("host=other.example sslmode=require"));
}

#[test]
fn by_the_systems_authorities_the_name_counts_also_with_verify_ca() {
    let Some(server) = server(Flaw::None) else { return };
    let mut client = server.client();
    let trusted = client.host.state.path().join("ours.crt");
    client.host = client.host.with("SSL_CERT_FILE", trusted.to_str().unwrap());
    assert_good(&client.asks("host=db.example sslmode=verify-ca"));
    assert_told(&client.asks("host=other.example sslmode=verify-ca"), 78, &["for another name"]);
    // Whoever insists on them hears, as in libpq, that less than the name will not do.
    for weak in ["verify-ca", "require", "prefer", "disable"] {
        let asked = client.asks(&format!("host=db.example sslrootcert=system sslmode={weak}"));
        assert_told(&asked, 78, &["sslmode", weak, "verify-full, since sslrootcert is system"]);
    }
    assert_good(&client.asks("host=db.example sslrootcert=system sslmode=verify-full"));
}

#[test]
fn whoever_names_whom_to_trust_has_the_name_looked_at_also_on_this_machine() {
    let Some(server) = server(Flaw::None) else { return };
    let client = server.client();
    // Its certificate is for db.example.
    assert_good(&client.asks("host=localhost"));
    assert_told(&client.asks("host=localhost sslrootcert=@ours.crt"), 78, &["localhost", "for another name"]);
    assert_told(&client.asks("host=127.0.0.1 sslrootcert=@ours.crt"), 78, &["127.0.0.1", "for another name"]);
    assert_told(&client.asks("host=localhost sslrootcert=system"), 78, &["localhost", "is not trusted"]);
    assert_good(&client.asks("host=localhost sslrootcert=@ours.crt sslmode=verify-ca"));
    // One that only lies about asks for nothing here.
    write(&client.host, "home/.postgresql/root.crt", 0o644, &server.stranger.certificate());
    assert_good(&client.asks("host=localhost"));
}

#[test]
fn a_certificate_that_is_no_longer_or_not_yet_valid_is_refused_with_the_reason() {
    for (flaw, word) in [(Flaw::Expired, "has expired"), (Flaw::NotYetValid, "not valid yet")] {
        let Some(server) = server(flaw) else { return };
        let client = server.client();
        for mode in ["verify-full", "verify-ca"] {
            let asked = client.asks(&format!("host=db.example sslmode={mode} sslrootcert=@ours.crt"));
            assert_told(&asked, 78, &["db.example", word, "clock"]);
        }
        // Nobody asked for its proof.
        assert_eq!(client.asks("host=db.example sslmode=require").status.code(), Some(0));
    }
}

#[test]
fn a_certificate_signed_by_itself_is_trusted_if_it_is_named() {
    for flaw in [Flaw::SelfSigned, Flaw::SelfSignedAuthority] {
        let Some(server) = server(flaw) else { return };
        let client = server.client();
        for trusted in ["sslrootcert=@ours.crt", "sslrootcert=@strangers.crt"] {
            let asked = client.asks(&format!("host=db.example {trusted}"));
            assert_told(&asked, 78, &["db.example", "is not trusted", "sslrootcert=FILE"]);
        }
        assert_good(&client.asks("host=db.example sslrootcert=@shown.crt"));
        assert_told(&client.asks("host=other.example sslrootcert=@shown.crt"), 78, &["for another name"]);
        assert_good(&client.asks("host=other.example sslmode=verify-ca sslrootcert=@shown.crt"));
    }
    let Some(server) = server(Flaw::ExpiredSelfSignedAuthority) else { return };
    assert_told(&server.client().asks("host=db.example sslrootcert=@shown.crt"), 78, &["has expired"]);
}

#[test]
fn a_server_that_is_not_trusted_stands_in_nobodys_way() {
    let Some(server) = server(Flaw::None) else { return };
    let client = server.client();
    let several = |hosts: &str, ports: &str| {
        client.asks(&format!("host={hosts} hostaddr=127.0.0.1,127.0.0.1 port={ports} sslrootcert=@ours.crt"))
    };
    let port = server.server.port();
    assert_good(&several("other.example,db.example", &format!("{port},{port}")));
    // But if there is no better one, it is what a person has to hear of.
    let name = &["is not trusted", "for another name"];
    assert_told(&several("other.example,db.example", &format!("{port},1")), 78, name);
    assert_told(&several("db.example,other.example", &format!("1,{port}")), 78, name);
}

#[test]
fn whoever_asks_for_less_than_proof_is_told_so() {
    let Some(server) = server(Flaw::None) else { return };
    let client = server.client();
    for (mode, warning) in [("require", "is encrypted, but nobody checks"), ("prefer", "only if the server wants it")] {
        let asked = client.asks(&format!("host=other.example sslmode={mode}"));
        assert_eq!(asked.status.code(), Some(0), "{}", told(&asked));
        let told = told(&asked);
        assert!(told.contains(warning) && told.contains(&format!("(sslmode={mode})")), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    // The server itself does not take this one.
    let plain = client.asks("host=other.example sslmode=disable");
    let told = told(&plain);
    assert_eq!(plain.status.code(), Some(78), "{told}");
    assert!(told.contains("is not encrypted (sslmode=disable)") && told.contains("no encryption"), "{told}");
}

#[test]
fn on_this_machine_tls_is_taken_where_it_is_to_be_had_without_ado() {
    let plain = Database::new();
    worker(&plain, "at_home");
    let host = user(&plain, &format!("{} user=at_home", by_tcp(&plain))).with("PGPASSWORD", PASSWORD);
    assert_good(&host.output(&STATUS));
    // This one takes nobody without.
    let Some(server) = server(Flaw::Expired) else { return };
    assert_good(&server.client().asks("host=127.0.0.1"));
    assert_good(&server.client().asks("host=localhost"));
    assert_told(&server.client().asks("host=127.0.0.1 sslmode=disable"), 78, &["no encryption"]);
    // A name that leads to this machine is the name of whoever a tunnel leads to.
    assert_told(&server.client().asks("host=db.example"), 78, &["db.example"]);
}

#[test]
fn a_server_without_tls_is_not_taken_where_tls_was_asked_for() {
    let database = Database::new();
    worker(&database, "asked_for");
    let rest = by_tcp(&database).replace("host=127.0.0.1", "hostaddr=127.0.0.1");
    for asked in ["", "sslmode=verify-full", "sslmode=verify-ca", "sslmode=require"] {
        let url = format!("host=db.example {asked} user=asked_for {rest}");
        let output = user(&database, &url).with("PGPASSWORD", PASSWORD).output(&STATUS);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(78), "{asked}: {told}");
        assert!(told.contains("does not speak TLS") && told.contains("sslmode=disable"), "{asked}: {told}");
    }
    let output = user(&database, &format!("host=localhost sslmode=require user=asked_for {rest}"))
        .with("PGPASSWORD", PASSWORD)
        .output(&STATUS);
    assert_told(&output, 78, &["localhost", "does not speak TLS"]);
}
