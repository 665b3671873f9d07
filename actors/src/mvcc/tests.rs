//! The store against a model that keeps every revision of everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use castd_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest,
};
use proptest::prelude::*;

use super::checkpoint::StoreMeta;
use super::store::Store;
use super::view::View;
use crate::checkpointer::{BlockSource, RevisionKey};
use crate::cluster::ClusterState;
use crate::shared::Error;

#[derive(Clone, Copy, Debug)]
enum Step {
    Put {
        key: u8,
        value: u16,
        lease: u8,
    },
    Delete {
        from: u8,
        to: u8,
    },
    Grant(u8),
    Revoke(u8),
    /// Ends a batch: what came before becomes a block.
    Finish,
    /// Compacts to this share of history.
    Compact(u8),
    Scrub,
    /// All sealed volumes are said to be as new as the newest compaction.
    Settle,
    /// Writes a checkpoint and goes on with what is read from it.
    Reload,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u8..12, any::<u16>(), 0u8..4)
            .prop_map(|(key, value, lease)| Step::Put { key, value, lease }),
        4 => (0u8..12, 0u8..13).prop_map(|(from, to)| Step::Delete { from, to }),
        2 => (1u8..4).prop_map(Step::Grant),
        1 => (1u8..4).prop_map(Step::Revoke),
        6 => Just(Step::Finish),
        2 => any::<u8>().prop_map(Step::Compact),
        4 => Just(Step::Scrub),
        1 => Just(Step::Settle),
        1 => Just(Step::Reload),
    ]
}

/// A key's life: value, create revision, mod revision, version, lease.
type Pair = (Bytes, i64, i64, i64, i64);

/// Every state the store ever had.
#[derive(Clone, Debug)]
struct Model {
    states: BTreeMap<i64, BTreeMap<Bytes, Pair>>,
    leases: BTreeMap<i64, ()>,
    compacted: i64,
}

impl Model {
    fn new() -> Self {
        Self { states: BTreeMap::new(), leases: BTreeMap::new(), compacted: -1 }
    }

    fn newest(&self) -> (i64, BTreeMap<Bytes, Pair>) {
        self.states.last_key_value().map_or((1, BTreeMap::new()), |(r, s)| (*r, s.clone()))
    }

    fn remove(&mut self, doomed: impl Fn(&Bytes, &Pair) -> bool) {
        let (revision, mut state) = self.newest();
        let before = state.len();
        state.retain(|key, pair| !doomed(key, pair));
        if state.len() != before {
            self.states.insert(revision + 1, state);
        }
    }
}

fn key(number: u8) -> Bytes {
    Bytes::from(format!("key/{number:03}"))
}

fn apply(store: &mut Store, model: &mut Model, step: Step) {
    match step {
        Step::Put { key: number, value, lease } => put(store, model, &key(number), value, lease),
        Step::Delete { from, to } => {
            let (from, to) = (key(from), key(to));
            let request =
                DeleteRangeRequest { key: from.clone(), range_end: to.clone(), prev_kv: false };
            store.delete_range(&request);
            model.remove(|key, _| *key >= from && *key < to);
        }
        Step::Grant(id) => {
            let id = i64::from(id);
            let granted = store.lease_grant(&LeaseGrantRequest { id, ttl: 60 });
            assert_eq!(granted.is_ok(), model.leases.insert(id, ()).is_none());
        }
        Step::Revoke(id) => {
            let id = i64::from(id);
            let revoked = store.lease_revoke(&LeaseRevokeRequest { id });
            assert_eq!(revoked.is_ok(), model.leases.remove(&id).is_some());
            if revoked.is_ok() {
                model.remove(|_, pair| pair.4 == id);
            }
        }
        Step::Finish => drop(store.finish_batch()),
        Step::Compact(share) => {
            store.finish_batch();
            let revision = store.revision() * i64::from(share) / 255;
            let done = store.compact(&CompactionRequest { revision, physical: false });
            assert_eq!(done.is_ok(), revision > model.compacted);
            model.compacted = model.compacted.max(revision);
        }
        Step::Scrub => {
            store.finish_batch();
            store.scrub(3);
        }
        Step::Settle => {
            // A new floor comes only with a checkpoint, which comes after a
            // batch, and what it does not hold must be found dead by then.
            store.finish_batch();
            *store = reload(store, true);
        }
        Step::Reload => {
            store.finish_batch();
            *store = reload(store, false);
        }
    }
}

fn put(store: &mut Store, model: &mut Model, key: &Bytes, value: u16, lease: u8) {
    let value = Bytes::from(value.to_string());
    let lease = i64::from(lease);
    let request =
        PutRequest { key: key.clone(), value: value.clone(), lease, ..PutRequest::default() };
    if lease != 0 && !model.leases.contains_key(&lease) {
        assert_eq!(store.put(request), Err(Error::LeaseNotFound));
        return;
    }
    store.put(request).unwrap();
    let (revision, mut state) = model.newest();
    let revision = revision + 1;
    let (created, version) = state.get(key).map_or((revision, 0), |pair| (pair.1, pair.3));
    state.insert(key.clone(), (value, created, revision, version + 1, lease));
    model.states.insert(revision, state);
}

/// Does everything that a defragmentation does.
pub(super) fn pack_all(store: &mut Store) {
    store.defragment();
    while !store.scrub(50).done {}
}

