//! What supervisor, guard and init say to each other: JSON behind a length, over unix sockets.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::certificate::{Certificate, Header};
use super::containment::{Containment, Secured};
use super::deadman::{Hold, Rules};
use crate::elapsed::Instant;
use crate::ids::InstanceId;
use crate::outcome::InstanceStatus;

/// No message is longer: arguments and environment together are bounded by the kernel at 2 MiB on most systems, and
/// JSON writes a byte in up to four.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// From the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToGuard {
    /// First: make the containment and an init waiting in it. The command's stdin comes along as a descriptor.
    Prepare(Preparation),
    /// After the claim: from now on, certify.
    Arm(Box<Arming>),
    Renew {
        until: Instant,
    },
    Tick {
        at: Instant,
    },
    /// Start the command.
    Go(Box<Order>),
    /// Pass a signal on. Where `intent` is set, what ends by it ends as that; on a frozen tree it is a kill.
    Signal {
        number: i32,
        to: Audience,
        intent: Option<Intent>,
    },
    /// Kill the tree now.
    Kill {
        ends_as: InstanceStatus,
    },
    /// Behind [`FromGuard::Ended`]: the database knows, and the certificate is the supervisor's.
    Recorded,
}

/// To the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromGuard {
    Ready(Secured),
    /// Nothing can be contained here at all.
    Unready {
        reason: String,
    },
    Armed,
    /// The guard could not be armed; it ends.
    Unarmed {
        reason: String,
    },
    /// The deadline it now goes by.
    Echo {
        until: Instant,
    },
    Started {
        child_pid: i32,
    },
    /// The command stopped by job control (SIGTSTP, SIGTTIN, SIGTTOU) or SIGSTOP.
    Stopped {
        number: i32,
    },
    Frozen(Hold),
    Thawed,
    /// Killed, but these processes do not die: stuck in the kernel, or out of our rights.
    Remaining {
        pids: Vec<i32>,
    },
    /// The tree is empty, and the certificate is written.
    Ended(Box<Certificate>),
}

/// To init.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToInit {
    Go(Box<Order>),
}

/// From init. Where init becomes the command by exec, success is the end of the stream.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromInit {
    /// It cannot be overtaken by its parent's death any more, and has what it needs.
    Ready,
    /// It could not set up its namespace.
    Unready {
        reason: String,
    },
    /// The command could not be started: an errno.
    ExecFailed {
        errno: i32,
    },
    /// As PID 1: the command runs.
    Spawned,
    Stopped {
        number: i32,
    },
    Exited {
        code: i32,
        signal: Option<i32>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Preparation {
    pub(crate) instance_id: InstanceId,
    /// The strongest level to try; weaker ones are tried in order.
    pub(crate) wish: Option<Containment>,
    /// The command has a session of its own, so that nothing typed at our terminal reaches it.
    pub(crate) own_session: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Arming {
    /// The file of this instance, to be created.
    pub(crate) file: PathBuf,
    pub(crate) header: Header,
    pub(crate) rules: Rules,
}

/// A command to start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
    /// Set, or with `None` removed, in the environment that was handed down.
    pub(crate) environment: Vec<(OsString, Option<OsString>)>,
    /// Where it starts, if not where we did.
    pub(crate) folder: Option<OsString>,
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Audience {
    Command,
    Tree,
}

/// What an end by a signal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(crate) ends_as: InstanceStatus,
    /// A command that exits 0 all the same has COMPLETED: the signal was passed on, not meant as an order.
    pub(crate) unless_it_succeeds: bool,
}

/// Encodes a message behind its length.
pub(crate) fn encode(message: &impl Serialize) -> Vec<u8> {
    let body = serde_json::to_vec(message).expect("messages have string keys");
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend(body);
    bytes
}

/// Takes one whole message from the front of `buffer`, if there is one.
pub(crate) fn decode<T: DeserializeOwned>(buffer: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some(length) = buffer.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize) else {
        return Ok(None);
    };
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message longer than any we send"));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let message = serde_json::from_slice(&buffer[4..4 + length])?;
    buffer.drain(..4 + length);
    Ok(Some(message))
}

/// Whether [`decode`] would yield something.
pub(super) fn is_whole(buffer: &[u8]) -> bool {
    buffer.first_chunk::<4>().is_some_and(|length| buffer.len() - 4 >= u32::from_le_bytes(*length) as usize)
}

pub(super) fn send(mut socket: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    socket.write_all(&encode(message))
}

/// Waits for one message; `None` at the end of the stream. For sockets on which nothing else is read ahead.
pub(super) fn receive<T: DeserializeOwned>(mut socket: &UnixStream) -> io::Result<Option<T>> {
    let mut buffer = vec![0; 4];
    match socket.read_exact(&mut buffer) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message longer than any we send"));
    }
    buffer.resize(4 + length, 0);
    socket.read_exact(&mut buffer[4..])?;
    decode(&mut buffer)
}

/// The same messages, wherever the bytes are cut.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let read = |pieces: &[&[u8]]| {
        let (mut buffer, mut seen) = (Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match decode::<ToGuard>(&mut buffer) {
                    Ok(Some(message)) => seen.push(format!("{message:?}")),
                    Ok(None) => break,
                    Err(_) => return (seen, false),
                }
            }
        }
        (seen, true)
    };
    let (first, second) = bytes.split_at(bytes.len() / 2);
    assert_eq!(read(&[bytes]), read(&[first, second]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_being_cut_anywhere() {
        let order = Order {
            program: "sh".into(),
            arguments: vec![std::os::unix::ffi::OsStringExt::from_vec(vec![0xff, 0xfe])],
            environment: vec![("A".into(), Some("b".into())), ("GONE".into(), None)],
            folder: None,
        };
        let bytes =
            [encode(&ToGuard::Tick { at: Instant::from_nanos(7) }), encode(&ToGuard::Go(Box::new(order)))].concat();
        let (mut buffer, mut seen) = (Vec::new(), Vec::new());
        for byte in bytes {
            buffer.push(byte);
            while let Some(message) = decode::<ToGuard>(&mut buffer).unwrap() {
                seen.push(message);
            }
        }
        assert!(matches!(&seen[0], ToGuard::Tick { at } if at.as_nanos() == 7));
        assert!(matches!(&seen[1], ToGuard::Go(order) if order.environment.len() == 2));
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_length_from_nowhere_is_refused() {
        assert!(decode::<ToGuard>(&mut vec![0xff; 8]).is_err());
    }
}
