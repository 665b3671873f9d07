//! The shell of Mvcc: takes batches off its mailbox, runs the store, publishes
//! the view, and sends what follows from it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint::Origin;
use super::messages::{
    Answer, Applied, ApplyBatch, EventBatch, LeaseChange, LeaseKeys, MvccMessage, Operation,
    OperationKind, Outcome,
};
use super::metrics::MvccMetrics;
use super::record::Record;
use super::reply::{Answers, Reply};
use super::scrub::ScrubProgress;
use super::seal::Sealing;
use super::store::Store;
use super::view::View;
use crate::checkpointer::CheckpointerLink;
use crate::lease_manager::LeaseMessage;
use crate::raft_node::RaftCompletion;
use crate::shared::{Error, Inlet, Published, ThreadOutlet};
use crate::snapshot::Export;
use crate::wal_writer::Identity;
use crate::watch_hub::HubMessage;

/// Where Mvcc sends to.
#[derive(Debug)]
pub struct MvccEdges {
    /// Told what is applied, which gives its credit back, and what is sealed.
    pub raft: Inlet<RaftCompletion>,
    /// Told of changes to leases.
    pub leases: Inlet<LeaseMessage>,
    /// The shards of the watch hub, told of every change to a key.
    pub hub: Vec<Inlet<HubMessage>>,
    /// Given a view to seal now and then.
    pub checkpointer: CheckpointerLink,
}

/// When a checkpoint is due.
#[derive(Clone, Copy, Debug)]
pub struct SealPolicy {
    /// Bytes of raft log since the last one.
    pub log_bytes: u64,
    /// Raft entries since the last one.
    pub entries: u64,
}

/// The actor; see the module's text.
#[derive(Debug)]
pub struct Mvcc {
    pub(super) identity: Identity,
    pub(super) store: Store,
    pub(super) view: Published<View>,
    pub(super) edges: MvccEdges,
    pub(super) policy: SealPolicy,
    /// A batch that takes longer is logged.
    slow_apply: Duration,
    pub(super) metrics: MvccMetrics,
    /// When the defragmentation under way began.
    defragmenting: Option<Instant>,
    pub(super) sealing: Sealing,
    /// Bytes of the raft log since the last seal was ordered.
    pub(super) log_bytes: u64,
    pub(super) last_sealed_index: u64,
    /// The newest compact revision that all sealed volumes were written after.
    pub(super) clean_floor: i64,
    /// Physical compactions that are not finished yet.
    physical: Vec<(i64, Reply, Applied)>,
    /// When the compactions began whose work is not finished yet.
    compacting: Vec<Instant>,
}

impl Mvcc {
    /// The actor over a store as a checkpoint gave it; `view` shows it.
    pub fn new(
        identity: Identity,
        store: Store,
        view: Published<View>,
        edges: MvccEdges,
        policy: SealPolicy,
        slow_apply: Duration,
        metrics: MvccMetrics,
    ) -> Self {
        let last_sealed_index = view.get().applied_index;
        let clean_floor = store.clean_floor();
        Self {
            identity,
            store,
            view,
            edges,
            policy,
            slow_apply,
            metrics,
            defragmenting: None,
            sealing: Sealing::default(),
            log_bytes: 0,
            last_sealed_index,
            clean_floor,
            physical: Vec::new(),
            compacting: Vec::new(),
        }
    }

    /// Runs until it is told to stop or nobody can reach it any more.
    pub fn run(mut self, outlet: &ThreadOutlet<MvccMessage>) {
        while let Some(message) = outlet.take() {
            let started = Instant::now();
            if matches!(message, MvccMessage::Stop) {
                return;
            }
            let applies = matches!(message, MvccMessage::Apply(_));
            self.handle(message);
            if applies {
                self.note_slowness(started.elapsed());
            }
            outlet.stats().served(started);
        }
    }

