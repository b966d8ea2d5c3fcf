//! A pseudo terminal with a process on it: what a person at a keyboard sees and types.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::eventually;
use super::process::through;

/// A terminal, and the leader of its session.
#[derive(Debug)]
pub struct Terminal {
    /// The only lasting hold on the terminal: without it there is none.
    keyboard: Option<Arc<File>>,
    screen: Arc<Mutex<String>>,
    leader: Child,
}

impl Terminal {
    /// Starts `command` in a session of its own on a new terminal.
    pub fn start(command: &Command) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
        grantpt(&master).expect("a pty");
        unlockpt(&master).expect("a pty");
        let name = ptsname(&master, Vec::new()).expect("a pty has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave: OwnedFd = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).expect("a pty");
        let stdio = || Stdio::from(slave.try_clone().expect("a descriptor"));
        let mut leading = through("setsid", &["--ctty"], command);
        leading.stdin(stdio()).stdout(stdio()).stderr(stdio());
        let leader = leading.spawn().expect("setsid is everywhere");
        let keyboard = Arc::new(File::from(master));
        let screen = Arc::new(Mutex::new(String::new()));
        let (shown, into) = (Arc::downgrade(&keyboard), screen.clone());
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Some(terminal) = shown.upgrade() {
                let a_while = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                if poll(&mut [PollFd::new(&*terminal, PollFlags::IN)], Some(&a_while)) == Ok(1) {
                    // An error is the end of the last process on it.
                    let Ok(read @ 1..) = (&*terminal).read(&mut chunk) else { return };
                    into.lock().expect("no panic").push_str(&String::from_utf8_lossy(&chunk[..read]));
                }
            }
        });
        Terminal { keyboard: Some(keyboard), screen, leader }
    }

    /// The leader's process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.leader)
    }

    /// Types. `\x03` is Ctrl-C, `\x1a` Ctrl-Z.
    pub fn press(&self, keys: &str) {
        let mut keyboard = self.keyboard.as_deref().expect("it has not been hung up");
        keyboard.write_all(keys.as_bytes()).expect("somebody listens");
    }

    /// Closes the terminal, as the end of a connection does.
    pub fn hang_up(&mut self) {
        self.keyboard = None;
    }

    /// All that was ever shown.
    pub fn screen(&self) -> String {
        self.screen.lock().expect("no panic").clone()
    }

    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        let started = std::time::Instant::now();
        while !self.screen().contains(text) {
            assert!(started.elapsed() < Duration::from_secs(20), "{text:?} was not shown, but: {}", self.screen());
            std::thread::sleep(Duration::from_millis(5)); // between two looks at a condition
        }
    }

    /// The leader's exit code, within `limit`.
    #[track_caller]
    pub fn code(&mut self, limit: Duration) -> Option<i32> {
        let screen = self.screen.clone();
        let leader = &mut self.leader;
        eventually(format!("its end; shown: {}", screen.lock().expect("no panic")), limit, || {
            leader.try_wait().expect("it is ours")
        })
        .code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.leader.kill();
        let _ = self.leader.wait();
    }
}
