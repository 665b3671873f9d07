//! WatchHub's decisions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use castd_proto::etcdserverpb::watch_create_request::FilterType;
use castd_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};

use super::StreamId;
use super::matcher::{Matcher, WatcherKey};
use super::metrics::{Backlog, HubMetrics};
use super::respond::{Part, Wish, pack};
use crate::mvcc::{EventBatch, KeyRange, Record, Revision, View};
use crate::shared::Error;

/// The id in responses that concern no watcher, or all of a stream.
const NO_WATCHER: i64 = -1;
/// Records that one piece of catching up looks at.
const PIECE_RECORDS: usize = 4096;

/// Lagging watchers of a stream that get a piece in one turn.
const TURN_WATCHERS: usize = 8;

/// How the hub answers.
#[derive(Clone, Copy, Debug)]
pub struct HubSettings {
    /// The cluster, for headers.
    pub cluster_id: u64,
    /// This member, for headers.
    pub member_id: u64,
    /// The size above which a watcher that asked for it gets fragments, in bytes.
    pub fragment_bytes: usize,
}

/// Where responses go.
pub trait Outbox {
    /// Puts a response into a stream's channel, or gives it back when that is
    /// full. A stream that has ended takes everything.
    ///
    /// # Errors
    /// The response, when there is no room.
    fn offer(
        &mut self,
        stream: StreamId,
        response: WatchResponse,
    ) -> Result<(), Box<WatchResponse>>;
}

#[derive(Debug)]
struct Watcher {
    wish: Wish,
    /// The first revision it must see; only while it lags is it kept up to date.
    next: i64,
    lagging: bool,
    notify: bool,
    /// Something was sent since the last round of progress.
    spoken: bool,
    /// The rest of a response of which the first fragments are sent.
    unsent: Vec<Part>,
}

impl Watcher {
    /// Sends what there is room for. Gives the revision to go on from if that
    /// is not all. The rest of a response of which some fragments are sent is
    /// kept: it cannot be begun again.
    fn send(
        &mut self,
        stream: StreamId,
        parts: Vec<Part>,
        out: &mut impl Outbox,
        metrics: &HubMetrics,
    ) -> Option<i64> {
        let mut parts = parts.into_iter();
        while let Some(Part { first, last, continues, response }) = parts.next() {
            let events = response.events.len() as u64;
            let Err(response) = out.offer(stream, response) else {
                self.spoken = true;
                metrics.events.inc_by(events);
                continue;
            };
            if !continues {
                return Some(first);
            }
            let refused = Part { first, last, continues, response: *response };
            let rest = parts.take_while(|part| part.continues);
            self.unsent = std::iter::once(refused).chain(rest).collect();
            return Some(last + 1);
        }
        None
    }
}

#[derive(Debug, Default)]
struct Stream {
    watchers: BTreeMap<i64, Watcher>,
    /// Whose turn it is to catch up next.
    lagging_next: i64,
    lagging: BTreeSet<i64>,
    next_id: i64,
}

/// All watchers; see the room's text.
#[derive(Debug)]
pub struct HubCore {
    settings: HubSettings,
    streams: HashMap<StreamId, Stream>,
    matcher: Matcher,
    /// The store as of the last batch that was handed out.
    view: Arc<View>,
    /// The newest compact revision, which may be ahead of the view's.
    compact_revision: i64,
    term: u64,
    backlog: Backlog,
    metrics: HubMetrics,
}

impl HubCore {
    /// A hub without watchers, over the store as it is.
    pub fn new(settings: HubSettings, view: Arc<View>, metrics: HubMetrics) -> Self {
        let (streams, matcher) = (HashMap::new(), Matcher::default());
        let compact_revision = view.compact_revision();
        let backlog = Backlog::new(&metrics, view.revision());
        Self { settings, streams, matcher, view, compact_revision, term: 0, backlog, metrics }
    }

