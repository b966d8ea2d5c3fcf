//! What a client has to prove: by a certificate, by a password, by a password that is bound to the channel.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::certificates::{Certified, Flaw};
use super::server::{by_tcp, worker};
use super::support::{Database, eventually};
use super::tls::{self, Client};
use super::{PASSWORD, SOON, STATUS, assert_good, assert_told, user, write};

/// Gives the user a certificate and its key, as `name.crt` and `name.key`.
fn give(client: &Client, name: &str, certified: &Certified) {
    write(&client.host, &format!("{name}.crt"), 0o644, &certified.certificate);
    write(&client.host, &format!("{name}.key"), 0o600, &certified.key);
}

#[test]
fn a_certificate_lets_in_the_user_whose_it_is() {
    let Some(server) = tls::server(Flaw::None) else { return };
    worker(&server.server.database, "by_certificate");
    let client = server.client();
    give(&client, "mine", &server.authority.client("by_certificate"));
    give(&client, "others", &server.authority.client("agent"));
    give(&client, "strangers-own", &server.stranger.client("by_certificate"));
    let rest = "host=db.example user=by_certificate sslrootcert=@ours.crt";
    let by = |name: &str| client.asks(&format!("{rest} sslcert=@{name}.crt sslkey=@{name}.key"));
    assert_good(&by("mine"));
    assert_told(&client.asks(rest), 78, &["valid client certificate", "sslcert"]);
    assert_told(&by("others"), 78, &["certificate authentication failed"]);
    for version in ["TLSv1.3", "TLSv1.2"] {
        let own = "sslcert=@strangers-own.crt sslkey=@strangers-own.key";
        // Where the server's hanging up is faster than its reason, this is a broken connection like any other.
        let asked = eventually("a reason", SOON, || {
            let asked = client.asks(&format!("{rest} {own} ssl_max_protocol_version={version}"));
            (asked.status.code() != Some(69)).then_some(asked)
        });
        assert_told(&asked, 78, &["db.example", "does not accept our client certificate", "sslcert=FILE"]);
    }
    // Where libpq looks for it.
    let mine = server.authority.client("by_certificate");
    write(&client.host, "home/.postgresql/postgresql.crt", 0o644, &mine.certificate);
    write(&client.host, "home/.postgresql/postgresql.key", 0o600, &mine.key);
    assert_good(&client.asks(rest));
}

#[test]
fn a_certificate_besides_a_password() {
    let Some(server) = tls::server(Flaw::None) else { return };
    worker(&server.server.database, "by_both");
    let client = server.client();
    give(&client, "mine", &server.authority.client("by_both"));
    let rest = "host=db.example user=by_both sslrootcert=@ours.crt";
    assert_good(&client.asks(&format!("{rest} sslcert=@mine.crt sslkey=@mine.key")));
    assert_told(&client.asks(rest), 78, &["valid client certificate"]);
    let wrong = client.asks(&format!("{rest} sslcert=@mine.crt sslkey=@mine.key password={}", super::WRONG));
    assert_told(&wrong, 78, &["password authentication failed"]);
}

#[test]
fn a_key_that_others_can_read_is_no_key() {
    let Some(server) = tls::server(Flaw::None) else { return };
    let client = server.client();
    let mine = server.authority.client("by_certificate");
    give(&client, "mine", &mine);
    let by = |key: &str| client.asks(&format!("host=db.example sslrootcert=@ours.crt sslcert=@mine.crt sslkey=@{key}"));
    for mode in [0o604, 0o660] {
        write(&client.host, "open.key", mode, &mine.key);
        assert_told(&by("open.key"), 78, &["sslkey", "open.key", "others can read this key", "chmod 0600"]);
    }
    assert_told(&by("missing.key"), 78, &["sslkey", "missing.key", "No such file"]);
    write(&client.host, "no.key", 0o600, &mine.certificate);
    assert_told(&by("no.key"), 78, &["sslkey", "no.key", "PEM key is expected"]);
    // Of somebody else's certificate.
    write(&client.host, "others.key", 0o600, &server.authority.client("by_certificate").key);
    assert_told(&by("others.key"), 78, &["mine.crt"]);
}

#[test]
fn a_password_bound_to_the_channel_is_not_given_without_it() {
    let Some(server) = tls::server(Flaw::None) else { return };
    let client = server.client();
    let bound = "channel_binding=require sslrootcert=@ours.crt";
    assert_good(&client.asks(&format!("host=db.example {bound}")));
    assert_good(&client.asks(&format!("host=db.example {bound} ssl_max_protocol_version=TLSv1.2")));
    // It shows that both ends see the same certificate, whoever has signed it.
    assert_good(&client.asks("host=localhost channel_binding=require"));
    // A server that asks for the password itself, or for nothing at all, has not shown anything.
    for role in ["by_text", "by_trust"] {
        worker(&server.server.database, role);
        let asked = client.asks(&format!("host=db.example user={role} {bound}"));
        assert_told(&asked, 78, &["is not trusted", "channel_binding"]);
        assert_good(&client.asks(&format!("host=db.example user={role} sslrootcert=@ours.crt")));
    }
}

/// A server that says this to whoever comes, and no more.
fn saying(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut length = [0; 4];
        client.read_exact(&mut length).unwrap();
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - length.len()];
        client.read_exact(&mut rest).unwrap();
        client.write_all(answer).unwrap();
        client.read_to_end(&mut rest)
    });
    port
}

#[test]
fn a_way_to_log_in_that_we_have_not_is_named() {
    let database = Database::new();
    let asked = |answer| {
        let url = format!("host=127.0.0.1 port={} dbname=x user=y password=z sslmode=disable", saying(answer));
        user(&database, &url).output(&STATUS)
    };
    assert_told(&asked(b"R\0\0\0\x08\0\0\0\x07"), 78, &["refuses us", "GSSAPI", "pg_hba.conf"]);
    let sasl = asked(b"R\0\0\0\x15\0\0\0\x0aOAUTHBEARER\0\0");
    assert_told(&sasl, 78, &["refuses us", "SASL", "SCRAM-SHA-256", "pg_hba.conf"]);
}

#[test]
fn an_answer_with_a_code_of_nobodys_is_told_as_it_is() {
    let database = Database::new();
    let port = saying(b"E\0\0\0\x14SFATAL\0CX\0Modd\0\0");
    let url = format!("host=127.0.0.1 port={port} dbname=x user=y sslmode=disable");
    assert_told(&user(&database, &url).output(&STATUS), 70, &["odd", "SQLSTATE X"]);
}

#[test]
fn without_tls_there_is_no_channel_to_bind_to() {
    let database = Database::new();
    worker(&database, "unbound");
    let by = |rest: &str| {
        let host = user(&database, &format!("{} user=unbound {rest}", by_tcp(&database)));
        host.with("PGPASSWORD", PASSWORD).output(&STATUS)
    };
    assert_good(&by(""));
    for mode in ["", "sslmode=disable"] {
        assert_told(&by(&format!("channel_binding=require {mode}")), 78, &["is not trusted", "channel_binding"]);
    }
}
