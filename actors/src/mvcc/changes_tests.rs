//! Pieces of history against all of the log.

use bytes::Bytes;
use castd_proto::etcdserverpb::request_op::Request;
use castd_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest,
};
use proptest::prelude::*;

use super::changes::{Changes, PieceLimits};
use super::record::Record;
use super::revision::{KeyRange, Revision};
use super::store::Store;
use super::tests::{pack_all, reload, view};
use super::view::View;

#[derive(Clone, Debug)]
enum Write {
    Put(u8, u8),
    Delete(u8, u8),
}

#[derive(Clone, Debug)]
enum Step {
    /// One transaction; the same key may be in it many times.
    Write(Vec<Write>),
    /// The same put many times over, so that other keys' changes are rare.
    Puts(u8, u8),
    Finish,
    /// Compacts to this share of history.
    Compact(u8),
    Scrub(usize),
    Pack,
    Reload(bool),
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        5 => (0u8..8, any::<u8>()).prop_map(|(key, value)| Write::Put(key, value % 60)),
        2 => (0u8..8, 0u8..9).prop_map(|(from, to)| Write::Delete(from, to)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => prop::collection::vec(write(), 1..2).prop_map(Step::Write),
        3 => prop::collection::vec(write(), 2..8).prop_map(Step::Write),
        4 => (0u8..8, 1u8..60).prop_map(|(key, times)| Step::Puts(key, times)),
        5 => Just(Step::Finish),
        2 => any::<u8>().prop_map(Step::Compact),
        4 => (1usize..40).prop_map(Step::Scrub),
        1 => Just(Step::Pack),
        1 => any::<bool>().prop_map(Step::Reload),
    ]
}

fn key(number: u8) -> Bytes {
    Bytes::from(format!("key/{number}"))
}

fn put(key: Bytes, len: u8) -> PutRequest {
    PutRequest { key, value: Bytes::from(vec![b'v'; usize::from(len)]), ..PutRequest::default() }
}

fn request(write: &Write) -> RequestOp {
    let request = match write {
        Write::Put(number, len) => Request::RequestPut(put(key(*number), *len)),
        Write::Delete(from, to) => Request::RequestDeleteRange(DeleteRangeRequest {
            key: key(*from),
            range_end: key(*to),
            prev_kv: false,
        }),
    };
    RequestOp { request: Some(request) }
}

fn apply(store: &mut Store, step: &Step) {
    if !matches!(step, Step::Write(_) | Step::Puts(..)) {
        store.finish_batch();
    }
    match step {
        Step::Write(writes) => {
            let success = writes.iter().map(request).collect();
            store.txn(TxnRequest { success, ..TxnRequest::default() }).unwrap();
        }
        Step::Puts(number, times) => {
            for _ in 0..*times {
                store.put(put(key(*number), 10)).unwrap();
            }
        }
        Step::Finish => {}
        Step::Compact(share) => {
            let revision = store.revision() * i64::from(*share) / 255;
            // Refused when it is below the one before.
            let _ = store.compact(&CompactionRequest { revision, physical: false });
        }
        Step::Scrub(records) => drop(store.scrub(*records)),
        Step::Pack => pack_all(store),
        Step::Reload(fresh) => *store = reload(store, *fresh),
    }
}

fn store_of(steps: &[Step]) -> Store {
    let mut store = Store::default();
    steps.iter().for_each(|step| apply(&mut store, step));
    store.finish_batch();
    store
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => (0u8..9).prop_map(|number| KeyRange::Single(key(number))),
        4 => (0u8..9, 0u8..9).prop_map(|(from, to)| KeyRange::Between(key(from), key(to))),
        1 => (0u8..9).prop_map(|from| KeyRange::From(key(from))),
        1 => Just(KeyRange::From(Bytes::from_static(b"\0"))),
    ]
}

fn limits() -> impl Strategy<Value = PieceLimits> {
    prop_oneof![
        (0usize..30, 0usize..300).prop_map(|(records, bytes)| PieceLimits { records, bytes }),
        (0usize..1000).prop_map(|bytes| PieceLimits { records: 4096, bytes }),
        Just(PieceLimits { records: 4096, bytes: usize::MAX }),
    ]
}

