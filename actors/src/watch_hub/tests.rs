//! The hub against a simple model: a watcher must see exactly the changes it
//! asked for, in order, each once, whatever room its stream has.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use castd_proto::etcdserverpb::request_op::Request;
use castd_proto::etcdserverpb::watch_create_request::FilterType;
use castd_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, WatchCreateRequest,
    WatchResponse,
};
use castd_proto::mvccpb::{Event, event::EventType};
use proptest::prelude::*;

use super::{Chunk, HubCore, HubMetrics, HubSettings, Outbox, Room, StreamId, StreamRequest};
use crate::cluster::ClusterState;
use crate::mvcc::{EventBatch, PieceLimits, Record, Store, View};
use crate::snapshot::through_a_stream;

/// Above this size some watchers get fragments.
const FRAGMENT: usize = 1000;

/// Streams with room for a number of chunks each.
#[derive(Default)]
struct Rooms {
    free: HashMap<StreamId, usize>,
    awaited: BTreeSet<StreamId>,
    chunks: Vec<(StreamId, Chunk)>,
    got: Vec<(StreamId, WatchResponse)>,
    /// Streams whose requests are answered.
    answered: Vec<StreamId>,
}

impl Outbox for Rooms {
    fn has_room(&self, stream: StreamId, _: Room) -> bool {
        self.free.get(&stream).is_some_and(|free| *free > 0)
    }

    fn send(&mut self, stream: StreamId, chunk: Chunk) {
        let free = self.free.get_mut(&stream).expect("only a stream that has room is sent to");
        *free = free.checked_sub(1).expect("only a stream that has room is sent to");
        let responses = chunk.decode().expect("a chunk has whole responses");
        assert_eq!(responses.len(), chunk.responses as usize);
        self.got.extend(responses.into_iter().map(|response| (stream, response)));
        self.chunks.push((stream, chunk));
    }

    fn await_room(&mut self, stream: StreamId, _: Room) {
        assert!(self.awaited.insert(stream), "room is asked for once");
    }

    fn answered(&mut self, stream: StreamId) {
        self.answered.push(stream);
    }
}

struct World {
    store: Store,
    hub: HubCore,
    metrics: HubMetrics,
    rooms: Rooms,
    history: Vec<Record>,
    /// Turns that follow from a step at most.
    pace: usize,
    /// The streams that the steps of a history name by their places.
    streams: Vec<StreamId>,
}

fn view(store: &Store) -> Arc<View> {
    Arc::new(store.view(1, 1, Arc::new(ClusterState::default())))
}

impl World {
    fn new() -> Self {
        // Small, so that all borders are met.
        let piece = PieceLimits { records: 4, bytes: 1000 };
        Self::with(HubSettings { log_bytes: 2000, piece, ..HubSettings::new(1, 2, FRAGMENT) })
    }

    fn with(settings: HubSettings) -> Self {
        let store = Store::default();
        let metrics = HubMetrics::new(&prometheus::Registry::new()).unwrap();
        let hub = HubCore::new(settings, view(&store), metrics.clone());
        let (rooms, history, streams) = (Rooms::default(), Vec::new(), Vec::new());
        Self { store, hub, metrics, rooms, history, pace: usize::MAX, streams }
    }

    fn put(&mut self, key: &str) {
        self.put_value(key, 1);
    }

    fn put_value(&mut self, key: &str, bytes: usize) {
        let (key, value) = (key.to_owned().into(), vec![b'v'; bytes].into());
        self.store.put(PutRequest { key, value, ..PutRequest::default() }).unwrap();
    }

