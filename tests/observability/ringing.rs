//! From a death to the phone: real processes are killed, and a receiver is told of it by the committed configuration, only faster.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Database, Running, Systole, eventually};
use crate::tools::{Server, free_port, program, prometheus};

/// What Alertmanager has told, each alert by itself.
struct Receiver {
    port: u16,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = Arc::new(Mutex::new(Vec::new()));
        let into = told.clone();
        // Ends with the process: it is in no way of anybody.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(&stream);
                let mut length = 0;
                for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                        length = value.parse().unwrap();
                    }
                }
                let mut body = vec![0; length];
                let message: Option<Value> =
                    reader.read_exact(&mut body).ok().and_then(|()| serde_json::from_slice(&body).ok());
                let alerts = message.as_ref().and_then(|message| message["alerts"].as_array());
                into.lock().unwrap().extend(alerts.into_iter().flatten().cloned());
                let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        Receiver { port, told }
    }

    /// Waits until it was told this of an alert with these labels.
    #[track_caller]
    fn hears(&self, status: &str, alert: &str, label: (&str, &str)) {
        let fits = |told: &Value| {
            told["status"] == status && told["labels"]["alertname"] == alert && told["labels"][label.0] == label.1
        };
        let what = format!("{alert} of {label:?} is {status}");
        let heard = eventually(&what, Duration::from_secs(60), || {
            self.told.lock().unwrap().iter().find(|told| fits(told)).cloned()
        });
        assert!(heard["annotations"]["summary"].as_str().unwrap().contains(label.1), "{heard}");
    }
}

/// The committed Alertmanager, with the receiver's address for the pager's.
fn alertmanager(folder: &std::path::Path, receiver: &Receiver) -> Option<Server> {
    let program = program(&["prometheus-alertmanager", "alertmanager"])?;
    let text = fs::read_to_string("deploy/alertmanager/alertmanager.yml").unwrap();
    let text = text
        .replace("127.0.0.1:9099", &format!("127.0.0.1:{}", receiver.port))
        .replace("group_interval: 10s", "group_interval: 1s");
    let file = folder.join("alertmanager.yml");
    fs::write(&file, text).unwrap();
    let port = free_port();
    let mut command = Command::new(program);
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.path={}", folder.join("alertmanager").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--cluster.listen-address=", "--log.level=warn"]);
    Some(Server::start(&mut command, port, folder, "/-/ready"))
}

/// The committed Prometheus, with these ports, and a fifth of its intervals.
fn watching(folder: &std::path::Path, exporter: u16, alertmanager: u16) -> Option<Server> {
    let text = fs::read_to_string("deploy/prometheus/prometheus.yml").unwrap();
    fs::copy("deploy/prometheus/rules.yml", folder.join("rules.yml")).unwrap();
    let changed = text
        .replace("interval: 5s", "interval: 1s")
        .replace("refresh_interval: 15s", "refresh_interval: 1s")
        .replace("127.0.0.1:7071", &format!("127.0.0.1:{exporter}"))
        .replace("127.0.0.1:9093", &format!("127.0.0.1:{alertmanager}"));
    for port in [exporter, alertmanager] {
        assert!(changed.contains(&format!("127.0.0.1:{port}")), "{changed}");
    }
    prometheus(folder, &changed)
}

fn node(host: &Systole, name: &str, port: u16) -> Running {
    let address = format!("127.0.0.1:{port}");
    let node = host.start(&["node", "--allow-submitted-commands", "--name", name, "--http", &address]);
    node.wait_for_errors("ready: ", crate::SOON);
    node
}

#[test]
fn who_is_killed_is_named_to_the_receiver_until_he_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start();
    let Some(alertmanager) = alertmanager(folder.path(), &receiver) else { return };
    let database = Database::new();
    let host = Systole::on(&database).fast().with("SYSTOLE_HOST", "corvus");
    let ports = [free_port(), free_port(), free_port()];
    let exporter = host.start(&["exporter", "--http", &format!("127.0.0.1:{}", ports[0])]);
    exporter.wait_for_errors("ready: ", crate::SOON);
    let Some(prometheus) = watching(folder.path(), ports[0], alertmanager.port) else { return };
    let first = node(&host, "first", ports[1]);
    assert!(host.output(&["submit", "r", "--", "sh", "-c", "[ $SYSTOLE_ATTEMPT = 2 ] || sleep 600"]).status.success());
    let status = |wanted: &str| {
        eventually(format!("r is {wanted}"), crate::SOON, || {
            (database.value("SELECT status FROM systole.runs WHERE run_id = 'r'") == wanted).then_some(())
        });
    };
    status("RUNNING");
    let _second = node(&host, "second", ports[2]);
    // Both are found by themselves, and named.
    eventually("both nodes are scraped", crate::SOON, || {
        let found = prometheus.data("/api/v1/query", &[("query", r#"up{job="systole",node=~"first|second"} == 1"#)]);
        (found["result"].as_array().unwrap().len() == 2).then_some(())
    });

    // A run under cron: its host knows that it is dead.
    let cron = host.clone().with("SYSTOLE_HOST", "cron1");
    let mut run = cron.start_run("nightly", "sleep 600");
    run.signal(Signal::KILL);
    run.wait(crate::SOON);
    receiver.hears("firing", "SystoleExecutorCrashed", ("host", "cron1"));
    assert!(host.output(&["forget", "cron1"]).status.success());
    receiver.hears("resolved", "SystoleExecutorCrashed", ("host", "cron1"));

    // A node, with a run that the other one goes on with.
    first.signal(Signal::KILL);
    receiver.hears("firing", "SystoleExecutorCrashed", ("host", "corvus"));
    receiver.hears("firing", "SystoleNodeCrashed", ("node", "first"));
    status("COMPLETED");
    assert!(host.output(&["forget", "first"]).status.success());
    receiver.hears("resolved", "SystoleNodeCrashed", ("node", "first"));
    receiver.hears("resolved", "SystoleExecutorCrashed", ("host", "corvus"));
}