    /// Handles a message that waits, for who gives the actor its turns without a
    /// thread; false when none does, or when whom Mvcc would wait for has no room.
    pub fn turn(&mut self, outlet: &ThreadOutlet<MvccMessage>) -> bool {
        self.has_room() && outlet.take_waiting().map(|message| self.handle(message)).is_some()
    }

    /// Whether everyone has room for what one message may lead to.
    fn has_room(&self) -> bool {
        const MESSAGES: usize = 2;
        let MvccEdges { raft, leases, hub, .. } = &self.edges;
        let hub = hub.iter().all(|shard| shard.room() >= MESSAGES);
        hub && raft.room() >= MESSAGES && leases.room() >= MESSAGES
    }

    fn note_slowness(&self, took: Duration) {
        if took > self.slow_apply {
            self.metrics.slow_applies.inc();
            tracing::warn!(
                ?took,
                expected_duration = ?self.slow_apply,
                "apply request took too long"
            );
        }
    }

    fn handle(&mut self, message: MvccMessage) {
        match message {
            MvccMessage::Apply(batch) => self.apply(batch),
            MvccMessage::Scrub { records, progress } => self.scrub(records, progress),
            MvccMessage::LeaseKeys { id, reply } => {
                reply.send(self.lease_keys(id));
            }
            MvccMessage::Defragment { begun } => {
                self.defragmenting.get_or_insert_with(Instant::now);
                self.metrics.defrag.inflight.set(1);
                self.store.defragment();
                begun.send(());
            }
            MvccMessage::Install(install) => self.install(install),
            MvccMessage::Export { reply } => {
                let view = self.view.get();
                reply.send(Export::new(self.meta(&view, Origin::Log), view));
            }
            MvccMessage::Sealed(sealed) => self.sealed(&sealed),
            MvccMessage::Stop => {}
        }
    }

    fn apply(&mut self, batch: ApplyBatch) {
        let mut answers = Answers::default();
        let mut changes = Vec::new();
        let mut begun = Instant::now();
        for Operation { name, kind, reply } in batch.operations {
            let physical = matches!(&kind, OperationKind::Compaction(request) if request.physical);
            let outcome = self.run_one(kind, &mut changes);
            // One operation's end is the next one's beginning: a look at the
            // clock costs as much as all the rest of this.
            let ended = Instant::now();
            self.metrics.applies.observe(name, &outcome, ended - begun);
            begun = ended;
            let revision = self.store.revision();
            let answer = outcome.map(|outcome| Applied { revision, outcome });
            match (reply, answer) {
                (None, _) => {}
                (Some(reply), Ok(applied)) if physical => {
                    self.physical.push((self.store.compact_revision(), reply, applied));
                }
                (Some(reply), answer) => answers.add(reply, answer),
            }
        }
        self.metrics.applies.flush();
        self.metrics.wrote(self.store.take_writes());
        let records = self.store.finish_batch();
        let view = self.store.view(batch.index, batch.term, batch.cluster);
        let view = Arc::new(view);
        self.view.set(Arc::clone(&view));
        // Whoever asks about a lease after the answer finds it known.
        if !changes.is_empty() {
            self.edges.leases.send_blocking(LeaseMessage::Changed(changes));
        }
        // Answers only after the view shows what they speak of, so that a client
        // reads its own writes at any isolation level.
        answers.send();
        self.announce(&view, records);
        self.log_bytes += batch.log_bytes;
        self.seal_if_due(&view);
    }

