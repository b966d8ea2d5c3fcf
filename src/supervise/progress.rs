//! The socket in `SYSTOLE_SOCKET`: one line of JSON from the command, one line back. No database needed.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// No report is longer.
const REPORT_BYTES_MAX: u64 = 64 * 1024;

/// How long a client may take to send or read its line.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a message may be, in characters. The same bound stands in V10__output.sql.
const MESSAGE_LENGTH_MAX: usize = 200;

/// What a command tells: `{"progress": 3, "message": "training"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    /// Phases done so far.
    pub(crate) progress: i64,
    /// What it is at. The last one stands until there is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<Message>,
}

/// A line for people: up to 200 characters, none of which steers a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Message(String);

impl TryFrom<String> for Message {
    type Error = String;

    fn try_from(text: String) -> Result<Message, String> {
        let length = text.chars().count();
        if length > MESSAGE_LENGTH_MAX {
            return Err(format!("the message has {length} characters, and may have {MESSAGE_LENGTH_MAX}"));
        }
        Ok(Message(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()))
    }
}

impl FromStr for Message {
    type Err = String;

    fn from_str(text: &str) -> Result<Message, String> {
        text.to_owned().try_into()
    }
}

impl From<Message> for String {
    fn from(message: Message) -> String {
        message.0
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The supervisor's end, to which nobody listens yet; removed from the file system when dropped.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    file: SocketFile,
    listener: UnixListener,
}

/// The supervisor's end: listens as long as it lives, and is removed from the file system when dropped.
#[derive(Debug)]
pub(crate) struct ProgressSocket {
    file: SocketFile,
    listening: JoinHandle<()>,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl BoundSocket {
    /// The path must be in a folder that only this user can enter.
    pub(crate) fn bind(path: PathBuf) -> io::Result<BoundSocket> {
        let listener = UnixListener::bind(&path)?;
        Ok(BoundSocket { file: SocketFile(path), listener })
    }

    /// Listens. `take` has each report before its sender hears that it was taken.
    pub(crate) fn listen(self, take: impl Fn(Report) + Clone + Send + 'static) -> ProgressSocket {
        let BoundSocket { file, listener } = self;
        let listening = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let conversation = tokio::time::timeout(PATIENCE, converse(stream, take.clone()));
                        // Who hangs up in the middle has told nothing.
                        tokio::spawn(async { drop(conversation.await) });
                    }
                    // Out of descriptors: whoever waits in the queue waits a little longer.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        ProgressSocket { file, listening }
    }
}

impl ProgressSocket {
    pub(crate) fn path(&self) -> &Path {
        &self.file.0
    }
}

impl Drop for ProgressSocket {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn converse(stream: UnixStream, take: impl Fn(Report)) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    tokio::io::BufReader::new(read.take(REPORT_BYTES_MAX)).read_line(&mut line).await?;
    let parsed: Result<Report, _> = serde_json::from_str(&line);
    let answer = Answer { ok: parsed.is_ok(), error: parsed.as_ref().err().map(ToString::to_string) };
    if let Ok(report) = parsed {
        take(report);
    }
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await
}

/// The command's end: tells the supervisor that listens at `path`, and waits for its answer.
pub(crate) fn tell_progress(path: &Path, report: Report) -> io::Result<()> {
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE * 2))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(&report)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut text = String::new();
    BufReader::new(stream).read_line(&mut text)?;
    let answer: Answer = serde_json::from_str(&text)?;
    match answer.error {
        None if answer.ok => Ok(()),
        error => Err(io::Error::other(error.unwrap_or_else(|| "refused".to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_harmless_line_of_bounded_length() {
        let report = |text: &str| serde_json::from_str::<Report>(text);
        let told = report("{\"progress\": 1, \"message\": \"a\\u0000b\\n\\u001b[2J\"}").unwrap();
        assert_eq!(told.message.map(String::from).as_deref(), Some("a b  [2J"));
        assert_eq!(report("{\"progress\": 1}").unwrap().message, None);
        assert!("ü".repeat(200).parse::<Message>().is_ok());
        let error = "ü".repeat(201).parse::<Message>().unwrap_err();
        assert!(error.contains("201") && error.contains("200"), "{error}");
    }
}
