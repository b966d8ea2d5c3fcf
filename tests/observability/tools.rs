//! Prometheus, Alertmanager and their tools, where they are installed; processes of theirs that end with the test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::SOON;
use crate::support::eventually;

/// Set by `.ci/run`: there it is a failure that something is not installed.
const REQUIRED: &str = "SYSTOLE_TEST_PROMETHEUS";

/// Where a program is; none, said in a line, if it is not installed.
pub(crate) fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    let found = found.into_iter().find(|file| file.is_file());
    if found.is_none() {
        assert!(std::env::var_os(REQUIRED).is_none(), "{} is not installed", names[0]);
        let line = format!("skipped for lack of {}: apt install prometheus prometheus-alertmanager\n", names[0]);
        // Past the harness, which shows what a test prints only when it fails.
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    found
}

pub(crate) fn promtool() -> Option<PathBuf> {
    program(&["promtool"])
}

/// The output of a command that has to succeed.
#[track_caller]
pub(crate) fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {text}");
    text
}

/// A port of this host that nobody used a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A server that answers on a port of this host, killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    log: PathBuf,
}

impl Server {
    /// Starts it, and waits until it says that it is ready. Its output goes into its folder.
    #[track_caller]
    pub(crate) fn start(command: &mut Command, port: u16, folder: &Path, ready: &str) -> Server {
        let log = folder.join(format!("log-{port}"));
        let file = std::fs::File::create(&log).unwrap();
        let command = command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let mut server = Server { child: command.spawn().unwrap(), port, log };
        eventually(format!("{command:?}"), SOON, || {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("{command:?}: {status}: {}", std::fs::read_to_string(&server.log).unwrap());
            }
            get(port, ready).is_ok_and(|(code, _)| code == 200).then_some(())
        });
        server
    }

    /// The `data` of an answer of Prometheus.
    #[track_caller]
    pub(crate) fn data(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let (code, body) = get(self.port, &with_parameters(path, parameters)).unwrap();
        let answer: Value =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {code}: {error}: {body}"));
        assert!(code == 200 && answer["status"] == "success", "{path} {parameters:?}: {answer}");
        answer["data"].clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

fn with_parameters(path: &str, parameters: &[(&str, &str)]) -> String {
    let quoted = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
    format!("{path}?{}", pairs.join("&"))
}

/// The code and the body of an answer. HTTP/1.0, so that the body ends with the connection.
pub(crate) fn get(port: u16, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost:{port}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Ok((code, body.to_owned()))
}

/// A Prometheus over this folder of data, by this configuration.
#[track_caller]
pub(crate) fn prometheus(data: &Path, configuration: &str) -> Option<Server> {
    let program = program(&["prometheus"])?;
    let file = data.join("prometheus.yml");
    std::fs::write(&file, configuration).unwrap();
    let port = free_port();
    let mut command = Command::new(program);
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", data.join("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--storage.tsdb.retention.time=10y", "--log.level=warn"]);
    Some(Server::start(&mut command, port, data, "/-/ready"))
}
