//! Streams as they should be, cut anywhere, and as they should not be.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use castd_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest,
};
use proptest::prelude::*;

use super::*;
use crate::cluster::{ClusterState, MemberInfo};
use crate::mvcc::{Origin, Record, Revision, Store, StoreMeta, View};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize, bool),
    Delete(u8),
    Batch,
    Compact(u8),
    Scrub,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0u8..20, 0usize..3000, any::<bool>()).prop_map(|(k, n, l)| Step::Put(k, n, l)),
        4 => (0u8..20).prop_map(Step::Delete),
        6 => Just(Step::Batch),
        1 => any::<u8>().prop_map(Step::Compact),
        2 => Just(Step::Scrub),
    ]
}

fn key(number: u8) -> Bytes {
    Bytes::from(format!("key/{number}"))
}

fn filled(steps: &[Step]) -> Store {
    let mut store = Store::default();
    store.lease_grant(&LeaseGrantRequest { id: 5, ttl: 60 }).unwrap();
    store.lease_grant(&LeaseGrantRequest { id: 6, ttl: 90 }).unwrap();
    store.lease_checkpoint(6, 31);
    for step in steps {
        match *step {
            Step::Put(number, bytes, leased) => {
                let (key, lease) = (key(number), if leased { 5 } else { 0 });
                let value = Bytes::from(vec![number; bytes]);
                store.put(PutRequest { key, value, lease, ..PutRequest::default() }).unwrap();
            }
            Step::Delete(number) => {
                let request = DeleteRangeRequest { key: key(number), ..Default::default() };
                store.delete_range(&request);
            }
            Step::Batch => drop(store.finish_batch()),
            Step::Compact(share) => {
                store.finish_batch();
                let revision = store.revision() * i64::from(share) / 255;
                // One that lies behind the last one is refused.
                let _ = store.compact(&CompactionRequest { revision, physical: false });
            }
            Step::Scrub => {
                store.finish_batch();
                store.scrub(5);
            }
        }
    }
    store.finish_batch();
    store
}

fn cluster() -> ClusterState {
    let member = |id, is_learner| (id, MemberInfo { id, is_learner, ..MemberInfo::default() });
    let members = [member(1, false), member(2, false), member(3, true)].into();
    ClusterState { members, ..ClusterState::default() }
}

fn view(store: &Store) -> View {
    store.view(77, 4, Arc::new(cluster()))
}

fn export(store: &Store) -> Export {
    let meta = StoreMeta {
        cluster_id: 9,
        member_id: 1,
        revision: store.revision(),
        compact_revision: store.compact_revision(),
        leases: store.lease_meta(),
        cluster: cluster(),
        origin: Origin::Log,
    };
    Export::new(meta, Arc::new(view(store)))
}

fn stream(store: &Store) -> Vec<u8> {
    export(store).into_pieces(1 << 20).flatten().collect()
}

/// What another member has when it has received this store.
pub(crate) fn through_a_stream(store: &Store) -> Store {
    receive(export(store).into_pieces(700)).unwrap().into_state().0
}

fn receive(mut pieces: impl Iterator<Item = Bytes>) -> Result<Arrived, SnapshotError> {
    let mut arriving = Arriving::default();
    pieces.try_for_each(|piece| arriving.take(&piece))?;
    arriving.finish()
}

