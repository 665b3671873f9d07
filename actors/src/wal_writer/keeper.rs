//! Spare segments: zero-filled ahead of time, or recycled from released ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::WalError;
use super::segment::{SPARE_SUFFIX, TEMPORARY_SUFFIX};
use crate::shared::disk::{Disk, DiskFile};

/// Bytes of one write while a segment is filled with zeros.
const FILL_BYTES: usize = 1 << 20;
/// How many of those writes one sync covers: few enough that the log's own syncs, which share
/// the device, never stand behind a long one.
const FILLS_A_SYNC: u64 = 8;

/// A file of the asked size, every block of it written and synced, under a spare's name.
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) bytes: u64,
}

/// Where the log gets its next segment from and leaves those it released.
pub(crate) trait Keeper: Send {
    /// Hints that a segment will be needed soon.
    fn prepare(&mut self) -> Result<(), WalError>;
    /// A segment of at least `bytes` bytes; waits for it if none is ready.
    fn take(&mut self, bytes: u64) -> Result<Spare, WalError>;
    /// Recycles or removes a segment that the log has released.
    fn retire(&mut self, path: PathBuf) -> Result<(), WalError>;
}

/// The spares in the log's directory. Does its work at once, on the caller's thread.
pub(crate) struct Pool {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    /// How many released segments are kept.
    keep: usize,
    ready: Vec<PathBuf>,
    /// Makes the next spare's name.
    next_number: u64,
}

impl Pool {
    /// Takes stock of the directory: incomplete files and spares of another size or beyond
    /// `keep` are removed.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        segment_bytes: u64,
        keep: usize,
    ) -> Result<Self, WalError> {
        let dir = dir.to_path_buf();
        let mut pool = Self { disk, dir, segment_bytes, keep, ready: Vec::new(), next_number: 1 };
        let names = pool.disk.list(&pool.dir).map_err(|e| pool.error("listing", e))?;
        let mut removed = false;
        for name in names {
            let path = pool.dir.join(&name);
            let spare = name.strip_suffix(SPARE_SUFFIX);
            if let Some(number) = spare.and_then(|n| u64::from_str_radix(n, 16).ok()) {
                pool.next_number = pool.next_number.max(number.saturating_add(1));
            }
            let keep = spare.is_some() && pool.fits(&path)?;
            if keep {
                pool.ready.push(path);
            } else if spare.is_some() || name.ends_with(TEMPORARY_SUFFIX) {
                pool.disk.remove(&path).map_err(|e| WalError::io("removing", &path, e))?;
                removed = true;
            }
        }
        if removed {
            pool.sync_dir()?;
        }
        Ok(pool)
    }

    fn error(&self, action: &'static str, source: std::io::Error) -> WalError {
        WalError::io(action, &self.dir, source)
    }

    fn sync_dir(&self) -> Result<(), WalError> {
        self.disk.sync_dir(&self.dir).map_err(|e| self.error("syncing the directory of", e))
    }

    /// Whether one more file may become a spare: there is room, and it has the usual size.
    fn fits(&self, path: &Path) -> Result<bool, WalError> {
        if self.ready.len() >= self.keep {
            return Ok(false);
        }
        let file = self.disk.open(path).map_err(|e| WalError::io("opening", path, e))?;
        let bytes = file.len().map_err(|e| WalError::io("reading the size of", path, e))?;
        Ok(bytes == self.segment_bytes)
    }

    fn next_path(&mut self, suffix: &str) -> PathBuf {
        let path = self.dir.join(format!("{:016x}{suffix}", self.next_number));
        self.next_number += 1;
        path
    }

    /// Makes a spare: written from end to end and synced before it has its name.
    fn make(&mut self, bytes: u64) -> Result<PathBuf, WalError> {
        let temporary = self.next_path(TEMPORARY_SUFFIX);
        if let Err(error) = self.fill(&temporary, bytes) {
            // Best effort: what is left is removed at the next start.
            let _ = self.disk.remove(&temporary);
            return Err(error);
        }
        let path = self.next_path(SPARE_SUFFIX);
        self.disk.rename(&temporary, &path).map_err(|e| WalError::io("renaming", &path, e))?;
        self.sync_dir()?;
        Ok(path)
    }

    fn fill(&self, path: &Path, bytes: u64) -> Result<(), WalError> {
        let failed = |action| move |e| WalError::io(action, path, e);
        let mut file = self.disk.create(path).map_err(failed("creating"))?;
        file.reserve(bytes).map_err(failed("reserving room for"))?;
        let zeros = vec![0u8; FILL_BYTES.min(bytes as usize)];
        let mut offset = 0;
        while offset < bytes {
            let length = (bytes - offset).min(zeros.len() as u64);
            file.write_at(&zeros[..length as usize], offset)
                .map_err(failed("filling with zeros"))?;
            offset += length;
            if offset % (FILL_BYTES as u64 * FILLS_A_SYNC) == 0 || offset == bytes {
                file.sync_data().map_err(failed("syncing"))?;
            }
        }
        // The zeros fill memory for nothing, and in pages of a megabyte: each small write to one
        // would make the kernel count a megabyte as dirty.
        file.forget_cache();
        Ok(())
    }
}

