//! The shell: one OS thread of low priority that takes seals off a short queue.

use std::io;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::metrics::CheckpointMetrics;
use super::{CheckpointEvents, CheckpointMessage, CheckpointStore, SealJob};

/// How the checkpointer's thread runs.
#[derive(Clone, Debug)]
pub struct CheckpointerOptions {
    /// Seals that may wait while one is under way.
    pub capacity: usize,
    /// Added to the thread's nice value, 0 to 19: it yields the CPU to the write path.
    pub nice: i32,
}

impl Default for CheckpointerOptions {
    fn default() -> Self {
        Self { capacity: 1, nice: 10 }
    }
}

/// The running checkpointer.
///
/// The process may end at any moment without waiting for it: a seal that is under way
/// leaves nothing but volumes that the next start sweeps away.
#[derive(Debug)]
pub struct Checkpointer {
    link: CheckpointerLink,
    thread: JoinHandle<()>,
}

/// A sender's end of the checkpointer's mailbox.
#[derive(Clone, Debug)]
pub struct CheckpointerLink {
    messages: Sender<CheckpointMessage>,
}

/// Why a seal was not taken; the job comes back.
#[derive(Debug, thiserror::Error)]
pub enum SealRefused {
    /// As many seals as may wait are waiting: try again when one is done.
    #[error("the checkpointer is busy")]
    Busy(SealJob),
    /// The checkpointer has stopped.
    #[error("the checkpointer has stopped")]
    Stopped(SealJob),
}

impl Checkpointer {
    /// Starts the thread. It ends after `Stop`, when every link is gone, or after the
    /// first seal that fails.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        store: Box<dyn CheckpointStore>,
        events: Box<dyn CheckpointEvents>,
        metrics: CheckpointMetrics,
        options: &CheckpointerOptions,
    ) -> io::Result<Self> {
        let (messages, mailbox) = bounded(options.capacity.max(1));
        let nice = options.nice;
        let shell = Shell { store, events, metrics };
        let thread = Builder::new().name("checkpointer".to_owned()).spawn(move || {
            lower_priority(nice);
            shell.run(&mailbox);
        })?;
        Ok(Self { link: CheckpointerLink { messages }, thread })
    }

    /// A link for those who order seals.
    #[must_use]
    pub fn link(&self) -> CheckpointerLink {
        self.link.clone()
    }

    /// Sends `Stop` behind what was accepted before and waits for the thread: up to as
    /// long as the seals that wait take. Only for those who want the last seal.
    ///
    /// # Errors
    /// When the thread panicked.
    pub fn stop(self) -> std::thread::Result<()> {
        // A mailbox without a receiver means that the thread has ended already.
        let _ended = self.link.messages.send(CheckpointMessage::Stop);
        self.thread.join()
    }
}

impl CheckpointerLink {
    /// Orders a seal; returns at once.
    ///
    /// # Errors
    /// When the mailbox is full or the checkpointer has stopped.
    pub fn try_seal(&self, job: SealJob) -> Result<(), SealRefused> {
        let job_of = |message| match message {
            CheckpointMessage::Seal(job) => job,
            CheckpointMessage::Stop => unreachable!("a seal was sent, a seal comes back"),
        };
        self.messages.try_send(CheckpointMessage::Seal(job)).map_err(|e| match e {
            TrySendError::Full(message) => SealRefused::Busy(job_of(message)),
            TrySendError::Disconnected(message) => SealRefused::Stopped(job_of(message)),
        })
    }

    /// Messages that wait now, and how many may.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        (self.messages.len(), self.messages.capacity().unwrap_or(usize::MAX))
    }
}

struct Shell {
    store: Box<dyn CheckpointStore>,
    events: Box<dyn CheckpointEvents>,
    metrics: CheckpointMetrics,
}

impl Shell {
    fn run(mut self, mailbox: &Receiver<CheckpointMessage>) {
        while let Ok(CheckpointMessage::Seal(job)) = mailbox.recv() {
            match self.store.seal(&job) {
                Ok(sealed) => {
                    self.metrics.sealed(&sealed);
                    self.events.sealed(sealed);
                }
                // What an fsync has failed on is not tried again.
                Err(error) => {
                    self.metrics.failed();
                    tracing::error!(%error, applied_index = job.applied_index, "failed to seal");
                    return self.events.failed(error);
                }
            }
        }
    }
}

/// On Linux a nice value belongs to the thread, and the threads that sled starts from
/// here inherit it.
#[cfg(target_os = "linux")]
fn lower_priority(nice: i32) {
    if let Err(error) = rustix::process::nice(nice) {
        tracing::warn!(%error, "the checkpointer runs at normal priority");
    }
}

/// Elsewhere it belongs to the process, which must not be slowed.
#[cfg(not(target_os = "linux"))]
fn lower_priority(_nice: i32) {}
