//! Servers that are slow, or silent, or stand behind several addresses of one name: each has its turn.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::hosts::{ATTEMPT, BlackHole, patient};
use super::server::{Server, by_tcp, worker};
use super::support::{Database, Systole};
use super::{STATUS, assert_good, assert_told, told, user, with_file};

/// Leads to 127.0.0.1 at `port`, and takes this long for each connection.
fn way_to(port: u16, from: TcpListener, delay: Duration) {
    std::thread::spawn(move || {
        for client in from.incoming().map_while(Result::ok) {
            std::thread::spawn(move || -> io::Result<()> {
                std::thread::sleep(delay); // the thing under test
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
                let (mut asked, mut asks) = (client.try_clone()?, server.try_clone()?);
                std::thread::spawn(move || io::copy(&mut asked, &mut asks));
                io::copy(&mut &server, &mut &client).map(drop)
            });
        }
    });
}

fn port_of(database: &Database) -> u16 {
    database.url.rsplit_once("port=").unwrap().1.parse().unwrap()
}

/// Where the name `many.example` has these addresses.
fn where_it_is_many(host: Systole, addresses: &[Ipv4Addr]) -> Option<Systole> {
    let lines: Vec<String> = addresses.iter().map(|address| format!("{address} many.example\n")).collect();
    with_file(host, "/etc/hosts", &lines.concat())
}

#[test]
fn a_slow_server_behind_a_silent_one_is_reached() {
    let database = Database::new();
    worker(&database, "unhurried");
    // More than is left of an attempt by one that does not even connect, and less than all of it.
    let slow = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (hole, port) = (BlackHole::full(), slow.local_addr().unwrap().port());
    way_to(port_of(&database), slow, ATTEMPT / 2);
    let url = format!("host=127.0.0.1,127.0.0.1 port={},{port} user=unhurried dbname={}", hole.port(), database.name);
    let begun = Instant::now();
    assert_good(&patient(user(&database, &url)).output(&STATUS));
    assert!(begun.elapsed() < ATTEMPT * 3, "{:?}", begun.elapsed());
}

#[test]
fn every_address_of_a_name_is_tried() {
    let database = Database::new();
    worker(&database, "resolved");
    let holes = [2, 3].map(|last| Ipv4Addr::new(127, 0, 0, last));
    let good = Ipv4Addr::new(127, 0, 0, 4);
    let first = BlackHole::full_at(SocketAddr::from((holes[0], 0)));
    let port = first.port();
    let _second = BlackHole::full_at(SocketAddr::from((holes[1], port)));
    way_to(port_of(&database), TcpListener::bind((good, port)).unwrap(), Duration::ZERO);
    let url = format!("host=many.example sslmode=disable user=resolved dbname={} port={port}", database.name);
    let host = patient(user(&database, &url));
    let Some(host) = where_it_is_many(host, &[holes[0], holes[1], good]) else { return };
    let begun = Instant::now();
    let asked = host.output(&STATUS);
    assert_eq!(asked.status.code(), Some(0), "{}", told(&asked));
    let took = begun.elapsed();
    assert!(took > ATTEMPT && took < ATTEMPT * 3, "{took:?}");
}

#[test]
fn a_standby_behind_a_name_leads_to_the_next_address() {
    let mut primary = Server::new();
    worker(&primary.database, "renamed");
    let standby = primary.standby();
    let addresses = [2, 3].map(|last| Ipv4Addr::new(127, 0, 0, last));
    let first = TcpListener::bind((addresses[0], 0)).unwrap();
    let port = first.local_addr().unwrap().port();
    way_to(standby.port(), first, Duration::ZERO);
    way_to(primary.port(), TcpListener::bind((addresses[1], port)).unwrap(), Duration::ZERO);
    let url = format!("host=many.example sslmode=disable user=renamed dbname=systole port={port}");
    let by = |rest: &str| {
        let host = patient(user(&primary.database, &format!("{url} {rest}")));
        Some(where_it_is_many(host, &addresses)?.output(&["run", "r", "--", "echo", "ran"]))
    };
    let Some(ran) = by("target_session_attrs=read-write") else { return };
    assert_eq!((ran.status.code(), ran.stdout.as_slice()), (Some(0), b"ran\n".as_slice()), "{}", told(&ran));
    // Whoever takes any gets the first.
    let ran = by("").unwrap();
    assert!(told(&ran).contains("read-only"), "{}", told(&ran));
}

#[test]
fn a_name_that_nobody_knows_is_named() {
    let database = Database::new();
    let url = by_tcp(&database).replace("127.0.0.1", "nobody.invalid");
    assert_told(&user(&database, &url).output(&STATUS), 69, &["cannot be reached", "nobody.invalid: "]);
    // It stands in nobody's way.
    worker(&database, "besides");
    let port = port_of(&database);
    let url = format!("host=nobody.invalid,127.0.0.1 port={port} user=besides dbname={}", database.name);
    assert_good(&patient(user(&database, &url)).output(&STATUS));
}