    /// Puts several keys at one revision.
    fn put_all(&mut self, keys: impl Iterator<Item = String>, bytes: usize) {
        let put = |key: String| RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: key.into(),
                value: vec![b'v'; bytes].into(),
                ..PutRequest::default()
            })),
        };
        let success = keys.map(put).collect();
        self.store.txn(TxnRequest { success, ..TxnRequest::default() }).unwrap();
    }

    fn publish(&mut self) {
        let records = self.store.finish_batch();
        if records.is_empty() {
            return;
        }
        self.history.extend(records.iter().cloned());
        self.hub.events(&EventBatch::new(view(&self.store), records));
        self.serve();
    }

    /// Turns until nobody is left who has room, or as many as there are to be.
    fn serve(&mut self) {
        for _ in 0..self.pace.min(100_000) {
            if self.hub.turn(&mut self.rooms) == 0 {
                self.hub.show();
                return;
            }
        }
        assert!(self.pace < usize::MAX, "the turns have no end");
    }

    /// As [`World::serve`], whatever the pace.
    fn serve_all(&mut self) {
        let pace = std::mem::replace(&mut self.pace, usize::MAX);
        self.serve();
        self.pace = pace;
    }

    /// Gives a stream room for so many chunks.
    fn room(&mut self, stream: StreamId, chunks: usize) {
        self.rooms.free.insert(stream, chunks);
        if chunks > 0 && self.rooms.awaited.remove(&stream) {
            self.hub.room(stream);
        }
    }

    fn ask(&mut self, stream: StreamId, request: StreamRequest) {
        let newest = self.store.revision();
        self.hub.ask(stream, &[request], newest, &mut self.rooms);
    }

    /// As a member does that gets a snapshot: the changes themselves never come.
    fn install(&mut self, compact: i64) {
        self.history.extend(self.store.finish_batch());
        // Revisions that were compacted before stay so.
        let request = CompactionRequest { revision: compact, physical: false };
        let _ = self.store.compact(&request);
        self.store = through_a_stream(&self.store);
        self.hub.replace(view(&self.store));
        self.serve();
    }

    /// The compact revision that a watcher was ended with, if it was.
    fn ended_at(&self, stream: StreamId, id: i64) -> Option<i64> {
        let mut of_watcher =
            self.rooms.got.iter().filter(|(s, r)| *s == stream && r.watch_id == id);
        of_watcher.find(|(_, r)| r.canceled).map(|(_, r)| r.compact_revision)
    }

    /// Asks for a watcher and answers what it was told.
    fn watch(&mut self, stream: StreamId, request: &WatchCreateRequest) -> WatchResponse {
        self.ask(stream, StreamRequest::Create(request.clone()));
        // Answers come first, so one chunk tells of it; the room is as it was then.
        let free = self.rooms.free.get(&stream).copied().unwrap_or(0);
        let before = self.rooms.got.len();
        self.room(stream, 1);
        self.serve_all();
        self.room(stream, free);
        let mut told = self.rooms.got[before..].iter().filter(|(to, _)| *to == stream);
        told.find(|(_, response)| response.created).expect("the answer comes at once").1.clone()
    }

    fn cancel(&mut self, stream: StreamId, id: i64) {
        self.ask(stream, StreamRequest::Cancel(id));
        self.serve();
    }

    /// Gives a stream room until there is nothing more for it.
    fn drain(&mut self, stream: StreamId) {
        for _ in 0..10_000 {
            self.room(stream, 3);
            self.serve_all();
            if self.rooms.free[&stream] == 3 {
                return;
            }
        }
        panic!("stream {stream} never catches up");
    }

    fn responses(&self, stream: StreamId) -> impl DoubleEndedIterator<Item = &WatchResponse> {
        self.rooms.got.iter().filter(move |(to, _)| *to == stream).map(|(_, response)| response)
    }

    /// The revision that the stream was told to have reached last.
    fn progress(&self, stream: StreamId) -> Option<i64> {
        let told = |r: &&WatchResponse| r.watch_id == -1 && !r.created && !r.canceled;
        self.responses(stream).rfind(told).map(|response| response.header.unwrap().revision)
    }

    /// The revisions of the events that a watcher was sent.
    fn events(&self, stream: StreamId, id: i64) -> Vec<i64> {
        let of_watcher = self.responses(stream).filter(|response| response.watch_id == id);
        let events = of_watcher.flat_map(|response| &response.events);
        events.map(|event| event.kv.as_ref().unwrap().mod_revision).collect()
    }
}

