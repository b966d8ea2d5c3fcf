//! Where a password, a user and a server come from, and which of them counts: as in psql.

use std::process::Output;

use super::server::{by_tcp, worker};
use super::support::{Database, Systole};
use super::{PASSWORD, STATUS, WRONG, assert_good, assert_told, user, with_file, write};

/// A database with a role `name` in it, and a user who names neither a role nor a password.
fn nobody(name: &str) -> (Database, Systole) {
    let database = Database::new();
    worker(&database, name);
    let host = user(&database, &by_tcp(&database));
    (database, host)
}

/// A line of a passfile that fits everything.
fn for_all(password: &str) -> String {
    format!("# a comment\n*:*:*:*:{password}\n")
}

fn refused(output: &Output) {
    assert_told(output, 78, &["password authentication failed", "URL"]);
}

#[test]
fn a_password_is_found_wherever_psql_finds_one() {
    let (database, host) = nobody("finder");
    let host = host.with("PGUSER", "finder");
    let url = by_tcp(&database);
    let by = |url: &str| host.clone().with("SYSTOLE_DATABASE_URL", url);
    let none = host.output(&STATUS);
    assert_told(&none, 78, &["it asks for a password", "~/.pgpass", "0600", "PGPASSWORD"]);

    assert_good(&host.clone().with("PGPASSWORD", PASSWORD).output(&STATUS));
    assert_good(&by(&format!("{url} password={PASSWORD}")).output(&STATUS));
    let (_, port) = database.url.rsplit_once("port=").unwrap();
    let (name, secret) = (&database.name, PASSWORD);
    assert_good(&by(&format!("postgresql://finder:{secret}@127.0.0.1:{port}/{name}")).output(&STATUS));
    let file = write(&host, "passes", 0o600, &format!("127.0.0.1:{port}:{name}:finder:{secret}\n"));
    let file = file.to_str().unwrap();
    assert_good(&host.clone().with("PGPASSFILE", file).output(&STATUS));
    assert_good(&by(&format!("{url} passfile={file}")).output(&STATUS));
    // Of somebody else, of another server, of another database.
    for other in [format!("*:*:*:other:{secret}"), format!("*:1:*:*:{secret}"), format!("*:*:other:*:{secret}")] {
        write(&host, "passes", 0o600, &format!("{other}\n"));
        let asked = host.clone().with("PGPASSFILE", file).output(&STATUS);
        assert_told(&asked, 78, &["it asks for a password, and there is none"]);
    }
    write(&host, "home/.pgpass", 0o600, &for_all(PASSWORD));
    assert_good(&host.output(&STATUS));
    // What names another file names no other.
    let asked = host.clone().with("PGPASSFILE", "/nonexistent").output(&STATUS);
    assert_told(&asked, 78, &["it asks for a password, and there is none"]);
}

#[test]
fn without_a_variable_the_home_folder_is_the_accounts() {
    let (_database, host) = nobody("homeless");
    let host = host.with("PGUSER", "homeless");
    write(&host, "home/.pgpass", 0o600, &for_all(PASSWORD));
    let home = host.state.path().join("home").display().to_string();
    let accounts = format!("root:x:0:0:root:{home}:/bin/sh\n");
    let Some(host) = with_file(host, "/etc/passwd", &accounts) else { return };
    assert_good(&host.through(&["env", "-u", "HOME"]).output(&STATUS));
}

#[test]
fn a_passfile_that_others_can_read_is_an_error_where_it_is_needed() {
    let (database, host) = nobody("careless");
    let host = host.with("PGUSER", "careless");
    write(&host, "home/.pgpass", 0o640, &for_all(PASSWORD));
    assert_told(&host.output(&STATUS), 78, &[".pgpass", "can be read by others", "chmod 0600"]);
    assert_good(&host.clone().with("PGPASSWORD", PASSWORD).output(&STATUS));
    // The socket asks for none.
    assert_good(&host.with("SYSTOLE_DATABASE_URL", &database.url).output(&STATUS));
}