pub(super) fn view(store: &Store) -> View {
    store.view(1, 1, Arc::new(ClusterState::default()))
}

/// Through the bytes of a checkpoint and back. `fresh` says that every volume
/// was written now, so that deletions need not be kept any longer.
pub(super) fn reload(store: &Store, fresh: bool) -> Store {
    let view = view(store);
    let compact_revision = store.compact_revision();
    let meta = StoreMeta {
        revision: store.revision(),
        compact_revision,
        leases: store.lease_meta(),
        ..StoreMeta::default()
    };
    let meta = StoreMeta::from_bytes(&meta.to_bytes()).unwrap();
    let mut loaded = Store::default();
    let (from, to) = (RevisionKey::MIN, RevisionKey::MAX);
    view.visit(from, to, &mut |_, _, bytes| {
        loaded.load_block(&Bytes::copy_from_slice(bytes), compact_revision).unwrap();
        Ok(())
    })
    .unwrap();
    loaded.finish_load(&meta, if fresh { compact_revision } else { 0 });
    loaded
}

fn check(store: &Store, model: &Model) {
    let view = view(store);
    let (newest, _) = model.newest();
    assert_eq!(view.revision(), newest);
    for revision in 1..=newest {
        let request = RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            revision,
            ..RangeRequest::default()
        };
        let found = view.range(&request);
        if revision < model.compacted {
            assert_eq!(found, Err(Error::Compacted), "at {revision}");
            continue;
        }
        let found = found.unwrap();
        let found: Vec<(Bytes, Pair)> = found
            .kvs
            .into_iter()
            .map(|kv| {
                (kv.key, (kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease))
            })
            .collect();
        let state = model.states.range(..=revision).next_back().map(|(_, state)| state.clone());
        let expected: Vec<(Bytes, Pair)> = state.unwrap_or_default().into_iter().collect();
        assert_eq!(found, expected, "at revision {revision}");
        let count = RangeRequest { count_only: true, ..request };
        assert_eq!(view.range(&count).unwrap().count, expected.len() as i64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn every_readable_revision_is_what_it_was(steps in prop::collection::vec(step(), 1..150)) {
        let (mut store, mut model) = (Store::default(), Model::new());
        for step in steps {
            apply(&mut store, &mut model, step);
        }
        store.finish_batch();
        check(&store, &model);
        // The same after everything that can be freed was freed, and after a restart.
        let hash = view(&store).hash_kv(0).unwrap();
        while !store.scrub(100).done {}
        pack_all(&mut store);
        check(&store, &model);
        prop_assert_eq!(view(&store).hash_kv(0).unwrap(), hash);
        let loaded = reload(&store, false);
        check(&loaded, &model);
        prop_assert_eq!(view(&loaded).hash_kv(0).unwrap(), hash);
        for (id, lease) in store.leases().iter() {
            prop_assert_eq!(Some(lease), loaded.leases().get(id));
        }
    }
}

#[test]
fn compaction_frees_what_it_gave_up() {
    let mut store = Store::default();
    let value = Bytes::from(vec![b'v'; 1000]);
    for round in 0..20 {
        for number in 0..100u8 {
            let (key, value) = (key(number), value.clone());
            store.put(PutRequest { key, value, ..PutRequest::default() }).unwrap();
        }
        store.finish_batch();
        assert_eq!(store.revision(), 1 + (round + 1) * 100);
    }
    let before = view(&store).db_size();
    let revision = store.revision();
    store.compact(&CompactionRequest { revision, physical: true }).unwrap();
    while !store.scrub(1000).done {}
    let after = view(&store);
    assert!(after.db_size() * 10 < before, "{} of {before} bytes are left", after.db_size());
    assert!(after.db_size_in_use() * 15 < before);
    assert_eq!(after.keys(), 100);
    pack_all(&mut store);
    let packed = view(&store);
    assert_eq!(packed.db_size(), packed.db_size_in_use());
}

#[test]
fn a_deleted_key_stays_deleted_when_only_its_old_volume_is_left() {
    let mut store = Store::default();
    let request = PutRequest { key: key(1), value: "v".into(), ..PutRequest::default() };
    store.put(request).unwrap();
    store.finish_batch();
    // A volume is sealed with the key in it, then the key is deleted and the
    // deletion compacted away.
    store.set_clean_floor(store.compact_revision());
    let request = DeleteRangeRequest { key: key(1), ..DeleteRangeRequest::default() };
    store.delete_range(&request);
    store.finish_batch();
    store.compact(&CompactionRequest { revision: 3, physical: true }).unwrap();
    while !store.scrub(10).done {}
    pack_all(&mut store);
    assert_eq!(store.unsettled(), 1, "the old volume still has the key");
    assert_eq!(view(&store).records_from(super::Revision::ZERO).count(), 1);
    store.set_clean_floor(3);
    store.scrub(10);
    pack_all(&mut store);
    assert_eq!(store.unsettled(), 1, "a watcher may begin at the deletion");
    let request = PutRequest { key: key(2), value: "v".into(), ..PutRequest::default() };
    store.put(request).unwrap();
    store.finish_batch();
    store.compact(&CompactionRequest { revision: 4, physical: true }).unwrap();
    while !store.scrub(10).done {}
    store.scrub(10);
    pack_all(&mut store);
    assert_eq!(store.unsettled(), 0);
    assert_eq!(view(&store).records_from(super::Revision::ZERO).count(), 1);
}