fn receive_bytes(stream: &[u8]) -> Result<Arrived, SnapshotError> {
    receive(stream.chunks(1000).map(Bytes::copy_from_slice))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn a_state_arrives_as_it_was_sent(
        steps in prop::collection::vec(step(), 0..150),
        piece_bytes in 1usize..5000,
    ) {
        let source = filled(&steps);
        let sent = export(&source);
        prop_assert_eq!((sent.index(), sent.term()), (77, 4));
        prop_assert_eq!((sent.conf_state().voters, sent.conf_state().learners), (vec![1, 2], vec![3]));
        let pieces: Vec<Bytes> = sent.into_pieces(piece_bytes).collect();
        let (last, whole) = pieces.split_last().unwrap();
        prop_assert!(whole.iter().all(|piece| piece.len() == piece_bytes));
        prop_assert!(!last.is_empty() && last.len() <= piece_bytes);
        let arrived = receive(pieces.into_iter()).unwrap();
        prop_assert_eq!((arrived.index(), arrived.term()), (77, 4));

        let (mut loaded, meta) = arrived.into_state();
        prop_assert_eq!((meta.cluster_id, meta.cluster), (9, cluster()));
        prop_assert_eq!(loaded.lease_meta(), source.lease_meta());
        for (id, lease) in source.leases().iter() {
            prop_assert_eq!(Some(lease), loaded.leases().get(id));
        }
        let before = view(&source);
        for pass in 0..2 {
            let after = view(&loaded);
            prop_assert_eq!((before.revision(), before.keys()), (after.revision(), after.keys()));
            for revision in source.compact_revision().max(1)..=source.revision() {
                prop_assert_eq!(
                    before.hash_kv(revision).unwrap(), after.hash_kv(revision).unwrap(),
                    "pass {} at revision {}", pass, revision
                );
            }
            // The same when all that can be freed was freed.
            loaded.defragment();
            while !loaded.scrub(50).done {}
        }
        // No older copy is left that a deletion must hide.
        let compacted = loaded.compact_revision();
        let deletions = view(&loaded).records_from(Revision::ZERO).filter(Record::is_tombstone)
            .filter(|record| record.revision.main < compacted).count();
        prop_assert_eq!(deletions, 0);
    }

    #[test]
    fn any_bytes_are_refused_or_read(data in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz_stream(&data);
    }

    #[test]
    fn any_change_behind_right_checksums_is_refused_or_read(
        at: prop::sample::Index, byte: u8, kind in 1u8..4,
    ) {
        // A head, a block and an end as payloads, with one byte changed.
        let store = filled(&[Step::Put(1, 3, true), Step::Batch, Step::Delete(1)]);
        let stream = stream(&store);
        let mut data = vec![7];
        for frame in frames(&stream) {
            let payload = &stream[frame.start + 13..frame.end];
            data.push(stream[frame.start]);
            data.extend(u16::try_from(payload.len()).unwrap().to_le_bytes());
            data.extend(payload);
        }
        fuzz_stream(&data);
        let at = at.index(data.len());
        data[at] = byte;
        fuzz_stream(&data);
        data[1] = kind;
        fuzz_stream(&data);
    }
}

/// Where the frames of a stream are.
fn frames(stream: &[u8]) -> Vec<Range<usize>> {
    let mut frames = Vec::new();
    let mut start = 9;
    while let Some(length) = stream.get(start + 1..start + 5) {
        let end = start + 13 + u32::from_le_bytes(length.try_into().unwrap()) as usize;
        frames.push(start..end);
        start = end;
    }
    frames
}

fn example() -> Vec<u8> {
    stream(&filled(&[Step::Put(1, 40, true), Step::Batch, Step::Delete(1), Step::Put(2, 9, false)]))
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let stream = example();
    receive_bytes(&stream).unwrap();
    for bit in 0..stream.len() * 8 {
        let mut flipped = stream.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        receive_bytes(&flipped).expect_err("a bit is wrong");
    }
    for length in 0..stream.len() {
        let error = receive_bytes(&stream[..length]).unwrap_err();
        assert!(matches!(error, SnapshotError::CutShort { .. }), "{length} bytes: {error}");
    }
}

#[test]
fn bytes_behind_the_end_and_missing_frames_are_refused() {
    let mut longer = example();
    longer.push(0);
    let error = receive_bytes(&longer).unwrap_err();
    assert!(error.to_string().contains("follow the end"), "{error}");
    let steps = [Step::Put(1, 70_000, false), Step::Batch, Step::Put(2, 70_000, false)];
    let stream = stream(&filled(&steps));
    let frames = frames(&stream);
    assert_eq!(frames.len(), 4, "a head, two blocks and an end");
    for frame in frames {
        let mut shorter = stream.clone();
        shorter.drain(frame);
        receive_bytes(&shorter).expect_err("a frame is missing");
    }
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let mut stream = example();
    stream[8] = 2;
    let error = receive_bytes(&stream).unwrap_err();
    assert!(matches!(error, SnapshotError::NewerFormat { found: 2 }), "{error}");
}
