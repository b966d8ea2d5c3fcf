//! Several servers in one string: some dead, some silent, some that only follow. And servers that are full.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

use super::server::{Server, by_tcp, terminate, worker};
use super::support::{Database, Running, Systole, eventually};
use super::{PASSWORD, SOON, STATUS, assert_good, assert_told, told, user};

/// Bound of one try in these tests: long for a computer, and F leaves room for three.
pub(crate) const ATTEMPT: Duration = Duration::from_millis(1200);

pub(crate) fn patient(host: Systole) -> Systole {
    host.with("PGPASSWORD", PASSWORD)
        .with("SYSTOLE_HEARTBEAT_INTERVAL", "300ms")
        .with("SYSTOLE_ATTEMPT_TIMEOUT", "1200ms")
}

/// A port on which somebody listens, and nobody ever speaks.
pub(crate) struct BlackHole {
    port: u16,
    _listener: std::os::fd::OwnedFd,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    /// Connections are made, and that is all.
    fn silent() -> BlackHole {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        BlackHole { port: listener.local_addr().unwrap().port(), _listener: listener.into(), _waiting: Vec::new() }
    }

    /// Not even that: those that wait there already are all it takes.
    pub(crate) fn full() -> BlackHole {
        BlackHole::full_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(crate) fn full_at(address: SocketAddr) -> BlackHole {
        let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&listener, &address).unwrap();
        listen(&listener, 0).unwrap();
        let listener = TcpListener::from(listener);
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            waiting.push(stream);
            assert!(waiting.len() < 10, "it never fills");
        }
        BlackHole { port: address.port(), _listener: listener.into(), _waiting: waiting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// This one first, and then the one that has `database`.
fn behind(port: u16, database: &Database) -> String {
    let (_, own) = database.url.rsplit_once("port=").unwrap();
    format!("host=127.0.0.1,127.0.0.1 port={port},{own} dbname={}", database.name)
}

/// A migration has ten seconds for each server, and not for all of them.
#[test]
fn a_server_that_says_nothing_does_not_use_up_the_time_of_the_next_one() {
    let database = Database::new();
    worker(&database, "latecomer");
    let hole = BlackHole::silent();
    let host = patient(user(&database, &format!("{} user=latecomer", behind(hole.port, &database))));
    assert_good(&host.output(&["migrate", "--dry-run"]));
}

#[test]
fn a_server_that_says_nothing_costs_one_attempt_and_only_once() {
    let database = Database::new();
    worker(&database, "wanderer");
    // Of the second one it is known that it does not even connect.
    for (hole, cost) in [(BlackHole::silent(), ATTEMPT), (BlackHole::full(), ATTEMPT * 2 / 3)] {
        let host = patient(user(&database, &format!("{} user=wanderer", behind(hole.port, &database))));
        let begun = Instant::now();
        assert_good(&host.output(&STATUS));
        let took = begun.elapsed();
        assert!(took >= cost && took < ATTEMPT * 2, "{took:?}");

        // A run as well; and when its connection is cut, the next one is made at once.
        let begun = Instant::now();
        let running = host.start_run("r", "sleep 600");
        let took = begun.elapsed();
        assert!(took >= cost && took < ATTEMPT * 2, "{took:?}");
        for _ in 0..3 {
            let cut = database.value("SELECT clock_timestamp()");
            terminate(&database, "wanderer");
            let heard = format!(
                "SELECT extract(epoch FROM last_heartbeat - '{cut}') FROM systole.executor_instances
                  WHERE run_id = 'r' AND status = 'RUNNING' AND last_heartbeat > '{cut}'"
            );
            let after = eventually("a heartbeat", SOON, || database.sql(&heard).first().map(|row| row[0].clone()));
            assert!(after.parse::<f64>().unwrap() < ATTEMPT.as_secs_f64(), "after {after} s");
        }
        assert!(!running.errors().contains("The command is"), "{}", running.errors());
        drop(running);
        eventually("its end", SOON, || host.output(&["run", "r", "--", "true"]).status.success().then_some(()));
    }
}

#[test]
fn several_that_say_nothing_are_passed_over_one_by_one() {
    let database = Database::new();
    worker(&database, "patient");
    let (_, own) = database.url.rsplit_once("port=").unwrap();
    for holes in [[BlackHole::full(), BlackHole::full()], [BlackHole::full(), BlackHole::silent()]] {
        let [one, two] = holes.each_ref().map(|hole| hole.port);
        let url = format!("host=127.0.0.1,127.0.0.1,127.0.0.1 port={one},{two},{own} user=patient");
        let begun = Instant::now();
        assert_good(&patient(user(&database, &format!("{url} dbname={}", database.name))).output(&STATUS));
        // One attempt for each.
        assert!(begun.elapsed() < ATTEMPT * 3, "{:?}", begun.elapsed());
    }
}

#[test]
fn a_server_that_is_not_there_costs_nothing_and_all_that_are_not_are_named() {
    let database = Database::new();
    worker(&database, "finder_of_one");
    let gone = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let host = patient(user(&database, &format!("{} user=finder_of_one", behind(gone, &database))));
    let begun = Instant::now();
    assert_good(&host.output(&STATUS));
    assert!(begun.elapsed() < ATTEMPT, "{:?}", begun.elapsed());

    let silent = BlackHole::silent();
    let none = format!("host=127.0.0.1,127.0.0.1 port={gone},{} dbname=x user=y", silent.port);
    let begun = Instant::now();
    let asked = patient(user(&database, &none)).output(&STATUS);
    assert!(begun.elapsed() < ATTEMPT * 3, "{:?}", begun.elapsed());
    assert_told(&asked, 69, &[&format!("127.0.0.1:{gone}"), &format!("127.0.0.1:{}", silent.port)]);
}

#[test]
fn a_standby_is_passed_over_and_alone_it_is_named() {
    let mut primary = Server::new();
    worker(&primary.database, "chooser");
    let standby = primary.standby();
    let both =
        format!("host=127.0.0.1,127.0.0.1 port={},{} dbname=systole user=chooser", standby.port(), primary.port());
    let host = patient(user(&primary.database, &both));
    assert_good(&host.output(&STATUS));
    let ran = host.output(&["run", "r", "--", "echo", "ran"]);
    assert_eq!((ran.status.code(), ran.stdout.as_slice()), (Some(0), b"ran\n".as_slice()), "{}", told(&ran));
    assert_eq!(primary.database.value("SELECT status FROM systole.runs"), "COMPLETED");

    // Whoever only looks may say that any will do; whoever writes hears of it.
    let alone = |rest: &str| {
        let url = format!("host=127.0.0.1 port={} dbname=systole user=chooser {rest}", standby.port());
        patient(user(&primary.database, &url))
    };
    let run = ["run", "s", "--", "echo", "never"];
    for asked in [alone("").output(&run), alone("target_session_attrs=any").output(&run)] {
        assert_told(&asked, 69, &["read-only", "primary"]);
        assert_eq!(asked.stdout, b"");
    }
    assert_told(&alone("target_session_attrs=read-write").output(&STATUS), 69, &["read-only", "standby", "primary"]);
    assert_told(&alone("target_session_attrs=primary").output(&STATUS), 69, &["read-only", "primary"]);
    assert_good(&alone("").output(&STATUS));
}

#[track_caller]
fn assert_waits_until(waiter: &mut Running, free: impl FnOnce()) {
    waiter.wait_for_errors("waiting for the database: PostgreSQL", SOON);
    assert!(waiter.errors().contains("cannot serve us now"), "{}", waiter.errors());
    assert_eq!(waiter.output(), "");
    free();
    assert_eq!(waiter.code(SOON), 0, "{}", waiter.errors());
    assert_eq!(waiter.output(), "ran\n");
}

#[test]
fn a_server_that_is_full_is_named_and_waited_for_by_whoever_waits() {
    let database = Database::new();
    worker(&database, "limited");
    database.sql("ALTER ROLE limited CONNECTION LIMIT 0");
    let host = patient(user(&database, &format!("{} user=limited", by_tcp(&database))));
    assert_told(&host.output(&STATUS), 69, &["cannot serve us now", "too many connections for role \"limited\""]);
    let run = host.output(&["run", "r", "--", "echo", "never"]);
    assert_told(&run, 69, &["too many connections"]);
    let waited = host.output(&["run", "--wait=500ms", "r", "--", "echo", "never"]);
    assert_eq!(waited.status.code(), Some(69), "{}", told(&waited));
    let mut waiter = host.start(&["run", "--wait", "r", "--", "echo", "ran"]);
    assert_waits_until(&mut waiter, || {
        database.sql("ALTER ROLE limited CONNECTION LIMIT -1");
    });
}

#[test]
fn a_server_without_a_free_place_is_as_one_that_is_full() {
    let mut server = Server::new();
    worker(&server.database, "late");
    server.set(&[("max_connections", "10"), ("superuser_reserved_connections", "3")]);
    server.restart();
    let host = patient(user(&server.database, &format!("{} user=late", by_tcp(&server.database))));
    assert_good(&host.output(&STATUS));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let taken: Vec<_> = (0..7).map(|_| runtime.block_on(server.database.connect())).collect();
    assert_told(&host.output(&STATUS), 69, &["cannot serve us now", "connection"]);
    let mut waiter = host.start(&["run", "--wait", "r", "--", "echo", "ran"]);
    assert_waits_until(&mut waiter, || {
        drop(taken);
        drop(runtime);
    });
}
