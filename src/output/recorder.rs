//! The thread between a command and its log.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;

use super::line::{Framer, Stream};
use super::rotating::RotatingFile;
use super::tail::Tail;

/// How much is read at once.
const CHUNK: usize = 16 * 1024;

/// How much is still read of a pipe that somebody keeps open beyond the end of the attempt.
const LEFTOVER_MAX: usize = 1 << 20;

/// It calls nothing deep.
const STACK: usize = 256 * 1024;

/// Where a command writes to. Not inherited by anybody else.
pub(crate) struct Pipes {
    pub(crate) out: PipeWriter,
    pub(crate) err: PipeWriter,
}

/// The other ends: what it has written.
pub(crate) struct Written {
    out: PipeReader,
    err: PipeReader,
}

impl Pipes {
    pub(crate) fn open() -> io::Result<(Pipes, Written)> {
        let ((out_end, out), (err_end, err)) = (io::pipe()?, io::pipe()?);
        Ok((Pipes { out, err }, Written { out: out_end, err: err_end }))
    }
}

/// Records what one attempt writes, until all its writers are gone, or this is dropped.
#[derive(Debug)]
pub(crate) struct Recorder {
    recording: Arc<Recording>,
    ended: oneshot::Receiver<()>,
    _until: PipeWriter,
}

/// What is known of a log while it is written.
#[derive(Debug)]
pub(crate) struct Recording {
    path: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    tail: Tail,
    total: u64,
    lost: u64,
}

/// The newest of a log, at some moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) tail: Vec<u8>,
    /// How much was written in all, in bytes of the log.
    pub(crate) bytes_total: u64,
    /// How much of that the disk did not take.
    pub(crate) bytes_lost: u64,
}

impl Recorder {
    /// Begins the log. `trouble` hears when the disk does not take it, and with `None` when it does again.
    pub(crate) async fn start(
        Written { out, err }: Written,
        path: PathBuf,
        bytes_max: u64,
        trouble: impl Fn(&Path, Option<&io::Error>) + Send + 'static,
    ) -> io::Result<Recorder> {
        let (until, until_end) = io::pipe()?;
        let recording = Arc::new(Recording { path: path.clone(), kept: Mutex::default() });
        let (began, has_begun) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let recorded = recording.clone();
        // Even to open a file may take its time, and nothing else of this process must wait for it.
        std::thread::Builder::new().name("systole-log".to_owned()).stack_size(STACK).spawn(move || {
            survive_the_limit();
            let file = match RotatingFile::create(path, bytes_max) {
                Ok(file) => file,
                Err(error) => return drop(began.send(Err(error))),
            };
            let _ = began.send(Ok(()));
            Writer { framer: Framer::default(), file, recording: recorded, trouble, troubled: false }
                .write_all_of([(Stream::Out, out), (Stream::Err, err)], until);
            // Nobody may wait for it any more.
            let _ = end.send(());
        })?;
        has_begun.await.unwrap_or_else(|_| Err(io::Error::other("the thread for its log has ended")))?;
        Ok(Recorder { recording, ended, _until: until_end })
    }

    pub(crate) fn recording(&self) -> Arc<Recording> {
        self.recording.clone()
    }

    /// Waits until all is recorded that was written. All its writers are gone, or should be: whoever keeps a pipe open
    /// beyond `patience` is not heard any more, and a disk that takes longer is not waited for.
    pub(crate) async fn end(mut self, patience: Duration) {
        let _ = tokio::time::timeout(patience, &mut self.ended).await;
    }
}

