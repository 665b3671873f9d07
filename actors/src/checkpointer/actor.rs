//! The shell: one OS thread of low priority that takes seals off a short queue.

use std::io;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::metrics::CheckpointMetrics;
use super::{CheckpointEvents, CheckpointMessage, CheckpointStore, SealJob, StoreError};
use crate::shared::lower_priority;

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
        let (link, sealer) = sealer(store, events, metrics, options);
        Self::run(link, sealer, options)
    }

    /// Gives a sealer its thread; see [`Checkpointer::start`].
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn run(
        link: CheckpointerLink,
        sealer: Sealer,
        options: &CheckpointerOptions,
    ) -> io::Result<Self> {
        let nice = options.nice;
        let thread = Builder::new().name("checkpointer".to_owned()).spawn(move || {
            // So do the threads that sled starts from here.
            lower_priority(nice);
            sealer.run();
        })?;
        Ok(Self { link, thread })
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

/// The way to a sealer, and the sealer itself. Of `options` only the capacity counts.
#[must_use]
pub fn sealer(
    store: Box<dyn CheckpointStore>,
    events: Box<dyn CheckpointEvents>,
    metrics: CheckpointMetrics,
    options: &CheckpointerOptions,
) -> (CheckpointerLink, Sealer) {
    let (messages, mailbox) = bounded(options.capacity.max(1));
    let sealer = Sealer { store, events, metrics, mailbox, stopped: false };
    (CheckpointerLink { messages }, sealer)
}

/// The store and its mailbox. [`Checkpointer::start`] gives it a thread; whoever has none
/// to give takes a [`turn`](Self::turn) at a time.
pub struct Sealer {
    store: Box<dyn CheckpointStore>,
    events: Box<dyn CheckpointEvents>,
    metrics: CheckpointMetrics,
    mailbox: Receiver<CheckpointMessage>,
    /// `Stop` was taken: nothing is sealed any more.
    stopped: bool,
}

impl Sealer {
    /// Does one seal that waits and tells of it; `false` when none waits or the sealer was
    /// stopped.
    ///
    /// # Errors
    /// What the thread would end with and report: what an fsync has failed on is not tried
    /// again, so the sealer must be dropped.
    pub fn turn(&mut self) -> Result<bool, StoreError> {
        if self.stopped {
            return Ok(false);
        }
        let Ok(message) = self.mailbox.try_recv() else { return Ok(false) };
        self.serve(message).map(|()| true)
    }

    /// Messages that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.mailbox.len()
    }

    fn run(mut self) {
        while !self.stopped
            && let Ok(message) = self.mailbox.recv()
        {
            if let Err(error) = self.serve(message) {
                return self.events.failed(error);
            }
        }
    }

    fn serve(&mut self, message: CheckpointMessage) -> Result<(), StoreError> {
        let CheckpointMessage::Seal(job) = message else {
            self.stopped = true;
            return Ok(());
        };
        match self.store.seal(&job) {
            Ok(sealed) => {
                self.metrics.sealed(&sealed);
                self.events.sealed(sealed);
                Ok(())
            }
            Err(error) => {
                self.metrics.failed();
                tracing::error!(%error, applied_index = job.applied_index, "failed to seal");
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use prometheus::Registry;

    use super::*;
    use crate::checkpointer::{
        BlockSource, BlockVisitor, LoadVisitor, LoadedMeta, Reclaim, RevisionKey, Sealed,
        StoreError,
    };

    struct NoBlocks;

    impl BlockSource for NoBlocks {
        fn visit(
            &self,
            _: RevisionKey,
            _: RevisionKey,
            _: BlockVisitor<'_>,
        ) -> Result<(), StoreError> {
            Ok(())
        }
        fn live_bytes(&self, _: RevisionKey, _: RevisionKey) -> u64 {
            0
        }
    }

    fn job(applied_index: u64) -> SealJob {
        SealJob {
            applied_index,
            applied_term: 1,
            last: RevisionKey::MIN,
            meta: Bytes::new(),
            compact_revision: 0,
            reclaim: Reclaim::Paced,
            source: Arc::new(NoBlocks),
        }
    }

    /// Says when a seal begins, and seals when it is told to; index 13 fails.
    struct GatedStore {
        begun: Sender<u64>,
        gate: Receiver<()>,
    }

    impl CheckpointStore for GatedStore {
        fn sealed(&self) -> Option<LoadedMeta> {
            None
        }
        fn load(&mut self, _: LoadVisitor<'_>) -> Result<Option<LoadedMeta>, StoreError> {
            Ok(None)
        }
        fn seal(&mut self, job: &SealJob) -> Result<Sealed, StoreError> {
            self.begun.send(job.applied_index).unwrap();
            self.gate.recv().unwrap();
            if job.applied_index == 13 {
                return Err(StoreError::Caller("unlucky".to_owned()));
            }
            Ok(Sealed {
                applied_index: job.applied_index,
                applied_term: job.applied_term,
                bytes_written: 100,
                took: Duration::from_millis(5),
                volumes: 2,
                volumes_written: 1,
                volumes_retired: 0,
                disk_bytes: 200,
                clean_floor: 0,
            })
        }
        fn disk_bytes(&self) -> u64 {
            200
        }
    }

    struct Told(Sender<Result<u64, String>>);

    impl CheckpointEvents for Told {
        fn sealed(&mut self, sealed: Sealed) {
            self.0.send(Ok(sealed.applied_index)).unwrap();
        }
        fn failed(&mut self, error: StoreError) {
            self.0.send(Err(error.to_string())).unwrap();
        }
    }

    struct Rig {
        checkpointer: Checkpointer,
        begun: Receiver<u64>,
        gate: Sender<()>,
        told: Receiver<Result<u64, String>>,
        registry: Registry,
    }

    fn rig() -> Rig {
        let (begun_there, begun) = bounded(8);
        let (gate, gate_there) = bounded(8);
        let (told_there, told) = bounded(8);
        let registry = Registry::new();
        let checkpointer = Checkpointer::start(
            Box::new(GatedStore { begun: begun_there, gate: gate_there }),
            Box::new(Told(told_there)),
            CheckpointMetrics::register(&registry).unwrap(),
            &CheckpointerOptions::default(),
        )
        .unwrap();
        Rig { checkpointer, begun, gate, told, registry }
    }

    fn counted(registry: &Registry, name: &str) -> f64 {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family.get_metric()[0].get_counter().get_value()
    }

    #[test]
    fn one_seal_runs_one_waits_and_a_third_is_refused() {
        let rig = rig();
        let link = rig.checkpointer.link();
        link.try_seal(job(1)).unwrap();
        assert_eq!(rig.begun.recv(), Ok(1));
        link.try_seal(job(2)).unwrap();
        assert_eq!(link.depth(), (1, 1));
        let refused = link.try_seal(job(3)).unwrap_err();
        assert!(matches!(refused, SealRefused::Busy(job) if job.applied_index == 3));
        rig.gate.send(()).unwrap();
        rig.gate.send(()).unwrap();
        assert_eq!((rig.told.recv().unwrap(), rig.told.recv().unwrap()), (Ok(1), Ok(2)));
        rig.checkpointer.stop().unwrap();
        assert!(matches!(link.try_seal(job(4)), Err(SealRefused::Stopped(_))));
        assert!((counted(&rig.registry, "castd_checkpoint_seals_total") - 2.0).abs() < 0.1);
        let written = counted(&rig.registry, "castd_checkpoint_bytes_written_total");
        assert!((written - 200.0).abs() < 0.1);
    }

    #[test]
    fn a_failure_is_told_and_is_the_end() {
        let rig = rig();
        let link = rig.checkpointer.link();
        link.try_seal(job(13)).unwrap();
        rig.gate.send(()).unwrap();
        assert_eq!(rig.told.recv().unwrap(), Err("checkpoint: unlucky".to_owned()));
        rig.checkpointer.stop().unwrap();
        assert!(matches!(link.try_seal(job(14)), Err(SealRefused::Stopped(_))));
        assert!((counted(&rig.registry, "castd_checkpoint_failures_total") - 1.0).abs() < 0.1);
    }
}
