//! WatchHub's decisions: who is concerned by what, and whose turn it is.

use std::collections::HashMap;
use std::sync::Arc;

use castd_proto::etcdserverpb::ResponseHeader;

use super::cohort::{Cohort, Stream};
use super::encode::{Head, SECTION_BYTES};
use super::group::Groups;
use super::lines::{Line, Lines};
use super::metrics::{Backlog, HubMetrics};
use super::slots::Slots;
use super::{Chunk, StreamId};
use crate::mvcc::{EventBatch, PieceLimits, View};

/// How the hub answers.
#[derive(Clone, Copy, Debug)]
pub struct HubSettings {
    /// The cluster, for headers.
    pub cluster_id: u64,
    /// This member, for headers.
    pub member_id: u64,
    /// The size above which a watcher that asked for it gets fragments, in bytes.
    pub fragment_bytes: usize,
    /// Bytes of events that one shard keeps for those who are a little behind.
    pub log_bytes: usize,
    /// How much of history is read in one turn.
    pub piece: PieceLimits,
}

impl HubSettings {
    /// The usual settings, for a member of a cluster.
    pub fn new(cluster_id: u64, member_id: u64, fragment_bytes: usize) -> Self {
        let piece = PieceLimits { records: 4096, bytes: 2 * SECTION_BYTES };
        Self { cluster_id, member_id, fragment_bytes, log_bytes: 16 << 20, piece }
    }

    pub(super) fn header(&self, revision: i64, raft_term: u64) -> ResponseHeader {
        let Self { cluster_id, member_id, .. } = *self;
        ResponseHeader { cluster_id, member_id, revision, raft_term }
    }
}

/// What a stream needs to be sent more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// A place in its channel.
    Any,
    /// All places: what is in there is larger than the usual chunk.
    All,
}

/// Where responses go.
pub trait Outbox {
    /// Whether a stream's channel takes a chunk now. That of a stream that has
    /// ended takes everything.
    fn has_room(&self, stream: StreamId, room: Room) -> bool;

    /// Sends a chunk to a stream that has room.
    fn send(&mut self, stream: StreamId, chunk: Chunk);

    /// Asks for [`HubCore::room`] when the stream has room again.
    fn await_room(&mut self, stream: StreamId, room: Room);

    /// All that the stream has asked is answered.
    fn answered(&mut self, stream: StreamId);
}

/// All watchers of a shard; see the room's text.
#[derive(Debug)]
pub struct HubCore {
    pub(super) settings: HubSettings,
    pub(super) streams: Slots<Stream>,
    slots: HashMap<StreamId, u32>,
    pub(super) groups: Groups,
    pub(super) cohorts: Slots<Cohort>,
    /// Streams that have something to be told, in the order of their turns.
    pub(super) lines: Lines,
    /// Streams to be told how far they are when the hub is further itself.
    pub(super) progress_asked: Vec<u32>,
    /// The store as of the last batch that was handed out.
    pub(super) view: Arc<View>,
    /// The newest compact revision, which may be ahead of the view's.
    pub(super) compact_revision: i64,
    pub(super) term: u64,
    /// The header of events, encoded, and the revision and term that are in it.
    pub(super) head: (i64, u64, Head),
    pub(super) backlog: Backlog,
}

impl HubCore {
    /// A hub without watchers, over the store as it is.
    pub fn new(settings: HubSettings, view: Arc<View>, metrics: HubMetrics) -> Self {
        let backlog = Backlog::new(metrics, view.revision());
        Self {
            settings,
            streams: Slots::new(),
            slots: HashMap::new(),
            groups: Groups::new(settings.log_bytes),
            cohorts: Slots::new(),
            lines: Lines::default(),
            progress_asked: Vec::new(),
            compact_revision: view.compact_revision(),
            view,
            term: 0,
            head: (0, 0, Head::default()),
            backlog,
        }
    }

    /// Takes note of where history begins now.
    pub fn set_compact_revision(&mut self, revision: i64) {
        self.compact_revision = revision;
    }

    /// Sets the raft term that headers show.
    pub fn set_term(&mut self, term: u64) {
        self.term = term;
    }

    /// The newest revision that was handed out.
    pub fn revision(&self) -> i64 {
        self.view.revision()
    }

    /// The first revision that some watcher has still to be sent, if one is behind.
    pub fn furthest_behind(&self) -> Option<i64> {
        let queued = self.streams.iter().flat_map(|(_, stream)| stream.queued());
        queued.map(|cohort| self.cohorts[cohort].next).min()
    }