fn request(key: &str, range_end: &str, start_revision: i64) -> WatchCreateRequest {
    let (key, range_end) = (key.to_owned().into(), range_end.to_owned().into());
    WatchCreateRequest { key, range_end, start_revision, ..Default::default() }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u8, usize),
    PutAll(u8, u8),
    Delete(u8),
    Publish,
    /// A snapshot is installed that was compacted so far behind its end, if at all.
    Install(Option<u8>),
    Watch {
        stream: usize,
        from: u8,
        to: u8,
        /// Where it begins: so far behind the newest revision, or before it.
        back: Option<i8>,
        way: u8,
    },
    Cancel {
        stream: usize,
        id: i64,
    },
    Progress {
        stream: usize,
    },
    Notify,
    Room {
        stream: usize,
        chunks: usize,
    },
    /// The stream ends, and a new one has its slot.
    Reopen {
        stream: usize,
    },
    /// From now on so many turns follow from a step, where it is not all.
    Pace(Option<usize>),
}

fn step() -> impl Strategy<Value = Step> {
    let stream = || 0usize..3;
    let size = prop_oneof![8 => 0usize..10, 3 => 100usize..900, 1 => Just(9000), 1 => Just(20_000)];
    prop_oneof![
        10 => (0u8..6, size).prop_map(|(key, size)| Step::Put(key, size)),
        2 => (0u8..6, 0u8..6).prop_map(|(from, to)| Step::PutAll(from, to)),
        3 => (0u8..6).prop_map(Step::Delete),
        6 => Just(Step::Publish),
        1 => prop::option::of(0u8..12).prop_map(Step::Install),
        5 => (stream(), 0u8..6, 0u8..8, prop::option::of(-5i8..20), 0u8..16)
            .prop_map(|(stream, from, to, back, way)| {
                Step::Watch { stream, from, to, back, way }
            }),
        1 => (stream(), 0i64..6).prop_map(|(stream, id)| Step::Cancel { stream, id }),
        2 => stream().prop_map(|stream| Step::Progress { stream }),
        1 => Just(Step::Notify),
        6 => (stream(), 0usize..4).prop_map(|(stream, chunks)| Step::Room { stream, chunks }),
        1 => stream().prop_map(|stream| Step::Reopen { stream }),
        2 => prop::option::of(0usize..6).prop_map(Step::Pace),
    ]
}

/// What a watcher was promised.
#[derive(Clone, Debug)]
struct Promise {
    request: WatchCreateRequest,
    start: i64,
}

impl Promise {
    fn wants(&self, record: &Record) -> bool {
        let Self { request, start } = self;
        let has = |filter: FilterType| request.filters.contains(&(filter as i32));
        let inside = match request.range_end.is_empty() {
            true => record.key == request.key,
            false => record.key >= request.key && record.key < request.range_end,
        };
        let filtered =
            has(if record.is_tombstone() { FilterType::Nodelete } else { FilterType::Noput });
        inside && !filtered && record.revision.main >= *start
    }
}

/// A watcher's request out of a few bits.
fn way(mut request: WatchCreateRequest, way: u8) -> WatchCreateRequest {
    request.filters = [vec![], vec![0], vec![1], vec![]][usize::from(way & 3)].clone();
    request.prev_kv = way & 4 > 0;
    request.fragment = way & 8 > 0;
    request.progress_notify = way & 3 == 3;
    request
}

impl World {
    fn step(&mut self, step: Step, promises: &mut BTreeMap<(StreamId, i64), Promise>) {
        match step {
            Step::Put(n, bytes) => self.put_value(&format!("k{n}"), bytes),
            Step::PutAll(from, to) => self.put_all((from..=to).map(|n| format!("k{n}")), 3),
            Step::Delete(n) => {
                let key = format!("k{n}").into();
                self.store.delete_range(&DeleteRangeRequest { key, ..Default::default() });
            }
            Step::Publish => self.publish(),
            Step::Install(back) => {
                self.install(back.map_or(-1, |back| self.store.revision() - i64::from(back)));
            }
            Step::Watch { stream, from, to, back, way: bits } => {
                let stream = self.streams[stream];
                let newest = self.store.revision();
                let start = back.map_or(0, |back| (newest - i64::from(back)).max(1));
                let end = if to <= from { String::new() } else { format!("k{to}") };
                let request = way(request(&format!("k{from}"), &end, start), bits);
                let answer = self.watch(stream, &request);
                assert!(!answer.canceled, "{answer:?}");
                let start = if start == 0 { newest + 1 } else { start };
                promises.insert((stream, answer.watch_id), Promise { request, start });
            }
            Step::Cancel { stream, id } => {
                let stream = self.streams[stream];
                self.cancel(stream, id);
                // It is gone, so there is nothing to be said of it.
                self.cancel(stream, id);
                promises.remove(&(stream, id));
            }
            Step::Progress { stream } => {
                self.ask(self.streams[stream], StreamRequest::Progress);
                self.serve();
            }
            Step::Notify => {
                self.hub.notify_progress();
                self.serve();
            }
            Step::Room { stream, chunks } => {
                self.room(self.streams[stream], chunks);
                self.serve();
            }
            Step::Reopen { stream } => {
                let before = self.streams[stream];
                let new = before + self.streams.len() as StreamId;
                self.hub.close(before);
                self.hub.open(new);
                promises.retain(|(of, _), _| *of != before);
                self.streams[stream] = new;
            }
            Step::Pace(turns) => self.pace = turns.unwrap_or(usize::MAX),
        }
    }