    fn run_one(
        &mut self,
        kind: OperationKind,
        changes: &mut Vec<LeaseChange>,
    ) -> Result<Outcome, Error> {
        match kind {
            OperationKind::Put(request) => self.store.put(request).map(Outcome::Put),
            OperationKind::DeleteRange(request) => {
                Ok(Outcome::DeleteRange(self.store.delete_range(&request)))
            }
            OperationKind::Txn(request) => {
                self.metrics.txns.inc();
                self.store.txn(request).map(Outcome::Txn)
            }
            OperationKind::Compaction(request) => {
                let response = self.store.compact(&request)?;
                self.compacting.push(Instant::now());
                Ok(Outcome::Compaction(response))
            }
            OperationKind::LeaseGrant(request) => {
                let response = self.store.lease_grant(&request)?;
                changes.push(LeaseChange::Granted { id: response.id, ttl_s: response.ttl });
                Ok(Outcome::LeaseGrant(response))
            }
            OperationKind::LeaseRevoke(request) => {
                let response = self.store.lease_revoke(&request)?;
                changes.push(LeaseChange::Revoked { id: request.id });
                Ok(Outcome::LeaseRevoke(response))
            }
            OperationKind::LeaseCheckpoint(request) => {
                for lease in request.leases {
                    let (id, remaining_s) = (lease.id, lease.remaining_ttl_s);
                    self.store.lease_checkpoint(id, remaining_s);
                    changes.push(LeaseChange::Remaining { id, remaining_s });
                }
                Ok(Outcome::Done)
            }
            OperationKind::Decided(outcome) => outcome,
        }
    }

    /// Tells the others what the batch did. These edges are sized to their
    /// windows or drained by actors that never wait for Mvcc, so waiting here
    /// for room ends.
    fn announce(&self, view: &Arc<View>, records: Vec<Record>) {
        if !records.is_empty() {
            self.metrics.observe(&records);
            let batch = EventBatch::new(Arc::clone(view), records);
            self.tell_hub(|| HubMessage::Events(batch.clone()));
        }
        self.edges.raft.send_blocking(RaftCompletion::Applied { index: view.applied_index });
    }

    /// Sends every shard of the hub the same.
    pub(super) fn tell_hub(&self, message: impl Fn() -> HubMessage) {
        for shard in &self.edges.hub {
            shard.send_blocking(message());
        }
    }

    fn scrub(&mut self, records: usize, progress: Answer<ScrubProgress>) {
        let done = self.timed_scrub(records);
        self.publish_store();
        if done.done {
            // The hub reads history from the view of its last batch, which would
            // keep alive what was freed.
            let batch = EventBatch::new(self.view.get(), Vec::new());
            self.tell_hub(|| HubMessage::Events(batch.clone()));
        }
        let (finished, waiting) = std::mem::take(&mut self.physical)
            .into_iter()
            .partition(|(revision, _, _)| *revision <= done.marked && done.done);
        self.physical = waiting;
        let finished: Vec<(i64, Reply, Applied)> = finished;
        for (_, reply, applied) in finished {
            reply.send(Ok(applied));
        }
        progress.send(done);
    }

    /// A piece of scrubbing, with its figures.
    fn timed_scrub(&mut self, records: usize) -> ScrubProgress {
        let begun = Instant::now();
        let (marks, buried) = (self.store.is_marking(), self.store.buried());
        let done = self.store.scrub(records);
        let figures = &self.metrics.compaction;
        figures.buried(self.store.buried() - buried);
        if !self.compacting.is_empty() {
            figures.piece(marks, begun.elapsed());
        }
        if done.done {
            if let Some(begun) = self.defragmenting.take() {
                self.metrics.defrag.inflight.set(0);
                self.metrics.defrag.seconds.observe(begun.elapsed().as_secs_f64());
            }
            self.compacting.drain(..).for_each(|begun| figures.finished(begun.elapsed()));
        }
        done
    }

    /// Publishes the store after a change that no log entry made.
    fn publish_store(&mut self) {
        let last = self.view.get();
        let view =
            self.store.view(last.applied_index, last.applied_term, Arc::clone(&last.cluster));
        self.view.set(Arc::new(view));
    }

    fn lease_keys(&self, id: i64) -> Option<LeaseKeys> {
        let lease = self.store.leases().get(id)?;
        let keys = lease.keys().map(bytes::Bytes::copy_from_slice).collect();
        Some(LeaseKeys { granted_ttl_s: lease.ttl_s, keys })
    }
}
