//! How TLS begins: its versions, and whether it is asked for in plain text first.

use super::certificates::Flaw;
use super::server::{Server, by_tcp};
use super::support::Database;
use super::tls::{self, TlsServer};
use super::{PASSWORD, STATUS, assert_good, assert_told, user};

/// Puts a setting of the server's back when it is dropped.
struct Set<'a>(&'a Server, &'static str);

impl<'a> Set<'a> {
    fn to(server: &'a TlsServer, name: &'static str, value: &str) -> Set<'a> {
        server.server.set(&[(name, value)]);
        Set(&server.server, name)
    }
}

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.database.sql(&format!("ALTER SYSTEM RESET {}", self.1));
        self.0.reload();
    }
}

#[test]
fn a_version_of_tls_below_what_was_asked_for_is_refused() {
    let Some(server) = tls::server(Flaw::None) else { return };
    let client = server.client();
    let by = |version: &str| client.asks(&format!("host=db.example sslrootcert=@ours.crt {version}"));
    assert_good(&by("ssl_min_protocol_version=TLSv1.3"));
    assert_good(&by("ssl_max_protocol_version=TLSv1.2"));
    {
        let _old = Set::to(&server, "ssl_max_protocol_version", "TLSv1.2");
        assert_good(&by(""));
        assert_told(&by("ssl_min_protocol_version=TLSv1.3"), 78, &["db.example", "is not trusted", "version"]);
    }
    {
        let _new = Set::to(&server, "ssl_min_protocol_version", "TLSv1.3");
        assert_good(&by("ssl_min_protocol_version=TLSv1.3"));
        assert_told(&by("ssl_max_protocol_version=TLSv1.2"), 78, &["db.example", "is not trusted", "version"]);
    }
    let crossed = by("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2");
    assert_told(&crossed, 78, &["ssl_max_protocol_version", "ssl_min_protocol_version"]);
}

#[test]
fn tls_without_asking_first_needs_a_server_that_knows_it() {
    let Some(server) = tls::server(Flaw::None) else { return };
    let client = server.client();
    let version: u32 = server.server.database.value("SHOW server_version_num").parse().unwrap();
    let by = |name: &str| client.asks(&format!("host={name} sslnegotiation=direct sslrootcert=@ours.crt"));
    if version >= 170_000 {
        assert_good(&by("db.example"));
        assert_told(&by("other.example"), 78, &["for another name"]);
        assert_good(&client.asks("host=localhost sslnegotiation=direct sslmode=require"));
    } else {
        // It takes the first byte for a length, and hangs up.
        eprintln!("skipped: sslnegotiation=direct with a server that knows it, which takes PostgreSQL 17");
        assert_ne!(by("db.example").status.code(), Some(0));
    }
}

#[test]
fn tls_without_asking_first_is_not_for_those_who_can_do_without() {
    let database = Database::new();
    for mode in ["", "sslmode=prefer", "sslmode=allow", "sslmode=disable"] {
        let host = user(&database, &format!("{} user=nobody sslnegotiation=direct {mode}", by_tcp(&database)));
        let asked = host.with("PGPASSWORD", PASSWORD).output(&STATUS);
        assert_told(&asked, 78, &["sslnegotiation", "sslmode=require"]);
    }
}