    /// Takes note of where history begins now.
    pub fn set_compact_revision(&mut self, revision: i64) {
        self.compact_revision = revision;
    }

    /// Sets the raft term that headers show.
    pub fn set_term(&mut self, term: u64) {
        self.term = term;
    }

    /// Begins a stream.
    pub fn open(&mut self, stream: StreamId) {
        self.streams.insert(stream, Stream::default());
        self.metrics.streams.inc();
    }

    /// Ends a stream and all its watchers.
    pub fn close(&mut self, stream: StreamId) {
        let Some(ended) = self.streams.remove(&stream) else { return };
        self.metrics.streams.dec();
        self.metrics.watchers.sub(ended.watchers.len() as i64);
        for (id, watcher) in ended.watchers {
            if watcher.lagging {
                self.backlog.leave(watcher.next);
            }
            self.matcher.remove(&watcher.wish.range, (stream, id));
        }
    }

    /// The newest revision that was handed out.
    pub fn revision(&self) -> i64 {
        self.view.revision()
    }

    /// Whether the stream has watchers that lag.
    pub fn lags(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|stream| !stream.lagging.is_empty())
    }

    /// Hands a batch of changes to the watchers it concerns. Gives the streams
    /// that had no room.
    pub fn events(&mut self, batch: EventBatch, out: &mut impl Outbox) -> Vec<StreamId> {
        self.view = batch.view;
        self.backlog.advance(self.view.revision());
        let mut wanted: HashMap<WatcherKey, Vec<&Record>> = HashMap::new();
        let mut order = Vec::new();
        for record in batch.records.iter() {
            self.matcher.each(&record.key, |watcher| {
                let list = wanted.entry(watcher).or_insert_with(|| {
                    order.push(watcher);
                    Vec::new()
                });
                list.push(record);
            });
        }
        let header = self.header(self.view.revision());
        let mut full = Vec::new();
        for key in order {
            let records = wanted.remove(&key).unwrap_or_default();
            if !self.deliver(key, &header, &records, out) {
                full.push(key.0);
            }
        }
        full.dedup();
        full
    }

    /// Goes on from `view`, a newer state of the same history whose events were
    /// not handed out. Whoever kept up reads from it what came since. Gives the
    /// streams that have something to read.
    pub fn replace(&mut self, view: Arc<View>) -> Vec<StreamId> {
        let handed_out = self.view.revision();
        self.compact_revision = self.compact_revision.max(view.compact_revision());
        self.view = view;
        let revision = self.view.revision();
        self.backlog.advance(revision);
        let mut behind = Vec::new();
        for (stream, state) in &mut self.streams {
            for (id, watcher) in &mut state.watchers {
                if watcher.lagging {
                    continue;
                }
                watcher.next = watcher.next.max(handed_out + 1);
                if watcher.next <= revision {
                    watcher.lagging = true;
                    state.lagging.insert(*id);
                    self.backlog.enter(watcher.next);
                }
            }
            if !state.lagging.is_empty() {
                behind.push(*stream);
            }
        }
        behind
    }

    /// Sends records to a watcher that keeps up; false when there was no room.
    fn deliver(
        &mut self,
        (stream, id): WatcherKey,
        header: &ResponseHeader,
        records: &[&Record],
        out: &mut impl Outbox,
    ) -> bool {
        let Some(state) = self.streams.get_mut(&stream) else { return true };
        let Some(watcher) = state.watchers.get_mut(&id) else { return true };
        if watcher.lagging {
            return true;
        }
        let wish = &watcher.wish;
        let seen = records
            .iter()
            .copied()
            .filter(|record| record.revision.main >= watcher.next && wish.wants(record));
        let parts = pack(wish, id, header, &self.view, seen);
        if let Some(next) = watcher.send(stream, parts, out, &self.metrics) {
            watcher.lagging = true;
            watcher.next = next;
            state.lagging.insert(id);
            self.backlog.enter(next);
            return false;
        }
        true
    }

    /// Begins a watcher. `newest` is the newest revision that any client can
    /// know of: a watcher without a start begins behind it, even if the hub has
    /// not handed out everything up to there.
    pub fn create(
        &mut self,
        stream: StreamId,
        request: &WatchCreateRequest,
        newest: i64,
    ) -> Option<WatchResponse> {
        let header = Some(self.header(newest));
        let refused = |reason: String| WatchResponse {
            header,
            watch_id: NO_WATCHER,
            created: true,
            canceled: true,
            cancel_reason: reason,
            ..Default::default()
        };
        let hub_revision = self.view.revision();
        let state = self.streams.get_mut(&stream)?;
        let Some(range) = watched_range(request) else {
            return Some(refused("mvcc: watcher range is empty".to_owned()));
        };
        if request.start_revision < 0 {
            return Some(refused(Error::Compacted.to_string()));
        }
        let id = match request.watch_id {
            0 => state.free_id(),
            id if state.watchers.contains_key(&id) => {
                return Some(refused(
                    "mvcc: duplicate watch ID provided on the WatchStream".to_owned(),
                ));
            }
            id => id,
        };
        let has = |filter: FilterType| request.filters.contains(&(filter as i32));
        let next = if request.start_revision == 0 { newest + 1 } else { request.start_revision };
        let lagging = next <= hub_revision;
        let wish = Wish {
            range: range.clone(),
            prev_kv: request.prev_kv,
            no_put: has(FilterType::Noput),
            no_delete: has(FilterType::Nodelete),
            fragment_bytes: if request.fragment { self.settings.fragment_bytes } else { 0 },
        };
        let notify = request.progress_notify;
        state
            .watchers
            .insert(id, Watcher { wish, next, lagging, notify, spoken: true, unsent: Vec::new() });
        if lagging {
            state.lagging.insert(id);
            self.backlog.enter(next);
        }
        self.matcher.add(&range, (stream, id));
        self.metrics.watchers.inc();
        Some(WatchResponse { header, watch_id: id, created: true, ..Default::default() })
    }

    /// Ends a watcher; nothing is said of one that is not there.
    pub fn cancel(&mut self, stream: StreamId, id: i64) -> Option<WatchResponse> {
        self.forget(stream, id)?;
        let header = Some(self.header(self.view.revision()));
        Some(WatchResponse { header, watch_id: id, canceled: true, ..Default::default() })
    }

    /// Tells how far a stream is, if it has watchers and none of them lags.
    pub fn progress(&self, stream: StreamId) -> Option<WatchResponse> {
        let state = self.streams.get(&stream)?;
        if !state.lagging.is_empty() || state.watchers.is_empty() {
            return None;
        }
        let header = Some(self.header(self.view.revision()));
        Some(WatchResponse { header, watch_id: NO_WATCHER, ..Default::default() })
    }

    /// Tells watchers that asked for it how far they are, unless they have heard
    /// something since the last round.
    pub fn notify_progress(&mut self, out: &mut impl Outbox) {
        let header = Some(self.header(self.view.revision()));
        for (stream, state) in &mut self.streams {
            for (id, watcher) in state.watchers.iter_mut().filter(|(_, watcher)| watcher.notify) {
                let silent = !std::mem::take(&mut watcher.spoken);
                if silent && !watcher.lagging {
                    let response = WatchResponse { header, watch_id: *id, ..Default::default() };
                    // Without room there is something else to read first.
                    let _ = out.offer(*stream, response);
                }
            }
        }
    }

    /// Lets some of a stream's lagging watchers read on, in turns, each a bounded
    /// piece.
    /// Returns whether some still lag.
    pub fn catch_up(&mut self, stream: StreamId, out: &mut impl Outbox) -> bool {
        let Some(state) = self.streams.get(&stream) else { return false };
        let from = state.lagging_next;
        let turn = state.lagging.range(from..).chain(state.lagging.range(..from));
        let turn: Vec<i64> = turn.copied().take(TURN_WATCHERS).collect();
        for id in turn {
            if !self.catch_up_one(stream, id, out) {
                break;
            }
            if let Some(state) = self.streams.get_mut(&stream) {
                state.lagging_next = id.saturating_add(1);
            }
        }
        self.lags(stream)
    }

    /// One piece for one watcher; false when the stream has no room.
    fn catch_up_one(&mut self, stream: StreamId, id: i64, out: &mut impl Outbox) -> bool {
        let view = Arc::clone(&self.view);
        let Some(state) = self.streams.get_mut(&stream) else { return true };
        let Some(watcher) = state.watchers.get_mut(&id) else { return true };
        if watcher.next < self.compact_revision {
            return self.cancel_compacted(stream, id, out);
        }
        let unsent = std::mem::take(&mut watcher.unsent);
        if watcher.send(stream, unsent, out, &self.metrics).is_some() {
            return false;
        }
        let (records, next) = read_piece(&view, watcher.next, &watcher.wish);
        let header = self.settings.header(view.revision(), self.term);
        let parts = pack(&watcher.wish, id, &header, &view, records.iter());
        if let Some(next) = watcher.send(stream, parts, out, &self.metrics) {
            self.backlog.advance_one(watcher.next, next);
            watcher.next = next;
            return false;
        }
        self.backlog.advance_one(watcher.next, next);
        watcher.next = next;
        if next > view.revision() {
            watcher.lagging = false;
            state.lagging.remove(&id);
            self.backlog.leave(next);
        }
        true
    }

    fn cancel_compacted(&mut self, stream: StreamId, id: i64, out: &mut impl Outbox) -> bool {
        // As etcd has it: no reason in words, and no revision in the header.
        let response = WatchResponse {
            header: Some(self.header(0)),
            watch_id: id,
            canceled: true,
            compact_revision: self.compact_revision,
            ..Default::default()
        };
        let sent = out.offer(stream, response).is_ok();
        if sent {
            self.forget(stream, id);
        }
        sent
    }

    fn forget(&mut self, stream: StreamId, id: i64) -> Option<()> {
        let state = self.streams.get_mut(&stream)?;
        let watcher = state.watchers.remove(&id)?;
        if state.lagging.remove(&id) {
            self.backlog.leave(watcher.next);
        }
        self.matcher.remove(&watcher.wish.range, (stream, id));
        self.metrics.watchers.dec();
        Some(())
    }

    fn header(&self, revision: i64) -> ResponseHeader {
        self.settings.header(revision, self.term)
    }
}

impl HubSettings {
    fn header(&self, revision: i64, raft_term: u64) -> ResponseHeader {
        let Self { cluster_id, member_id, .. } = *self;
        ResponseHeader { cluster_id, member_id, revision, raft_term }
    }
}

impl Stream {
    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

/// What a request wants to watch: an empty key is the first possible one.
fn watched_range(request: &WatchCreateRequest) -> Option<KeyRange> {
    let key = match request.key.is_empty() {
        true => Bytes::from_static(b"\0"),
        false => request.key.clone(),
    };
    match KeyRange::new(&key, &request.range_end) {
        KeyRange::Between(from, to) if from >= to => None,
        range => Some(range),
    }
}

/// The wanted records of a piece of history, and where the next piece begins.
/// A piece ends between revisions.
fn read_piece(view: &View, from: i64, wish: &Wish) -> (Vec<Record>, i64) {
    let mut wanted = Vec::new();
    let mut last = 0;
    for (looked, record) in view.records_from(Revision::start_of(from)).enumerate() {
        let main = record.revision.main;
        if looked >= PIECE_RECORDS && main != last {
            return (wanted, main);
        }
        last = main;
        if wish.wants(&record) {
            wanted.push(record);
        }
    }
    (wanted, view.revision() + 1)
}
