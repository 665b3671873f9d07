//! The hub against a simple model: a watcher must see exactly the changes it
//! asked for, in order, each once, whatever room its stream has.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use castd_proto::etcdserverpb::request_op::Request;
use castd_proto::etcdserverpb::watch_create_request::FilterType;
use castd_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, WatchCreateRequest,
    WatchResponse,
};
use castd_proto::mvccpb::event::EventType;
use proptest::prelude::*;

use super::{HubCore, HubMetrics, HubSettings, Outbox, StreamId};
use crate::cluster::ClusterState;
use crate::mvcc::{EventBatch, Record, Store, View};
use crate::snapshot::through_a_stream;

/// Streams with a number of free places each.
#[derive(Default)]
struct Rooms {
    free: HashMap<StreamId, usize>,
    got: Vec<(StreamId, WatchResponse)>,
}

impl Outbox for Rooms {
    fn offer(
        &mut self,
        stream: StreamId,
        response: WatchResponse,
    ) -> Result<(), Box<WatchResponse>> {
        let free = self.free.entry(stream).or_default();
        if *free == 0 {
            return Err(Box::new(response));
        }
        *free -= 1;
        self.got.push((stream, response));
        Ok(())
    }
}

struct World {
    store: Store,
    hub: HubCore,
    metrics: HubMetrics,
    rooms: Rooms,
    history: Vec<Record>,
}

fn view(store: &Store) -> Arc<View> {
    Arc::new(store.view(1, 1, Arc::new(ClusterState::default())))
}

impl World {
    fn new() -> Self {
        let store = Store::default();
        let settings = HubSettings { cluster_id: 1, member_id: 2, fragment_bytes: 1 << 20 };
        let metrics = HubMetrics::new(&prometheus::Registry::new()).unwrap();
        let hub = HubCore::new(settings, view(&store), metrics.clone());
        Self { store, hub, metrics, rooms: Rooms::default(), history: Vec::new() }
    }

    fn put(&mut self, key: &str) {
        let (key, value) = (key.to_owned().into(), "v".into());
        self.store.put(PutRequest { key, value, ..PutRequest::default() }).unwrap();
    }

    fn publish(&mut self) {
        let records = self.store.finish_batch();
        if records.is_empty() {
            return;
        }
        self.history.extend(records.iter().cloned());
        let batch = EventBatch { view: view(&self.store), records: Arc::new(records) };
        self.hub.events(batch, &mut self.rooms);
    }

    /// As a member does that gets a snapshot: the changes themselves never come.
    fn install(&mut self, compact: i64) {
        self.history.extend(self.store.finish_batch());
        // Revisions that were compacted before stay so.
        let request = CompactionRequest { revision: compact, physical: false };
        let _ = self.store.compact(&request);
        self.store = through_a_stream(&self.store);
        self.hub.replace(view(&self.store));
    }

    /// The compact revision that a watcher was ended with, if it was.
    fn ended_at(&self, stream: StreamId, id: i64) -> Option<i64> {
        let mut of_watcher =
            self.rooms.got.iter().filter(|(s, r)| *s == stream && r.watch_id == id);
        of_watcher.find(|(_, r)| r.canceled).map(|(_, r)| r.compact_revision)
    }

    fn watch(&mut self, stream: StreamId, request: &WatchCreateRequest) -> WatchResponse {
        let newest = self.store.revision();
        self.hub.create(stream, request, newest).unwrap()
    }

    /// Gives a stream room until all its watchers have caught up.
    fn drain(&mut self, stream: StreamId) {
        for _ in 0..10_000 {
            self.rooms.free.insert(stream, 3);
            if !self.hub.catch_up(stream, &mut self.rooms) {
                return;
            }
        }
        panic!("stream {stream} never catches up");
    }