impl Recording {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes_total(&self) -> u64 {
        self.kept().total
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let kept = self.kept();
        Snapshot { tail: kept.tail.to_vec(), bytes_total: kept.total, bytes_lost: kept.lost }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer<F> {
    framer: Framer,
    file: RotatingFile,
    recording: Arc<Recording>,
    trouble: F,
    troubled: bool,
}

impl<F: Fn(&Path, Option<&io::Error>)> Writer<F> {
    /// Until all pipes have ended; or, once `until` has, until nothing lies in them.
    fn write_all_of(mut self, pipes: [(Stream, PipeReader); 2], until: PipeReader) {
        let mut pipes = pipes.map(|(stream, pipe)| (stream, Some(pipe)));
        let mut chunk = vec![0; CHUNK];
        let mut leftover: Option<usize> = None;
        while pipes.iter().any(|(_, pipe)| pipe.is_some()) && leftover != Some(0) {
            let mut descriptors: Vec<PollFd<'_>> = Vec::with_capacity(3);
            descriptors.extend(pipes.iter().flat_map(|(_, pipe)| pipe).map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            if leftover.is_none() {
                descriptors.push(PollFd::new(&until, PollFlags::IN));
            }
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            match poll(&mut descriptors, leftover.map(|_| &at_once)) {
                Ok(0) if leftover.is_some() => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
            let ready: Vec<bool> = descriptors.iter().map(|descriptor| !descriptor.revents().is_empty()).collect();
            let mut ready = ready.into_iter();
            for (stream, pipe) in &mut pipes {
                let Some(open) = pipe.as_ref() else { continue };
                if !ready.next().unwrap_or(false) {
                    continue;
                }
                match rustix::io::read(open.as_fd(), &mut chunk) {
                    Ok(0) => *pipe = None,
                    Ok(read) => {
                        leftover = leftover.map(|left| left.saturating_sub(read));
                        self.take(*stream, &chunk[..read]);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => *pipe = None,
                }
            }
            if ready.next().unwrap_or(false) {
                leftover = Some(LEFTOVER_MAX);
            }
        }
        let mut framer = std::mem::take(&mut self.framer);
        self.note(|mut sink| framer.end(&mut sink));
    }

    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let at = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        let mut framer = std::mem::take(&mut self.framer);
        self.note(|mut sink| framer.frame(stream, bytes, &at, &mut sink));
        self.framer = framer;
    }

    /// What is framed goes into memory first: that is there even if the disk takes nothing.
    fn note(&mut self, frame: impl FnOnce(&mut dyn FnMut(&[u8], bool))) {
        let Writer { file, recording, .. } = self;
        let written = file.written();
        let mut outcome = Ok(());
        frame(&mut |piece, starts_line| {
            let mut kept = recording.kept();
            kept.tail.push(piece);
            kept.total += piece.len() as u64;
            drop(kept);
            outcome = file.push(piece, starts_line).and(std::mem::replace(&mut outcome, Ok(())));
        });
        let outcome = outcome.and(file.flush());
        recording.kept().lost = file.lost();
        match outcome {
            Err(error) if !std::mem::replace(&mut self.troubled, true) => (self.trouble)(&recording.path, Some(&error)),
            Ok(()) if file.written() > written && std::mem::take(&mut self.troubled) => {
                (self.trouble)(&recording.path, None);
            }
            _ => {}
        }
    }
}

/// A bound on the size of files (`ulimit -f`) is a full disk, and no reason to die. Caught and not ignored, because
/// ignoring is inherited.
fn survive_the_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let nobody_looks = Arc::new(std::sync::atomic::AtomicBool::new(false));
        // Where it cannot be caught, the write fails as it would have without us.
        let _ = signal_hook::flag::register(libc::SIGXFSZ, nobody_looks);
    });
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn record(path: &Path) -> (tokio::runtime::Runtime, Recorder, Pipes) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (pipes, written) = Pipes::open().unwrap();
        let recorder = runtime.block_on(Recorder::start(written, path.to_owned(), 1 << 20, |_, _| {})).unwrap();
        (runtime, recorder, pipes)
    }

    #[test]
    fn all_is_recorded_by_the_end_and_kept_in_memory_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attempt-1.log");
        let (runtime, recorder, mut pipes) = record(&path);
        pipes.out.write_all(b"one\n\xff\x00two").unwrap();
        drop(pipes);
        let recording = recorder.recording();
        runtime.block_on(recorder.end(Duration::from_secs(10)));
        let file = std::fs::read(&path).unwrap();
        assert!(file.windows(6).any(|bytes| bytes == b"\xff\x00two\n"), "{file:?}");
        let snapshot = recording.snapshot();
        assert_eq!((snapshot.tail, snapshot.bytes_total, snapshot.bytes_lost), (file.clone(), file.len() as u64, 0));
    }

    #[test]
    fn who_keeps_the_pipe_open_holds_nobody_up_and_what_lies_in_it_is_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("attempt-1.log");
        let (runtime, recorder, mut pipes) = record(&path);
        let recording = recorder.recording();
        pipes.err.write_all(b"last words\n").unwrap();
        runtime.block_on(recorder.end(Duration::ZERO));
        let limit = std::time::Instant::now() + Duration::from_secs(10);
        while recording.bytes_total() == 0 || Arc::strong_count(&recording) > 1 {
            assert!(std::time::Instant::now() < limit, "the thread goes on");
            std::thread::yield_now();
        }
        assert!(String::from_utf8(recording.snapshot().tail).unwrap().contains("err last words"));
        drop(pipes);
    }
}