    /// Goes through all that a stream was sent, in order.
    fn check(&self, stream: StreamId, promises: &BTreeMap<(StreamId, i64), Promise>) {
        let mut seen: BTreeMap<i64, Vec<(i64, Bytes, bool)>> = BTreeMap::new();
        let mut open: Option<i64> = None;
        for response in self.responses(stream) {
            let id = response.watch_id;
            let told = response.header.unwrap().revision;
            if response.created {
                seen.insert(id, Vec::new());
            } else if response.canceled {
                seen.remove(&id);
            } else if response.events.is_empty() {
                let about = |of: &i64| id == -1 || id == *of;
                for (of, events) in seen.iter().filter(|(of, _)| about(of)) {
                    let Some(promise) = promises.get(&(stream, *of)) else { continue };
                    let before =
                        |record: &&Record| promise.wants(record) && record.revision.main <= told;
                    let due = self.history.iter().filter(before).count();
                    assert!(events.len() >= due, "progress at {told} ahead of events of {of}");
                }
            } else {
                let events = seen.get_mut(&id).expect("events come behind `created`");
                let first = response.events[0].kv.as_ref().unwrap().mod_revision;
                let last = events.last().map_or(0, |(revision, _, _)| *revision);
                assert!(first > last || open == Some(id), "a revision comes in one response");
                assert!(open.is_none_or(|open| open == id), "fragments come together");
                open = response.fragment.then_some(id);
                events.extend(response.events.iter().map(|event| self.plain(event)));
            }
        }
        for (id, seen) in seen {
            let Some(promise) = promises.get(&(stream, id)) else { continue };
            let wanted = self.history.iter().filter(|record| promise.wants(record));
            let wanted: Vec<(i64, Bytes, bool)> = wanted
                .map(|record| (record.revision.main, record.key.clone(), record.is_tombstone()))
                .collect();
            assert_eq!(seen, wanted, "{id} {promise:?}");
        }
    }

