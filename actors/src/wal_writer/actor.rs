//! The shell: the log's own OS thread, group commit, and fail-stop.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendError, Sender, TrySendError, bounded};

use super::{Wal, WalError, WalEvents, WalMessage, WalMetrics};
use crate::shared::{Planted, is_planted};

/// A group is written when it has reached this many bytes, even if more waits.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// A sync that takes longer than this is worth a line in the log.
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// The way to the log's thread. Bounded; cheap to clone.
#[derive(Clone, Debug)]
pub struct WalHandle {
    sender: Sender<WalMessage>,
}

impl WalHandle {
    #[cfg(test)]
    pub(super) fn over(sender: Sender<WalMessage>) -> Self {
        Self { sender }
    }

    /// Sends a message, or hands it back at once when the channel is full or the log has ended.
    ///
    /// # Errors
    /// `Full` with the message; `Disconnected` when the log has failed or was stopped.
    pub fn try_send(&self, message: WalMessage) -> Result<(), TrySendError<WalMessage>> {
        self.sender.try_send(message)
    }

    /// Sends a message and waits for room.
    ///
    /// # Errors
    /// When the log has failed or was stopped.
    pub fn send(&self, message: WalMessage) -> Result<(), SendError<WalMessage>> {
        self.sender.send(message)
    }

    /// Messages that wait.
    pub fn depth(&self) -> usize {
        self.sender.len()
    }

    /// Messages that may wait.
    pub fn capacity(&self) -> usize {
        self.sender.capacity().unwrap_or(usize::MAX)
    }
}

/// The way to the log, and the log itself with what it needs to serve it. `capacity` is how many
/// messages may wait.
pub fn writer<E: WalEvents>(
    wal: Wal,
    capacity: usize,
    events: E,
    metrics: WalMetrics,
) -> (WalHandle, WalWriter<E>) {
    let (sender, inbox) = bounded(capacity);
    (WalHandle { sender }, WalWriter { wal, inbox, events, metrics, stopped: false })
}

/// Gives the log its thread. `capacity` is how many messages may wait for it. The thread ends
/// after [`WalMessage::Stop`], when every handle is gone, or when the log fails.
///
/// # Errors
/// When the operating system refuses a thread.
pub fn spawn(
    wal: Wal,
    capacity: usize,
    events: impl WalEvents,
    metrics: WalMetrics,
) -> io::Result<(WalHandle, JoinHandle<()>)> {
    let (handle, writer) = writer(wal, capacity, events, metrics);
    Ok((handle, writer.spawn()?))
}

/// What one group asks for besides its records.
#[derive(Default)]
struct Group {
    must_sync: bool,
    /// The highest ready number of the group.
    ready_number: Option<u64>,
    release: Option<u64>,
    stop: bool,
}

/// The log and its mailbox. [`spawn`] gives it a thread; whoever has none to give takes a
/// [`turn`](Self::turn) at a time.
pub struct WalWriter<E> {
    wal: Wal,
    inbox: Receiver<WalMessage>,
    events: E,
    metrics: WalMetrics,
    /// `Stop` was served: nothing is taken any more.
    stopped: bool,
}

impl<E: WalEvents> WalWriter<E> {
    /// Gives the log its thread; see [`spawn`].
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn spawn(mut self) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("wal-writer".into()).spawn(move || {
            // A panic must end the process too: nobody may wait for an answer that never comes.
            let ended = catch_unwind(AssertUnwindSafe(|| self.run()));
            if let Err(error) = ended.unwrap_or(Err(WalError::Panicked)) {
                self.events.failed(error);
            }
        })
    }

    /// Serves one group of what waits, without waiting for more; `false` when nothing waits or
    /// the log was stopped.
    ///
    /// # Errors
    /// What the log's thread would end with and report; the log must be dropped.
    pub fn turn(&mut self) -> Result<bool, WalError> {
        if self.stopped {
            return Ok(false);
        }
        let Ok(first) = self.inbox.try_recv() else { return Ok(false) };
        self.serve(first)?;
        if self.stopped {
            self.sync_rest()?;
        }
        Ok(true)
    }

    /// Messages that wait.
    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    fn run(&mut self) -> Result<(), WalError> {
        while let Ok(first) = self.inbox.recv() {
            self.serve(first)?;
            if self.stopped {
                break;
            }
        }
        self.sync_rest()
    }

    /// Writes and answers the group that begins with `first`.
    fn serve(&mut self, first: WalMessage) -> Result<(), WalError> {
        if is_planted(Planted::AcknowledgedBeforeSync) {
            self.sync_rest()?;
        }
        let group = self.collect(first)?;
        self.commit(&group)?;
        if let Some(ready_number) = group.ready_number {
            self.events.persisted(ready_number);
        }
        if let Some(index) = group.release {
            self.wal.release(index)?;
        }
        self.stopped = group.stop;
        Ok(())
    }

    fn sync_rest(&mut self) -> Result<(), WalError> {
        if self.wal.is_dirty() { self.sync() } else { Ok(()) }
    }

    /// Takes everything that waits, up to the size of a group.
    fn collect(&mut self, first: WalMessage) -> Result<Group, WalError> {
        let mut group = Group::default();
        let mut next = Some(first);
        while let Some(message) = next {
            self.stage(message, &mut group)?;
            if group.stop || self.wal.staged_bytes() >= GROUP_BYTES_MAX {
                break;
            }
            next = self.inbox.try_recv().ok();
        }
        Ok(group)
    }

    fn stage(&mut self, message: WalMessage, group: &mut Group) -> Result<(), WalError> {
        match message {
            WalMessage::Append(request) => {
                self.wal.append(&request)?;
                group.must_sync |= request.must_sync;
                group.ready_number = group.ready_number.max(Some(request.ready_number));
            }
            WalMessage::Snapshot(marker) => {
                self.wal.restart_behind(&marker)?;
                group.must_sync = true;
            }
            WalMessage::Release { index } => group.release = group.release.max(Some(index)),
            WalMessage::Stop => group.stop = true,
        }
        Ok(())
    }

    fn commit(&mut self, group: &Group) -> Result<(), WalError> {
        let started = Instant::now();
        let bytes = self.wal.write()?;
        if bytes > 0 {
            self.metrics.write_seconds.observe(started.elapsed().as_secs_f64());
            self.metrics.write_bytes.add(bytes as f64);
        }
        let later = is_planted(Planted::AcknowledgedBeforeSync);
        if group.must_sync && self.wal.is_dirty() && !later { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), WalError> {
        let started = Instant::now();
        self.wal.sync()?;
        let took = started.elapsed();
        self.metrics.fsync_seconds.observe(took.as_secs_f64());
        if took > SLOW_SYNC {
            tracing::warn!(?took, "slow fdatasync");
        }
        Ok(())
    }
}