    /// Shows the figures as they are now.
    pub fn show(&mut self) {
        self.backlog.show();
    }

    /// Whether there are no streams, nor anything that belonged to one.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.cohorts.is_empty() && self.groups.is_empty()
    }

    /// Begins a stream.
    pub fn open(&mut self, stream: StreamId) {
        let slot = self.streams.insert_with(|_| Stream::new(stream));
        self.slots.insert(stream, slot);
        self.backlog.streams(1);
    }

    /// Ends a stream and all its watchers.
    pub fn close(&mut self, stream: StreamId) {
        let Some(slot) = self.slots.remove(&stream) else { return };
        let ended = self.streams.remove(slot);
        self.backlog.streams(-1);
        self.backlog.watchers(-(ended.watchers.len() as i64));
        let seats = ended.watchers.values().map(|(cohort, _)| *cohort);
        let mut cohorts: Vec<u32> = seats.chain(ended.queued()).collect();
        // In an order that does not come from a hash table: what is left keeps it.
        cohorts.sort_unstable();
        cohorts.dedup();
        for number in cohorts {
            if self.cohorts.get(number).is_some_and(|cohort| cohort.stream == slot) {
                self.dissolve(number);
            }
        }
    }

    /// Removes a cohort with all its watchers.
    pub(super) fn dissolve(&mut self, number: u32) {
        let cohort = self.cohorts.remove(number);
        if cohort.queued {
            self.backlog.leave(cohort.watchers.len(), cohort.next);
            self.groups.leave(cohort.group);
        }
        if let Some(moved) = self.groups.quit(cohort.group, cohort.place, cohort.way) {
            self.cohorts[moved].place = cohort.place;
        }
    }

    /// Takes a batch of changes, and queues those whom they concern.
    pub fn events(&mut self, batch: &EventBatch) {
        if batch.view.revision() < self.view.revision() {
            // From before this shard began.
            return;
        }
        self.view = Arc::clone(&batch.view);
        self.backlog.advance(self.view.revision());
        let concerned = self.groups.note(&batch.block, &self.view);
        let Some(first) = batch.block.records.first() else { return self.rouse_asked() };
        for group in concerned {
            for at in 0..self.groups.get(group).cohorts.len() {
                let cohort = self.groups.get(group).cohorts[at];
                self.queue(cohort, first.revision.main, false);
            }
            self.groups.forget_unread(group);
        }
        self.rouse_asked();
    }

    /// Goes on from `view`, a newer state of the same history whose events were
    /// not handed out. Whoever kept up reads from it what came since.
    pub fn replace(&mut self, view: Arc<View>) {
        if view.revision() < self.view.revision() {
            // From before this shard began.
            return;
        }
        let handed_out = self.view.revision();
        self.compact_revision = self.compact_revision.max(view.compact_revision());
        self.view = view;
        self.backlog.advance(self.view.revision());
        self.groups.forget_logs();
        let all: Vec<u32> = self.cohorts.iter().map(|(at, _)| at).collect();
        for cohort in all {
            self.queue(cohort, handed_out + 1, true);
        }
        self.rouse_asked();
    }

    /// Puts a cohort into its stream's queue, unless it is there or begins later.
    /// All before `first` is known to it.
    pub(super) fn queue(&mut self, number: u32, first: i64, from_store: bool) {
        let cohort = &mut self.cohorts[number];
        if cohort.queued || cohort.next > self.view.revision() {
            return;
        }
        cohort.queued = true;
        cohort.from_store = from_store;
        cohort.next = cohort.next.max(first);
        self.backlog.enter(cohort.watchers.len(), cohort.next);
        self.groups.get_mut(cohort.group).enter();
        let slot = cohort.stream;
        let line = cohort.line();
        self.streams[slot].queue_mut(line).push_back(number);
        self.rouse(slot);
    }

    /// Has a stream served with what there is for it, unless it waits for room.
    pub(super) fn rouse(&mut self, slot: u32) {
        let revision = self.view.revision();
        let stream = &mut self.streams[slot];
        if stream.waiting {
            return;
        }
        for line in Line::BOTH {
            if !stream.in_line[line as usize] && stream.wants_a_turn(line, revision) {
                stream.in_line[line as usize] = true;
                self.lines.push(line, (slot, stream.id));
            }
        }
    }

    /// Has the streams served that wait to be told how far they are, where that
    /// can be told now.
    fn rouse_asked(&mut self) {
        let revision = self.view.revision();
        for slot in std::mem::take(&mut self.progress_asked) {
            match self.streams.get(slot).and_then(|stream| stream.progress) {
                Some((due, _)) if due > revision => self.progress_asked.push(slot),
                Some(_) => self.rouse(slot),
                None => {}
            }
        }
    }

    /// A stream has room again.
    pub fn room(&mut self, stream: StreamId) {
        let Some(slot) = self.slot(stream) else { return };
        self.streams[slot].waiting = false;
        self.rouse(slot);
    }

    /// A round of telling watchers that asked for it how far they are, unless
    /// they have heard something since the last one.
    pub fn notify_progress(&mut self) {
        let due: Vec<u32> = self
            .streams
            .iter()
            .filter(|(_, stream)| !stream.notify.is_empty() && stream.notifying.is_none())
            .map(|(slot, _)| slot)
            .collect();
        for slot in due {
            self.streams[slot].notifying = Some(i64::MIN);
            self.rouse(slot);
        }
    }

    pub(super) fn slot(&self, stream: StreamId) -> Option<u32> {
        self.slots.get(&stream).copied()
    }

    pub(super) fn header(&self, revision: i64) -> ResponseHeader {
        self.settings.header(revision, self.term)
    }
}