impl Keeper for Pool {
    fn prepare(&mut self) -> Result<(), WalError> {
        if self.ready.is_empty() {
            let path = self.make(self.segment_bytes)?;
            self.ready.push(path);
        }
        Ok(())
    }

    fn take(&mut self, bytes: u64) -> Result<Spare, WalError> {
        let usual = bytes <= self.segment_bytes;
        let bytes = bytes.max(self.segment_bytes);
        let ready = if usual { self.ready.pop() } else { None };
        let path = match ready {
            Some(path) => path,
            None => self.make(bytes)?,
        };
        let file = self.disk.open(&path).map_err(|e| WalError::io("opening", &path, e))?;
        Ok(Spare { path, file, bytes })
    }

    /// The directory is synced each time, so that segments disappear one by one in their order
    /// and a power cut never leaves a hole between those that are left.
    fn retire(&mut self, path: PathBuf) -> Result<(), WalError> {
        if self.fits(&path)? {
            let file = self.disk.open(&path).map_err(|e| WalError::io("opening", &path, e))?;
            file.forget_cache();
            let spare = self.next_path(SPARE_SUFFIX);
            self.disk.rename(&path, &spare).map_err(|e| WalError::io("renaming", &path, e))?;
            self.ready.push(spare);
        } else {
            self.disk.remove(&path).map_err(|e| WalError::io("removing", &path, e))?;
        }
        self.sync_dir()
    }
}

/// What the helper thread is asked for.
enum Request {
    Prepare,
    Take { bytes: u64, answer: Sender<Result<Spare, WalError>> },
    Retire(PathBuf),
}

/// Requests that may wait for the helper thread. Releases beyond this make the log wait.
const REQUESTS_MAX: usize = 64;

/// A [`Pool`] on a thread of its own, so that the log does not wait while a spare is made.
pub(super) struct ThreadKeeper {
    requests: Option<Sender<Request>>,
    /// Holds the first error of a retirement; looked at with the next request.
    failures: Receiver<WalError>,
    thread: Option<JoinHandle<()>>,
}

impl ThreadKeeper {
    pub(super) fn spawn(mut pool: Pool) -> Result<Self, WalError> {
        let (requests, inbox) = bounded(REQUESTS_MAX);
        let (report, failures) = bounded(1);
        let dir = pool.dir.clone();
        let thread = thread::Builder::new()
            .name("wal-keeper".into())
            .spawn(move || {
                for request in inbox {
                    serve(&mut pool, request, &report);
                }
            })
            .map_err(|e| WalError::io("starting the thread that prepares", &dir, e))?;
        Ok(Self { requests: Some(requests), failures, thread: Some(thread) })
    }

    fn send(&self, request: Request) -> Result<(), WalError> {
        if let Ok(error) = self.failures.try_recv() {
            return Err(error);
        }
        let requests = self.requests.as_ref().ok_or(WalError::KeeperGone)?;
        requests.send(request).map_err(|_| WalError::KeeperGone)
    }
}

fn serve(pool: &mut Pool, request: Request, report: &Sender<WalError>) {
    match request {
        Request::Prepare => {
            // Not the end yet: a released segment may come before the log needs one. If none
            // does, `take` tries again and its error is final.
            if let Err(error) = pool.prepare() {
                tracing::warn!(%error, "could not prepare a WAL segment");
            }
        }
        Request::Take { bytes, answer } => {
            // The log has given up waiting only if it is being dropped.
            let _ = answer.send(pool.take(bytes));
        }
        Request::Retire(path) => {
            if let Err(error) = pool.retire(path) {
                // Full when an earlier error waits already: the first one tells the story.
                let _ = report.try_send(error);
            }
        }
    }
}

impl Keeper for ThreadKeeper {
    fn prepare(&mut self) -> Result<(), WalError> {
        self.send(Request::Prepare)
    }

    fn take(&mut self, bytes: u64) -> Result<Spare, WalError> {
        let (answer, receive) = bounded(1);
        self.send(Request::Take { bytes, answer })?;
        receive.recv().map_err(|_| WalError::KeeperGone)?
    }

    fn retire(&mut self, path: PathBuf) -> Result<(), WalError> {
        self.send(Request::Retire(path))
    }
}

impl Drop for ThreadKeeper {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was already printed; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}