fn naive(view: &View, range: &KeyRange, from: i64) -> Vec<Record> {
    let records = view.records_from(Revision::start_of(from));
    records.filter(|record| range.contains(&record.key)).collect()
}

/// Reads all pieces with `read`, checking each.
fn pieces(
    view: &View,
    from: i64,
    limits: PieceLimits,
    read: impl Fn(i64) -> Changes,
) -> Vec<Record> {
    let (mut all, mut from) = (Vec::new(), from);
    while from <= view.revision() {
        let Changes { records, next } = read(from);
        assert!(next > from && next <= view.revision() + 1);
        assert!(records.iter().all(|record| (from..next).contains(&record.revision.main)));
        let bytes: usize = records.iter().map(|record| record.key.len() + record.value.len()).sum();
        let alone = records.first().map(|record| record.revision.main)
            == records.last().map(|record| record.revision.main);
        assert!(bytes <= limits.bytes || alone);
        all.extend(records);
        from = next;
    }
    assert_eq!(read(from), Changes { records: vec![], next: from });
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn pieces_make_the_whole(
        steps in prop::collection::vec(step(), 1..60),
        cases in prop::collection::vec((range(), any::<prop::sample::Index>(), limits()), 10),
    ) {
        let view = view(&store_of(&steps));
        let first = view.compact_revision().max(1);
        let mut froms = vec![first, first + 1];
        for (range, at, limits) in cases {
            froms.push(first + at.index((view.revision() - first + 2) as usize) as i64);
            for &from in &froms {
                let expected = naive(&view, &range, from);
                let found =
                    pieces(&view, from, limits, |from| view.changes(&range, from, limits));
                prop_assert_eq!(&found, &expected, "{:?} from {} by {:?}", range, from, limits);
                // Each way by itself.
                let found =
                    pieces(&view, from, limits, |from| view.forward(&range, from, limits));
                prop_assert_eq!(&found, &expected, "forward {:?} from {}", range, from);
                let found = view.backward(&range, from, 10_000);
                prop_assert_eq!(found, Some(expected), "backward {:?} from {}", range, from);
            }
        }
    }
}

/// `total` puts of which every `each`th is of a watched key, in batches.
fn filled(total: i64, each: i64) -> View {
    let mut store = Store::default();
    for number in 0..total {
        let key = match number % each {
            0 => Bytes::from(format!("watched/{}", number / each % 10)),
            _ => Bytes::from(format!("other/{}", number % 1000)),
        };
        store.put(put(key, 20)).unwrap();
        if number % 100 == 0 {
            store.finish_batch();
        }
    }
    store.finish_batch();
    view(&store)
}

fn watched() -> KeyRange {
    KeyRange::Between(Bytes::from_static(b"watched/"), Bytes::from_static(b"watched0"))
}

const LIMITS: PieceLimits = PieceLimits { records: 4096, bytes: 1 << 20 };

#[test]
fn rare_changes_come_in_one_piece() {
    let view = filled(20_000, 100);
    for range in [KeyRange::Single(Bytes::from_static(b"watched/3")), watched()] {
        let Changes { records, next } = view.changes(&range, 1, LIMITS);
        assert_eq!(next, view.revision() + 1);
        assert_eq!(records, naive(&view, &range, 1));
    }
}

#[test]
fn frequent_changes_are_read_forward_in_pieces() {
    let view = filled(20_000, 4);
    let Changes { records, next } = view.changes(&watched(), 2, LIMITS);
    assert_eq!((records.len(), next), (1024, 2 + 4096));
    let steps = 1024;
    assert!(view.backward(&watched(), 2, steps).is_none());
    assert!(view.backward(&watched(), next, 4000).is_some_and(|all| all.len() == 3976));
}

#[test]
fn a_range_of_many_keys_is_read_forward() {
    let view = filled(20_000, 1000);
    let all = KeyRange::From(Bytes::from_static(b"\0"));
    assert!(view.backward(&all, 19_990, 1000).is_none());
    assert_eq!(view.changes(&all, 19_990, LIMITS).records.len(), 12);
    assert_eq!(view.changes(&all, 30_000, LIMITS).next, 30_000);
}