#[test]
fn the_nearest_password_counts_even_if_it_is_wrong() {
    let (database, host) = nobody("nearest");
    let host = host.with("PGUSER", "nearest");
    let url = by_tcp(&database);
    write(&host, "home/.pgpass", 0o600, &for_all(WRONG));
    refused(&host.output(&STATUS));
    let near = host.clone().with("PGPASSWORD", PASSWORD);
    assert_good(&near.output(&STATUS));
    refused(&near.clone().with("SYSTOLE_DATABASE_URL", &format!("{url} password={WRONG}")).output(&STATUS));
    let nearer = host.with("PGPASSWORD", WRONG);
    refused(&nearer.output(&STATUS));
    assert_good(&nearer.with("SYSTOLE_DATABASE_URL", &format!("{url} password={PASSWORD}")).output(&STATUS));
}

#[test]
fn variables_alone_describe_a_database() {
    let (database, host) = nobody("described");
    let (_, port) = database.url.rsplit_once("port=").unwrap();
    let host = host
        .with("PGHOST", "127.0.0.1")
        .with("PGPORT", port)
        .with("PGDATABASE", &database.name)
        .with("PGUSER", "described")
        .with("PGPASSWORD", PASSWORD);
    let by = |url: &str| host.clone().with("SYSTOLE_DATABASE_URL", url).output(&STATUS);
    assert_good(&by("postgresql://"));
    // But never without being asked to, and never against what the URL says.
    assert_told(&by(""), 78, &["no database"]);
    assert_told(&by("port=1"), 69, &["127.0.0.1:1", "cannot be reached"]);
    assert_told(&by("user=somebody"), 78, &["password authentication failed", "somebody"]);
    assert_told(&by("dbname=nowhere"), 78, &["nowhere", "does not exist"]);
    // A variable that asks for what we have not is as good as a parameter that does.
    let picky = host.clone().with("PGREQUIREAUTH", "scram-sha-256").with("SYSTOLE_DATABASE_URL", "postgresql://");
    assert_told(&picky.output(&STATUS), 78, &["require_auth from PGREQUIREAUTH", "channel_binding=require"]);
}

#[test]
fn a_service_stands_between_the_url_and_the_variables() {
    let (database, host) = nobody("served");
    let whole = by_tcp(&database).replace(' ', "\n");
    let good = format!("[good]\n{whole}\nuser=served\npassword={PASSWORD}\n");
    let by = |host: &Systole, url: &str| host.clone().with("SYSTOLE_DATABASE_URL", url).output(&STATUS);
    let missing = by(&host, "service=good");
    assert_told(&missing, 78, &["service", "\"good\"", "~/.pg_service.conf", "PGSERVICEFILE"]);

    let users = write(&host, "home/.pg_service.conf", 0o644, &format!("[other]\nport=1\n{good}[last]\nport=2\n"));
    assert_good(&by(&host, "service=good"));
    assert_good(&by(&host, "postgresql://?service=good"));
    assert_good(&by(&host.clone().with("PGSERVICE", "good"), "postgresql://"));
    // The service is nearer than a variable, and the URL nearer than the service.
    assert_good(&by(&host.clone().with("PGPORT", "1").with("PGPASSWORD", WRONG), "service=good"));
    assert_told(&by(&host, "service=good port=1"), 69, &["127.0.0.1:1"]);
    refused(&by(&host, &format!("service=good password={WRONG}")));
    // A named file stands in for the user's own.
    let named = host.clone().with("PGSERVICEFILE", "/nonexistent");
    assert_told(&by(&named, "service=good"), 78, &["\"good\""]);
    let file = host.state.path().join("services");
    std::fs::rename(users, &file).unwrap();
    assert_good(&by(&host.clone().with("PGSERVICEFILE", file.to_str().unwrap()), "service=good"));
    assert_good(&by(&host, &format!("service=good servicefile={}", file.display())));
    // The whole machine's.
    std::fs::rename(&file, host.state.path().join("pg_service.conf")).unwrap();
    let machine = host.clone().with("PGSYSCONFDIR", host.state.path().to_str().unwrap());
    assert_good(&by(&machine, "service=good"));
    // What is wrong in it is named by its place, and not by what stands there.
    let secret = format!("[bad]\npasword={PASSWORD}\n[worse]\n{PASSWORD}\n");
    write(&host, "home/.pg_service.conf", 0o644, &secret);
    assert_told(&by(&host, "service=bad"), 78, &["service \"bad\" has", "\"pasword\"", "does not exist"]);
    assert_told(&by(&host, "service=worse"), 78, &[".pg_service.conf", "line 4"]);
}
