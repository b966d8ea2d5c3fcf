//! The fleet as Prometheus sees it: real executors that crash, and an exporter that says so, whatever happens to the database.

#![allow(clippy::unwrap_used)] // it is a test

#[path = "../support/mod.rs"]
mod support;

mod crashes;
mod exporter;
mod page;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use support::{Running, Systole, eventually};

const SOON: Duration = Duration::from_secs(20);

/// An exporter that answers.
struct Exporter {
    running: Running,
    /// ADDRESS:PORT
    address: String,
}

impl Exporter {
    fn start(host: &Systole) -> Exporter {
        let running = host.start(&["exporter", "--http", "127.0.0.1:0"]);
        // All of the line.
        running.wait_for_errors("/sd\n", SOON);
        let errors = running.errors();
        let address = errors.split("ready: http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        Exporter { running, address }
    }

    /// The status and the body of what is there.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// What the fleet's metrics are now.
    fn page(&self) -> Page {
        let (status, body) = self.get("/metrics/fleet");
        assert_eq!(status, 200, "{body}");
        Page(body)
    }

    /// Waits until a sample has this value.
    #[track_caller]
    fn becomes(&self, sample: &str, value: f64) {
        let mut last = None;
        let met = || {
            last = Some(self.page());
            (last.as_ref().unwrap().value(sample) == Some(value)).then_some(())
        };
        let what = format!("{sample} is {value}");
        eventually(&what, SOON, met);
    }
}

struct Page(String);

impl Page {
    /// The value of a sample, by its name and labels as they are written.
    fn value(&self, sample: &str) -> Option<f64> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    /// All samples of a family.
    fn family(&self, name: &str) -> Vec<&str> {
        let is_one = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        self.0.lines().filter(is_one).collect()
    }
}