#[cfg(test)]
impl HubCore {
    /// Checks that all that refer to each other agree.
    pub(super) fn check(&self) {
        for (slot, stream) in self.streams.iter() {
            for (id, (at, place)) in &stream.watchers {
                let cohort = &self.cohorts[*at];
                assert_eq!(cohort.stream, slot);
                assert_eq!(cohort.watchers[*place as usize].id, *id);
            }
            self.check_queues(slot, stream);
            self.check_lines(slot, stream);
            for ((group, way), at) in &stream.mains {
                let cohort = &self.cohorts[*at];
                assert_eq!((cohort.group, cohort.way), (*group, *way));
            }
        }
        for (at, cohort) in self.cohorts.iter() {
            let group = self.groups.get(cohort.group);
            assert_eq!(group.cohorts[cohort.place as usize], at);
            assert!(cohort.queued || !cohort.watchers.is_empty());
        }
        let seated: usize = self.cohorts.iter().map(|(_, cohort)| cohort.watchers.len()).sum();
        let known: usize = self.streams.iter().map(|(_, stream)| stream.watchers.len()).sum();
        assert_eq!(seated, known);
        let queued = self.cohorts.iter().filter(|(_, cohort)| cohort.queued).count();
        let in_queues = self.streams.iter().map(|(_, stream)| stream.queued().count());
        assert_eq!(queued, in_queues.sum::<usize>());
    }

    /// A cohort that has something to read is in the queue it is read from, once.
    fn check_queues(&self, slot: u32, stream: &Stream) {
        let mut seen = std::collections::BTreeSet::new();
        for line in Line::BOTH {
            for at in stream.queue(line) {
                let cohort = &self.cohorts[*at];
                assert!(cohort.queued && cohort.stream == slot);
                assert_eq!(cohort.line(), line);
                assert!(seen.insert(*at));
            }
        }
        if let Some(sending) = &stream.sending {
            let line = self.cohorts[sending.cohort].line();
            assert_eq!(stream.queue(line).front(), Some(&sending.cohort));
        }
        for ((group, way, next), at) in &stream.beginners {
            let cohort = &self.cohorts[*at];
            assert_eq!((cohort.group, cohort.way, cohort.next), (*group, *way, *next));
            assert!(stream.queue(Line::History).contains(at));
            assert!(stream.sending.as_ref().is_none_or(|sending| sending.cohort != *at));
        }
    }

    /// A stream that has something to be told, and does not wait for room, is in
    /// the line for it, and in no line twice.
    fn check_lines(&self, slot: u32, stream: &Stream) {
        for line in Line::BOTH {
            let of_stream = (slot, stream.id);
            let places = self.lines.iter(line).filter(|waiting| **waiting == of_stream).count();
            assert_eq!(places, usize::from(stream.in_line[line as usize]));
            if !stream.waiting && stream.wants_a_turn(line, self.view.revision()) {
                assert_eq!(places, 1, "{line:?} of {stream:?}");
            }
        }
    }
}

/// A place in one of the lists above, as it is kept elsewhere.
pub(super) fn number(place: usize) -> u32 {
    u32::try_from(place).expect("memory ends before four thousand million")
}
