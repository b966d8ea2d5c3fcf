//! Certificates that were taken back, and lists that say nothing about the one that is shown.

use super::certificates::{Certified, Flaw};
use super::tls::{self, Client, TlsServer};
use super::{assert_good, assert_told, write};

/// Shows a certificate that is known by its number, and says which.
fn show(server: &TlsServer) -> Certified {
    let shown = server.authority.server(Flaw::None);
    server.server.own.write("server.crt", &shown.certificate);
    server.server.own.write("server.key", &shown.key);
    server.server.reload();
    shown
}

fn list(client: &Client, name: &str, text: &str) {
    write(&client.host, name, 0o644, text);
}

#[test]
fn a_revoked_certificate_is_refused() {
    let Some(server) = tls::server(Flaw::None) else { return };
    let client = server.client();
    let shown = show(&server);
    let other = server.authority.server(Flaw::None);
    list(&client, "revoked.crl", &server.authority.revocations(&[&shown]));
    list(&client, "another.crl", &server.authority.revocations(&[&other]));
    list(&client, "no.crl", "nonsense");
    for mode in ["verify-full", "verify-ca", "require"] {
        let rest = format!("host=db.example sslmode={mode} sslrootcert=@ours.crt");
        let by = |list: &str| client.asks(&format!("{rest} sslcrl=@{list}"));
        assert_told(&by("revoked.crl"), 78, &["db.example", "was revoked", "look at who is answering"]);
        assert_good(&by("another.crl"));
        assert_told(&by("missing.crl"), 78, &["sslcrl", "missing.crl", "No such file"]);
        assert_told(&by("no.crl"), 78, &["sslcrl", "no.crl"]);
    }
}

#[test]
fn a_list_that_does_not_tell_is_no_consent() {
    let Some(server) = tls::server(Flaw::None) else { return };
    let client = server.client();
    let other = server.authority.server(Flaw::None);
    list(&client, "strangers.crl", &server.stranger.revocations(&[&other]));
    list(&client, "old.crl", &server.authority.revocations_until(2021, &[&other]));
    let both = format!("{}{}", server.stranger.revocations(&[]), server.authority.revocations(&[&other]));
    list(&client, "both.crl", &both);
    let by = |list: &str| client.asks(&format!("host=db.example sslrootcert=@ours.crt sslcrl=@{list}"));
    assert_told(&by("strangers.crl"), 78, &["db.example", "no list says", "each issuer", "sslcrl"]);
    assert_told(&by("old.crl"), 78, &["db.example", "has expired", "a new one", "sslcrl"]);
    assert_good(&by("both.crl"));
}

#[test]
fn a_certificate_signed_by_itself_needs_a_list_as_any_other_does() {
    for flaw in [Flaw::SelfSigned, Flaw::SelfSignedAuthority] {
        let Some(server) = tls::server(flaw) else { return };
        let client = server.client();
        list(&client, "ours.crl", &server.authority.revocations(&[]));
        let rest = "host=db.example sslrootcert=@shown.crt";
        assert_good(&client.asks(rest));
        assert_told(&client.asks(&format!("{rest} sslcrl=@ours.crl")), 78, &["no list says"]);
    }
}

#[test]
fn the_list_in_the_home_folder_is_read_where_a_file_says_whom_to_trust() {
    let Some(server) = tls::server(Flaw::None) else { return };
    let mut client = server.client();
    let shown = show(&server);
    list(&client, "another.crl", &server.authority.revocations(&[]));
    list(&client, "home/.postgresql/root.crl", &server.authority.revocations(&[&shown]));
    // Nobody is verified by it where nobody is verified.
    assert_good(&client.asks("host=localhost"));
    assert_told(&client.asks("host=db.example sslrootcert=@ours.crt"), 78, &["was revoked"]);
    assert_good(&client.asks("host=db.example sslrootcert=@ours.crt sslcrl=@another.crl"));
    list(&client, "home/.postgresql/root.crt", &server.authority.certificate());
    assert_told(&client.asks("host=db.example"), 78, &["was revoked"]);
    // As in libpq it says nothing about those whom the system trusts.
    let trusted = client.host.state.path().join("ours.crt");
    client.host = client.host.with("SSL_CERT_FILE", trusted.to_str().unwrap());
    assert_good(&client.asks("host=db.example sslrootcert=system"));
}