    fn events(&self, stream: StreamId, id: i64) -> Vec<(i64, Bytes, bool)> {
        let of_watcher = self.rooms.got.iter().filter(|(s, r)| *s == stream && r.watch_id == id);
        of_watcher
            .flat_map(|(_, response)| &response.events)
            .map(|event| {
                let kv = event.kv.clone().unwrap();
                (kv.mod_revision, kv.key, event.r#type == EventType::Delete as i32)
            })
            .collect()
    }
}

fn request(key: &str, range_end: &str, start_revision: i64) -> WatchCreateRequest {
    let (key, range_end) = (key.to_owned().into(), range_end.to_owned().into());
    WatchCreateRequest { key, range_end, start_revision, ..Default::default() }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Delete(u8),
    Publish,
    /// A snapshot is installed that was compacted so far behind its end, if at all.
    Install(Option<u8>),
    Watch {
        stream: u64,
        from: u8,
        to: u8,
        back: Option<u8>,
        filter: u8,
    },
    Cancel {
        stream: u64,
        id: i64,
    },
    Room {
        stream: u64,
        places: usize,
    },
    CatchUp {
        stream: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let stream = || 1u64..4;
    prop_oneof![
        10 => (0u8..6).prop_map(Step::Put),
        3 => (0u8..6).prop_map(Step::Delete),
        6 => Just(Step::Publish),
        2 => prop::option::of(0u8..12).prop_map(Step::Install),
        4 => (stream(), 0u8..6, 0u8..8, prop::option::of(0u8..20), 0u8..3)
            .prop_map(|(stream, from, to, back, filter)| {
                Step::Watch { stream, from, to, back, filter }
            }),
        1 => (stream(), 0i64..4).prop_map(|(stream, id)| Step::Cancel { stream, id }),
        4 => (stream(), 0usize..4).prop_map(|(stream, places)| Step::Room { stream, places }),
        4 => stream().prop_map(|stream| Step::CatchUp { stream }),
    ]
}

/// What a watcher was promised.
#[derive(Clone, Debug)]
struct Promise {
    request: WatchCreateRequest,
    start: i64,
}

fn expected(history: &[Record], promise: &Promise) -> Vec<(i64, Bytes, bool)> {
    let Promise { request, start } = promise;
    let has = |filter: FilterType| request.filters.contains(&(filter as i32));
    history
        .iter()
        .filter(|record| record.revision.main >= *start)
        .filter(|record| match request.range_end.is_empty() {
            true => record.key == request.key,
            false => record.key >= request.key && record.key < request.range_end,
        })
        .filter(|record| match record.is_tombstone() {
            true => !has(FilterType::Nodelete),
            false => !has(FilterType::Noput),
        })
        .map(|record| (record.revision.main, record.key.clone(), record.is_tombstone()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn every_watcher_sees_exactly_what_it_asked_for(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        let mut promises: BTreeMap<(StreamId, i64), Promise> = BTreeMap::new();
        (1..4).for_each(|stream| world.hub.open(stream));
        for step in steps {
            match step {
                Step::Put(n) => world.put(&format!("k{n}")),
                Step::Delete(n) => {
                    let key = format!("k{n}").into();
                    let request = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
                    world.store.delete_range(&request);
                }
                Step::Publish => world.publish(),
                Step::Install(back) => {
                    let compact = back.map_or(-1, |back| world.store.revision() - i64::from(back));
                    world.install(compact);
                }
                Step::Watch { stream, from, to, back, filter } => {
                    let start = back.map_or(0, |back| {
                        (world.store.revision() - i64::from(back)).max(1)
                    });
                    let end = if to <= from { String::new() } else { format!("k{to}") };
                    let mut request = request(&format!("k{from}"), &end, start);
                    if filter > 0 {
                        request.filters.push(i32::from(filter) - 1);
                    }
                    let newest = world.store.revision();
                    let answer = world.watch(stream, &request);
                    prop_assert!(answer.created && !answer.canceled);
                    let start = if start == 0 { newest + 1 } else { start };
                    promises.insert((stream, answer.watch_id), Promise { request, start });
                }
                Step::Cancel { stream, id } => {
                    let answer = world.hub.cancel(stream, id);
                    let ended = world.ended_at(stream, id).is_some();
                    let known = promises.remove(&(stream, id)).is_some();
                    prop_assert_eq!(answer.is_some(), known && !ended);
                }
                Step::Room { stream, places } => {
                    world.rooms.free.insert(stream, places);
                }
                Step::CatchUp { stream } => {
                    world.hub.catch_up(stream, &mut world.rooms);
                }
            }
        }
        world.publish();
        (1..4).for_each(|stream| world.drain(stream));
        for ((stream, id), promise) in &promises {
            let mut seen = world.events(*stream, *id);
            let mut wanted = expected(&world.history, promise);
            if let Some(compacted) = world.ended_at(*stream, *id) {
                // It was behind what there is, and had all that came before.
                prop_assert!(wanted.starts_with(&seen), "{} {:?} {:?}", id, promise, seen);
                let last = seen.last().map_or(0, |(revision, _, _)| *revision);
                prop_assert!(last.max(promise.start - 1) < compacted);
                (seen, wanted) = (Vec::new(), Vec::new());
            }
            prop_assert_eq!(seen, wanted, "{} {:?}", id, promise);
        }
        prop_assert_eq!((world.metrics.slow.get(), world.metrics.pending.get()), (0, 0));
    }
}

#[test]
fn a_stream_without_room_lags_and_catches_up() {
    let mut world = World::new();
    world.hub.open(1);
    let id = world.watch(1, &request("k", "", 0)).watch_id;
    for _ in 0..5 {
        world.put("k");
        world.publish();
    }
    assert!(world.hub.lags(1) && world.events(1, id).is_empty());
    assert!(world.hub.progress(1).is_none(), "a stream that lags is silent about its progress");
    assert_eq!((world.metrics.slow.get(), world.metrics.pending.get()), (1, 5));
    world.drain(1);
    assert_eq!(world.events(1, id).len(), 5);
    assert_eq!((world.metrics.slow.get(), world.metrics.pending.get()), (0, 0));
    assert_eq!(world.hub.progress(1).unwrap().header.unwrap().revision, 6);
}

#[test]
fn a_watcher_behind_compaction_is_told_where_history_begins() {
    let mut world = World::new();
    world.hub.open(1);
    (0..5).for_each(|_| world.put("k"));
    world.publish();
    world.store.compact(&CompactionRequest { revision: 4, physical: false }).unwrap();
    // The hub has handed out no event since: it is told, not asked to guess.
    world.hub.set_compact_revision(4);
    let id = world.watch(1, &request("k", "", 2)).watch_id;
    world.drain(1);
    let (_, last) = world.rooms.got.last().unwrap();
    assert_eq!((last.watch_id, last.canceled, last.compact_revision), (id, true, 4));
    assert!(world.hub.cancel(1, id).is_none(), "it is gone");
}

#[test]
fn watchers_read_across_a_snapshot_unless_it_was_compacted_behind_them() {
    let mut world = World::new();
    world.hub.open(1);
    world.put("k");
    world.publish();
    assert_eq!(world.store.revision(), 2);
    let behind = world.watch(1, &request("k", "", 1)).watch_id;
    let newest = world.watch(1, &request("k", "", 0)).watch_id;
    let future = world.watch(1, &request("k", "", 20)).watch_id;
    assert!(world.hub.lags(1), "the first one has not read what was before it");
    (0..5).for_each(|_| world.put("k"));
    world.install(3);
    assert_eq!(world.hub.revision(), 7);
    assert!(world.hub.progress(1).is_none(), "they have something to read");
    world.drain(1);
    assert_eq!(world.ended_at(1, behind), Some(3), "revision 2 is compacted");
    let revisions = |id| world.events(1, id).iter().map(|e| e.0).collect::<Vec<_>>();
    assert_eq!(revisions(newest), [3, 4, 5, 6, 7], "it goes on where the old state ended");
    assert_eq!((revisions(future), world.ended_at(1, future)), (vec![], None));
    assert_eq!(world.hub.progress(1).unwrap().header.unwrap().revision, 7);
    (0..20).for_each(|_| world.put("k"));
    world.install(-1);
    world.drain(1);
    assert_eq!(world.events(1, future).first().map(|event| event.0), Some(20));
    assert_eq!((world.metrics.slow.get(), world.metrics.pending.get()), (0, 0));
}

#[test]
fn ids_ranges_and_starts_are_checked() {
    let mut world = World::new();
    world.hub.open(1);
    assert_eq!(world.watch(1, &request("k", "", 0)).watch_id, 0);
    let own = WatchCreateRequest { watch_id: 7, ..request("k", "", 0) };
    assert_eq!(world.watch(1, &own).watch_id, 7);
    let cases = [
        (own, "mvcc: duplicate watch ID provided on the WatchStream"),
        (request("k", "a", 0), "mvcc: watcher range is empty"),
        (request("k", "", -1), "etcdserver: mvcc: required revision has been compacted"),
    ];
    for (request, reason) in cases {
        let answer = world.watch(1, &request);
        assert!(answer.created && answer.canceled, "{answer:?}");
        assert_eq!((answer.watch_id, answer.cancel_reason.as_str()), (-1, reason));
    }
}

#[test]
fn silent_watchers_hear_of_progress() {
    let mut world = World::new();
    world.hub.open(1);
    world.rooms.free.insert(1, 10);
    let notified = WatchCreateRequest { progress_notify: true, ..request("k", "", 0) };
    let id = world.watch(1, &notified).watch_id;
    world.hub.notify_progress(&mut world.rooms);
    assert!(world.rooms.got.is_empty(), "it was created since the last round");
    world.put("other");
    world.publish();
    world.hub.notify_progress(&mut world.rooms);
    let (_, response) = &world.rooms.got[0];
    assert_eq!((response.watch_id, response.events.len()), (id, 0));
    assert_eq!(response.header.unwrap().revision, 2);
}

#[test]
fn fragments_go_on_where_the_stream_was_full() {
    let mut world = World::new();
    world.hub.open(1);
    let request = WatchCreateRequest { fragment: true, ..request("k", "l", 0) };
    let id = world.watch(1, &request).watch_id;
    let value = Bytes::from(vec![b'v'; 400 << 10]);
    let put = |n: u32| RequestOp {
        request: Some(Request::RequestPut(PutRequest {
            key: format!("k{n:02}").into(),
            value: value.clone(),
            ..PutRequest::default()
        })),
    };
    let success = (0..40).map(put).collect();
    world.store.txn(TxnRequest { success, ..TxnRequest::default() }).unwrap();
    world.rooms.free.insert(1, 2);
    world.publish();
    world.drain(1);
    let seen = world.events(1, id);
    assert_eq!(seen.len(), 40, "each once");
    let last = &world.rooms.got.last().unwrap().1;
    let open = world.rooms.got.iter().filter(|(_, response)| response.fragment).count();
    assert!(!last.fragment && open == world.rooms.got.len() - 1, "only the last one ends it");
}
