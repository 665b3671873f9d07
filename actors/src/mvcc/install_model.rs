//! A member that got a snapshot against one that never needed one: the same at
//! every revision, whatever is compacted, freed, sealed and restarted after it.

use std::path::Path;

use castd_proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest};
use proptest::prelude::*;

use super::install_tests::{Running, arrived, next};
use super::*;
use crate::checkpointer::{CheckpointStore, SledStore, SledStoreOptions};
use crate::cluster::ClusterState;
use crate::raft_node::RaftCompletion;

#[derive(Clone, Copy, Debug)]
enum Op {
    Put(u8, u16),
    Delete(u8),
    /// To this share of history.
    Compact(u8),
}

/// One index of the log, and what the follower does after it.
#[derive(Clone, Debug)]
struct Step {
    ops: Vec<Op>,
    scrub: bool,
    restart: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let op = prop_oneof![
        8 => (0u8..10, 0u16..600).prop_map(|(key, bytes)| Op::Put(key, bytes)),
        5 => (0u8..10).prop_map(Op::Delete),
        2 => (128u8..).prop_map(Op::Compact),
    ];
    let ops = prop::collection::vec(op, 0..6);
    (ops, any::<bool>(), prop::bool::weighted(0.1)).prop_map(|(ops, scrub, restart)| Step {
        ops,
        scrub,
        restart,
    })
}

/// The operations, with `revision` as the newest one before them.
fn kinds(step: &Step, revision: i64) -> Vec<OperationKind> {
    let key = |number: u8| format!("key/{number}").into();
    let kind = |op: &Op| match *op {
        Op::Put(number, bytes) => {
            let value = vec![number; bytes.into()].into();
            OperationKind::Put(PutRequest { key: key(number), value, ..Default::default() })
        }
        Op::Delete(number) => OperationKind::DeleteRange(DeleteRangeRequest {
            key: key(number),
            ..Default::default()
        }),
        Op::Compact(share) => OperationKind::Compaction(CompactionRequest {
            revision: revision * i64::from(share) / 255,
            physical: false,
        }),
    };
    step.ops.iter().map(kind).collect()
}

fn apply(store: &mut Store, kinds: Vec<OperationKind>) {
    for kind in kinds {
        match kind {
            OperationKind::Put(request) => drop(store.put(request)),
            OperationKind::DeleteRange(request) => drop(store.delete_range(&request)),
            OperationKind::Compaction(request) => drop(store.compact(&request)),
            other => panic!("{other:?} is no step"),
        }
    }
    store.finish_batch();
}

fn checkpoints(dir: &Path) -> SledStore {
    let options = SledStoreOptions { volume_bytes: 3000, ..SledStoreOptions::default() };
    SledStore::open(dir, options).unwrap()
}

/// What a start finds: a store and the index it covers.
fn loaded(checkpoints: &mut SledStore) -> (Store, u64) {
    let mut store = Store::default();
    let Some(sealed) = checkpoints.sealed() else { return (store, 0) };
    let meta = StoreMeta::from_bytes(&sealed.meta).unwrap();
    let compacted = meta.compact_revision;
    let visit = &mut |_, _, bytes| {
        store.load_block(&bytes, compacted).unwrap();
        Ok(())
    };
    checkpoints.load(visit).unwrap();
    store.finish_load(&meta, sealed.clean_floor);
    (store, sealed.applied_index)
}

struct Follower<'a> {
    dir: &'a Path,
    running: Running,
    told: Vec<RaftCompletion>,
    /// The operations of each index from 1 on.
    log: Vec<Vec<OperationKind>>,
}

impl<'a> Follower<'a> {
    fn start(dir: &'a Path, log: Vec<Vec<OperationKind>>) -> Self {
        let mut checkpoints = checkpoints(dir);
        let (store, index) = loaded(&mut checkpoints);
        let running = Running::start(Box::new(checkpoints), store, index);
        let mut follower = Self { dir, running, told: Vec::new(), log };
        for index in index + 1..=follower.log.len() as u64 {
            follower.apply(index);
        }
        follower
    }

    fn restart(self) -> Self {
        self.running.end();
        Self::start(self.dir, self.log)
    }

    fn apply(&mut self, index: u64) {
        let kinds = self.log[index as usize - 1].iter().map(copy).collect();
        self.running.apply(index, kinds);
        self.hear(&RaftCompletion::Applied { index });
    }

    fn hear(&mut self, awaited: &RaftCompletion) {
        while next(&mut self.running.raft, &mut self.told) != *awaited {}
    }

    /// Frees all that can be freed now.
    fn scrub(&self) {
        for _ in 0..3 {
            let (begun, _) = Answer::new(None);
            self.running.mvcc.send_blocking(MvccMessage::Defragment { begun });
            let (progress, answer) = Answer::new(None);
            self.running.mvcc.send_blocking(MvccMessage::Scrub { records: 1000, progress });
            answer.blocking_recv().unwrap();
        }
    }
}

fn copy(kind: &OperationKind) -> OperationKind {
    match kind {
        OperationKind::Put(request) => OperationKind::Put(request.clone()),
        OperationKind::DeleteRange(request) => OperationKind::DeleteRange(request.clone()),
        OperationKind::Compaction(request) => OperationKind::Compaction(*request),
        other => panic!("{other:?} is no step"),
    }
}

fn check(view: &View, store: &Store) -> Result<(), TestCaseError> {
    let index = view.applied_index();
    let other = store.view(index, 2, ClusterState::default().into());
    prop_assert_eq!(view.revision(), other.revision());
    prop_assert_eq!(view.keys(), other.keys());
    for revision in store.compact_revision().max(1)..=store.revision() {
        let (one, other) = (view.hash_kv(revision).unwrap(), other.hash_kv(revision).unwrap());
        prop_assert_eq!(one, other, "at revision {} after index {}", revision, index);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 100, ..Default::default() })]
    #[test]
    fn a_member_that_got_a_snapshot_is_like_any_other(
        steps in prop::collection::vec(step(), 4..60),
        places in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let places = (places.0.index(steps.len()), places.1.index(steps.len()));
        // It falls behind at the one, and gets a snapshot at the other.
        let (behind, arrives) = (places.0.min(places.1), places.0.max(places.1));
        let mut leader = Store::default();
        let mut follower = Follower::start(dir.path(), Vec::new());
        for (place, step) in steps.iter().enumerate() {
            let index = place as u64 + 1;
            let kinds = kinds(step, leader.revision());
            follower.log.push(kinds.iter().map(copy).collect());
            apply(&mut leader, kinds);
            if place < behind || place > arrives {
                follower.apply(index);
            } else if place == arrives {
                let cluster = ClusterState::default();
                follower.running.install(arrived(&leader, (index, 2), &cluster));
                follower.hear(&RaftCompletion::Installed { index });
            } else {
                continue;
            }
            if step.scrub {
                follower.scrub();
            }
            if step.restart {
                follower = follower.restart();
            }
            check(&follower.running.view.get(), &leader)?;
        }
        let follower = follower.restart();
        check(&follower.running.view.get(), &leader)?;
        follower.running.end();
    }
}
