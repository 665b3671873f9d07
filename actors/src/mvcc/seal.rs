//! Mvcc's part in checkpoints: when one is due, what it holds, and what follows
//! when it is durable. A snapshot's state is in force for readers at once, and
//! for raft when it is sealed.

use std::sync::Arc;

use super::actor::Mvcc;
use super::checkpoint::{Origin, StoreMeta};
use super::view::View;
use crate::apply_loop::Install;
use crate::checkpointer::{Reclaim, RevisionKey, SealJob, SealRefused, Sealed};
use crate::lease_manager::LeaseMessage;
use crate::raft_node::RaftCompletion;
use crate::shared::{Planted, is_planted};
use crate::watch_hub::HubMessage;

/// What Checkpointer is at. There is one seal at a time.
#[derive(Debug, Default)]
pub(super) enum Sealing {
    /// Nothing.
    #[default]
    Idle,
    /// A state that grew from the sealed one.
    Grown,
    /// As before, and a snapshot's state waits for its turn.
    GrownBefore(Box<SealJob>),
    /// A snapshot's state.
    Installed,
}

impl Mvcc {
    pub(super) fn seal_if_due(&mut self, view: &Arc<View>) {
        let entries = view.applied_index - self.last_sealed_index;
        let due = self.log_bytes >= self.policy.log_bytes || entries >= self.policy.entries;
        if !due || !matches!(self.sealing, Sealing::Idle) {
            return;
        }
        let job = self.seal_job(view, self.reclaim(view), Origin::Log);
        // From now on a volume may come to be that was written at this compact
        // revision, whatever becomes of the older ones.
        self.store.set_clean_floor(self.clean_floor.min(view.compact_revision));
        if self.edges.checkpointer.try_seal(job).is_ok() {
            self.sealing = Sealing::Grown;
            self.ordered(view.applied_index);
        }
    }

    /// A seal of everything up to `index` is on its way.
    fn ordered(&mut self, index: u64) {
        self.log_bytes = 0;
        self.last_sealed_index = index;
    }

    fn seal_job(&self, view: &Arc<View>, reclaim: Reclaim, origin: Origin) -> SealJob {
        let ahead = origin == Origin::Log && is_planted(Planted::CheckpointAhead);
        SealJob {
            applied_index: view.applied_index + u64::from(ahead),
            applied_term: view.applied_term,
            last: RevisionKey { main: view.revision, sub: u32::MAX },
            meta: self.meta(view, origin).to_bytes(),
            compact_revision: view.compact_revision,
            reclaim,
            source: Arc::clone(view) as Arc<_>,
        }
    }

    /// What goes with a view of the store as it is now.
    pub(super) fn meta(&self, view: &View, origin: Origin) -> StoreMeta {
        StoreMeta {
            cluster_id: self.identity.cluster_id,
            member_id: self.identity.member_id,
            revision: view.revision,
            compact_revision: view.compact_revision,
            leases: self.store.lease_meta(),
            cluster: view.cluster().clone(),
            origin,
        }
    }

    /// Deletions wait for old volumes to be written anew; when they are many,
    /// it is time to do that.
    fn reclaim(&self, view: &View) -> Reclaim {
        let many = self.store.unsettled() as u64 > 10_000.max(view.keys() / 4);
        if many { Reclaim::All } else { Reclaim::Paced }
    }

    pub(super) fn sealed(&mut self, sealed: &Sealed) {
        let index = sealed.applied_index;
        match std::mem::take(&mut self.sealing) {
            Sealing::Idle | Sealing::Grown => {
                self.settled_at(sealed.clean_floor);
                self.edges.raft.send_blocking(RaftCompletion::Sealed { index });
            }
            Sealing::GrownBefore(job) => {
                self.edges.raft.send_blocking(RaftCompletion::Sealed { index });
                self.seal_installed(*job);
            }
            Sealing::Installed => {
                self.metrics.installing.set(0);
                self.settled_at(sealed.clean_floor);
                self.edges.raft.send_blocking(RaftCompletion::Installed { index });
            }
        }
    }

    fn settled_at(&mut self, clean_floor: i64) {
        self.clean_floor = clean_floor;
        self.store.set_clean_floor(clean_floor);
    }

    /// Goes on from a snapshot. Readers that hold the old state have it until they let
    /// go of it.
    pub(super) fn install(&mut self, install: Install) {
        let Install { index, term, state } = install;
        self.metrics.installing.set(1);
        assert_eq!((state.index(), state.term()), (index, term), "raft accepted another state");
        let (store, meta) = state.into_state();
        assert_eq!(meta.cluster_id, self.identity.cluster_id, "a snapshot of another cluster");
        self.store = store;
        // The seal to come keeps no older volume.
        self.clean_floor = meta.compact_revision;
        let before = self.view.get().applied_index;
        let applied = if is_planted(Planted::SnapshotWithoutIndex) { before } else { index };
        let view = Arc::new(self.store.view(applied, term, Arc::new(meta.cluster)));
        self.view.set(Arc::clone(&view));
        self.edges.leases.send_blocking(LeaseMessage::Reset(meta.leases));
        self.tell_hub(|| HubMessage::Replaced(Arc::clone(&view)));
        self.ordered(index);
        let job = self.seal_job(&view, Reclaim::Replace, Origin::Installed);
        match self.sealing {
            Sealing::Idle => self.seal_installed(job),
            _ => self.sealing = Sealing::GrownBefore(Box::new(job)),
        }
    }

    fn seal_installed(&mut self, job: SealJob) {
        match self.edges.checkpointer.try_seal(job) {
            Ok(()) => self.sealing = Sealing::Installed,
            Err(SealRefused::Busy(job)) => self.sealing = Sealing::GrownBefore(Box::new(job)),
            // The member is about to end.
            Err(SealRefused::Stopped(_)) => {}
        }
    }
}