    /// An event in brief, after a look at what it says of the key before it.
    fn plain(&self, event: &Event) -> (i64, Bytes, bool) {
        let kv = event.kv.as_ref().unwrap();
        if let Some(previous) = &event.prev_kv {
            let before =
                |record: &&Record| record.key == kv.key && record.revision.main < kv.mod_revision;
            let record = self.history.iter().rfind(before).unwrap();
            assert_eq!(*previous, record.to_key_value());
        }
        (kv.mod_revision, kv.key.clone(), event.r#type == EventType::Delete as i32)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn every_watcher_sees_exactly_what_it_asked_for(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new();
        let mut promises: BTreeMap<(StreamId, i64), Promise> = BTreeMap::new();
        world.streams = (1..4).collect();
        (1..4).for_each(|stream| world.hub.open(stream));
        for step in steps {
            world.step(step, &mut promises);
            world.hub.check();
        }
        world.publish();
        let streams = world.streams.clone();
        streams.iter().for_each(|stream| world.drain(*stream));
        for ((stream, id), promise) in promises.clone() {
            let Some(compacted) = world.ended_at(stream, id) else { continue };
            // It was behind what there is, and had all that came before.
            let seen = world.events(stream, id);
            let wanted: Vec<i64> = world
                .history
                .iter()
                .filter(|record| promise.wants(record))
                .map(|record| record.revision.main)
                .take(seen.len())
                .collect();
            prop_assert_eq!(&seen, &wanted, "{} {:?}", id, promise);
            let last = seen.last().map_or(0, |revision| *revision);
            prop_assert!(last.max(promise.start - 1) < compacted);
            promises.remove(&(stream, id));
        }
        streams.iter().for_each(|stream| world.check(*stream, &promises));
        prop_assert_eq!(world.metrics.lagging(), (0, 0));
        streams.iter().for_each(|stream| world.hub.close(*stream));
        prop_assert!(world.hub.is_empty(), "nothing is left of streams that have ended");
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
    assert!(world.events(1, id).is_empty());
    assert_eq!((world.hub.furthest_behind(), world.metrics.lagging()), (Some(2), (1, 5)));
    world.ask(1, StreamRequest::Progress);
    world.drain(1);
    assert_eq!(world.events(1, id), [2, 3, 4, 5, 6]);
    assert_eq!((world.hub.furthest_behind(), world.metrics.lagging()), (None, (0, 0)));
    assert_eq!(world.progress(1), Some(6), "it is told once it has caught up");
}

#[test]
fn what_all_want_is_sent_from_the_same_bytes() {
    let mut world = World::with(HubSettings::new(1, 2, FRAGMENT));
    for stream in 1..=3 {
        world.hub.open(stream);
        world.watch(stream, &request("k", "", 0));
        world.watch(stream, &request("a", "z", 0));
        world.room(stream, 10);
    }
    world.put_value("k", 100_000);
    world.publish();
    let large = world.rooms.chunks.iter().flat_map(|(_, chunk)| &chunk.parts);
    let large: BTreeSet<*const u8> =
        large.filter(|part| part.len() > 100_000).map(|part| part.as_ptr()).collect();
    assert_eq!((world.rooms.got.len(), large.len()), (6 + 6, 1));
}

#[test]
fn streams_take_turns_whatever_one_of_them_has_to_get() {
    let mut world = World::new();
    world.hub.open(1);
    for _ in 0..2000 {
        world.watch(1, &request("k", "", 0));
    }
    world.hub.open(2);
    let other = world.watch(2, &request("k", "", 0)).watch_id;
    world.room(1, 1000);
    world.room(2, 1000);
    world.put_value("k", 1000);
    let records = world.store.finish_batch();
    world.hub.events(&EventBatch::new(view(&world.store), records));
    // One turn each: the first stream's watchers have not all been told then.
    assert_eq!([world.hub.turn(&mut world.rooms), world.hub.turn(&mut world.rooms)], [1, 1]);
    assert_eq!(world.events(2, other), [2]);
    let told = |world: &World| world.responses(1).filter(|r| !r.events.is_empty()).count();
    assert!((1..100).contains(&told(&world)));
    world.serve();
    assert_eq!(told(&world), 2000);
}

#[test]
fn those_who_come_back_keep_nobody_waiting_who_is_up_to_date() {
    let mut world = World::new();
    world.put_all((0..9).map(|n| format!("k{n}")), 1);
    (0..100).for_each(|_| world.put("k0"));
    world.publish();
    (1..=50).for_each(|stream| world.hub.open(stream));
    for stream in 1..50 {
        for n in 0..9 {
            world.watch(stream, &request(&format!("k{n}"), "l", 1));
        }
    }
    // One of those who come back watches the newest too.
    let ids = [49, 50].map(|stream| world.watch(stream, &request("z", "", 0)).watch_id);
    let newest = |world: &World| [world.events(49, ids[0]), world.events(50, ids[1])].concat();
    (1..=50).for_each(|stream| world.room(stream, 1000));
    for _ in 0..20 {
        // History is being read, and in some streams sent.
        world.hub.turn(&mut world.rooms);
    }
    world.put("z");
    let records = world.store.finish_batch();
    world.hub.events(&EventBatch::new(view(&world.store), records));
    let cost = world.hub.turn(&mut world.rooms) + world.hub.turn(&mut world.rooms);
    assert_eq!((cost, newest(&world)), (2, vec![103; 2]));
    world.hub.check();
    world.serve();
    let behind = |stream| world.events(stream, 0).last().copied();
    assert!((1..50).all(|stream| behind(stream) == Some(102)));
}

#[test]
fn a_stream_in_the_slot_of_another_one_does_not_take_its_turns() {
    let mut world = World::new();
    (0..20).for_each(|_| world.put("k"));
    world.publish();
    let create = StreamRequest::Create(request("k", "", 1));
    for stream in 1..=3 {
        world.hub.open(stream);
        // It stands in both lines when it ends.
        world.ask(stream, create.clone());
        world.hub.close(stream);
    }
    world.hub.open(4);
    world.ask(4, create);
    world.room(4, 2);
    world.hub.check();
    while world.hub.turn(&mut world.rooms) > 0 {
        world.hub.check();
    }
    world.drain(4);
    assert_eq!(world.events(4, 0), (2..=21).collect::<Vec<i64>>());
}

#[test]
fn watchers_of_a_stream_that_begin_together_read_history_once() {
    let mut world = World::new();
    world.hub.open(1);
    world.room(1, 10_000);
    (0..100).for_each(|_| world.put("k"));
    world.publish();
    let create = StreamRequest::Create(request("k", "", 1));
    (0..1000).for_each(|_| world.ask(1, create.clone()));
    world.ask(1, StreamRequest::Cancel(500));
    world.hub.check();
    world.hub.show();
    assert_eq!(world.metrics.lagging(), (999, 999 * 101));
    let turns = |world: &mut World| -> usize {
        std::iter::from_fn(|| Some(world.hub.turn(&mut world.rooms)).filter(|cost| *cost > 0)).sum()
    };
    let cost = turns(&mut world);
    assert!(cost < 2000, "{cost}");
    let all: Vec<i64> = (2..=101).collect();
    assert!((0..1000).filter(|id| *id != 500).all(|id| world.events(1, id) == all));
    world.hub.show();
    assert_eq!((world.events(1, 500), world.metrics.lagging()), (vec![], (0, 0)));
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
    assert_eq!(world.ended_at(1, id), Some(4));
    world.cancel(1, id);
    world.drain(1);
    assert_eq!(world.responses(1).filter(|r| r.canceled).count(), 1, "it was gone");
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
    let first = world.events(1, behind);
    (0..5).for_each(|_| world.put("k"));
    world.install(3);
    assert_eq!(world.hub.revision(), 7);
    world.ask(1, StreamRequest::Progress);
    assert_eq!(world.progress(1), None, "they have something to read");
    world.drain(1);
    if first.is_empty() {
        assert_eq!(world.ended_at(1, behind), Some(3), "revision 2 is compacted");
    }
    assert_eq!(world.events(1, newest), [3, 4, 5, 6, 7], "it goes on where the old state ended");
    assert_eq!((world.events(1, future), world.ended_at(1, future)), (vec![], None));
    assert_eq!(world.progress(1), Some(7));
    (0..20).for_each(|_| world.put("k"));
    world.install(-1);
    world.drain(1);
    assert_eq!(world.events(1, future).first(), Some(&20));
    assert_eq!(world.metrics.lagging(), (0, 0));
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
fn requests_are_answered_when_their_answers_leave() {
    let mut world = World::new();
    world.hub.open(1);
    let create = StreamRequest::Create(request("k", "", 0));
    world.hub.ask(1, &[create.clone(), create], 1, &mut world.rooms);
    world.serve();
    assert!(world.rooms.answered.is_empty(), "there is no room for them");
    world.drain(1);
    assert_eq!((world.rooms.answered.as_slice(), world.rooms.got.len()), (&[1][..], 2));
    world.ask(1, StreamRequest::Cancel(9));
    assert_eq!(world.rooms.answered, [1, 1], "where there is nothing to say, at once");
    world.ask(5, StreamRequest::Cancel(9));
    assert_eq!(world.rooms.answered, [1, 1, 5], "nobody waits for a stream that has ended");
}

#[test]
fn silent_watchers_hear_of_progress() {
    let mut world = World::new();
    world.hub.open(1);
    world.room(1, 10);
    let notified = WatchCreateRequest { progress_notify: true, ..request("k", "", 0) };
    let id = world.watch(1, &notified).watch_id;
    let told = |world: &World| -> Vec<(i64, i64)> {
        let silent = world.responses(1).filter(|r| !r.created && r.events.is_empty());
        silent.map(|r| (r.watch_id, r.header.unwrap().revision)).collect()
    };
    let future = WatchCreateRequest { start_revision: 9, ..notified };
    world.watch(1, &future);
    world.hub.notify_progress();
    world.serve();
    assert_eq!(told(&world), [(id, 1)], "one that begins later is not told of what was before");
    world.put("k");
    world.publish();
    world.hub.notify_progress();
    world.serve();
    assert_eq!(told(&world), [(id, 1)], "an event has told it");
    world.hub.notify_progress();
    world.serve();
    assert_eq!(told(&world), [(id, 1), (id, 2)]);
}

#[test]
fn fragments_of_one_response_come_together() {
    let mut world = World::new();
    world.hub.open(1);
    let request = WatchCreateRequest { fragment: true, ..request("k", "l", 0) };
    let id = world.watch(1, &request).watch_id;
    world.put_all((0..40).map(|n| format!("k{n:02}")), 400);
    world.publish();
    world.room(1, 1);
    world.serve();
    let fragments: Vec<bool> =
        world.responses(1).filter(|r| !r.events.is_empty()).map(|r| r.fragment).collect();
    assert_eq!(world.events(1, id).len(), 40, "each once");
    assert!(fragments.len() > 10, "{fragments:?}");
    assert!(fragments.iter().rposition(|more| *more) == Some(fragments.len() - 2));
}

#[test]
fn a_watcher_that_is_cancelled_between_two_chunks_is_gone() {
    let mut world = World::new();
    world.hub.open(1);
    let ids: Vec<i64> = (1..=4).collect();
    let own = |id: i64| WatchCreateRequest { watch_id: id, ..request("k", "", 0) };
    for id in &ids {
        world.watch(1, &own(*id));
    }
    world.put_value("k", 9000);
    world.publish();
    world.room(1, 1);
    world.serve();
    for id in &ids {
        world.cancel(1, *id);
        world.cancel(1, *id);
        world.hub.check();
    }
    for id in &ids {
        assert!(!world.watch(1, &own(*id)).canceled, "the id is free");
    }
    world.drain(1);
    assert_eq!(world.responses(1).filter(|r| r.canceled).count(), 4);
}

#[test]
fn watchers_that_come_and_go_leave_nothing_to_be_read_for_them() {
    let mut world = World::new();
    world.hub.open(1);
    (0..100).for_each(|_| world.put("k"));
    world.publish();
    let create = StreamRequest::Create(request("k", "", 1));
    for id in 0..1000 {
        world.ask(1, create.clone());
        world.ask(1, StreamRequest::Cancel(id));
    }
    world.room(1, 1000);
    let cost: usize = std::iter::from_fn(|| {
        let cost = world.hub.turn(&mut world.rooms);
        (cost > 0).then_some(cost)
    })
    .sum();
    assert!(cost < 100, "{cost}");
    world.hub.show();
    assert_eq!(world.metrics.lagging(), (0, 0));
}

#[test]
fn what_was_before_counts_in_the_size_of_a_piece() {
    let mut world = World::with(HubSettings::new(1, 2, FRAGMENT));
    world.hub.open(1);
    let keys = || (0..30).map(|n| format!("k{n:02}"));
    keys().for_each(|key| world.put_value(&key, 20_000));
    for key in keys() {
        let request = DeleteRangeRequest { key: key.into(), ..Default::default() };
        world.store.delete_range(&request);
    }
    world.publish();
    let watch = WatchCreateRequest { prev_kv: true, ..request("k", "l", 32) };
    let id = world.watch(1, &watch).watch_id;
    world.drain(1);
    assert_eq!(world.events(1, id).len(), 30);
    let largest = world.responses(1).map(|response| response.events.len()).max();
    assert!(largest < Some(4), "{largest:?}");
}

#[test]
fn progress_is_told_however_often_it_is_asked_for() {
    let mut world = World::new();
    world.hub.open(1);
    world.watch(1, &request("k", "", 0));
    world.room(1, 100);
    // The hub hands out less than what clients know of, all the time.
    for told in 2..20 {
        world.put("k");
        let newest = world.store.revision();
        world.hub.ask(1, &[StreamRequest::Progress], newest + 1, &mut world.rooms);
        world.publish();
        if told > 3 {
            assert!(world.progress(1).is_some_and(|revision| revision >= told - 1));
        }
    }
}
