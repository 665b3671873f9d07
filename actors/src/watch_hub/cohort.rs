//! Watchers of one stream that watch the same, in the same way, and are equally far.
//!
//! They are served together: what they are to see is looked up and encoded once.
//! A watcher by itself is its id and a flag, here.

use std::collections::{BTreeSet, HashMap, VecDeque};

use castd_proto::etcdserverpb::WatchCreateRequest;
use castd_proto::etcdserverpb::watch_create_request::FilterType;
use smallvec::SmallVec;

use super::StreamId;
use super::core::Room;
use super::encode::{ChunkBuilder, Section};
use super::lines::Line;

/// How a watcher wants to see what it watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    pub(super) prev_kv: bool,
    pub(super) no_put: bool,
    pub(super) no_delete: bool,
    pub(super) fragment: bool,
}

impl Way {
    pub(super) fn of(request: &WatchCreateRequest) -> Self {
        let has = |filter: FilterType| request.filters.contains(&(filter as i32));
        Self {
            prev_kv: request.prev_kv,
            no_put: has(FilterType::Noput),
            no_delete: has(FilterType::Nodelete),
            fragment: request.fragment,
        }
    }

    pub(super) fn wants(self, tombstone: bool) -> bool {
        if tombstone { !self.no_delete } else { !self.no_put }
    }
}

/// One watcher.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watcher {
    pub(super) id: i64,
    /// Something was sent since the last round of telling silent watchers how far they are.
    pub(super) spoken: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Cohort {
    /// The slot of its stream.
    pub(super) stream: u32,
    /// The number of its group.
    pub(super) group: u32,
    pub(super) way: Way,
    /// Where it stands in its group's list.
    pub(super) place: u32,
    /// The first revision it has not been sent. While it is not queued it has
    /// everything, and this says only what comes before its watchers' start.
    pub(super) next: i64,
    /// It waits in its stream's queue for its turn.
    pub(super) queued: bool,
    /// It reads from the store, being further behind than its group's log reaches,
    /// and is queued for that.
    pub(super) from_store: bool,
    /// Most have one, which needs no memory of its own.
    pub(super) watchers: SmallVec<[Watcher; 1]>,
}

impl Cohort {
    /// Whether it has everything up to `revision`, and is to be sent what comes from
    /// `next` on.
    pub(super) fn is_at(&self, next: i64, revision: i64) -> bool {
        !self.queued && self.next.max(revision + 1) == next
    }

    /// What it waits for, when it waits.
    pub(super) fn line(&self) -> Line {
        if self.from_store { Line::History } else { Line::Present }
    }
}

/// A response on its way to the watchers of a cohort. The cohort is the front
/// of its queue until all have it, and nothing else is sent to the stream's watchers.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) cohort: u32,
    pub(super) section: Section,
    /// The last revision that the section tells of.
    pub(super) upto: i64,
    /// So many of the cohort's watchers have it.
    pub(super) served: u32,
}

/// Where a watcher is: its cohort, and its place there.
pub(super) type Seat = (u32, u32);

/// A client's stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) watchers: HashMap<i64, Seat>,
    /// For each group and way, the cohort that newcomers join.
    pub(super) mains: HashMap<(u32, Way), u32>,
    /// Cohorts that have something to read, each once: from their groups' logs, and
    /// from the store.
    queues: [VecDeque<u32>; 2],
    /// Cohorts that wait to read from the store for the first time, by where they
    /// begin: newcomers that begin there too join them.
    pub(super) beginners: HashMap<(u32, Way, i64), u32>,
    pub(super) sending: Option<Sending>,
    /// Answers to requests; they go first.
    pub(super) answers: ChunkBuilder,
    /// The revisions it must reach before it is told how far it is: for the first and
    /// for the last time it asked since it was told.
    pub(super) progress: Option<(i64, i64)>,
    /// Watchers that are told from time to time.
    pub(super) notify: BTreeSet<i64>,
    /// Where a round of telling them is.
    pub(super) notifying: Option<i64>,
    /// The lines of streams to be served that it is in.
    pub(super) in_line: [bool; 2],
    /// It waits for room in its channel.
    pub(super) waiting: bool,
    /// The room it needs to be sent more.
    pub(super) needs: Room,
    next_id: i64,
}

impl Stream {
    pub(super) fn new(id: StreamId) -> Self {
        Self {
            id,
            watchers: HashMap::new(),
            mains: HashMap::new(),
            queues: Default::default(),
            beginners: HashMap::new(),
            sending: None,
            answers: ChunkBuilder::default(),
            progress: None,
            notify: BTreeSet::new(),
            notifying: None,
            in_line: [false; 2],
            waiting: false,
            needs: Room::Any,
            next_id: 0,
        }
    }

    /// Whether there is something to be told at once in a turn of this line, as far
    /// as `revision` goes. Progress is told when everything is read, or in the turn
    /// of those who read.
    pub(super) fn wants_a_turn(&self, line: Line, revision: i64) -> bool {
        let something = !self.queue(line).is_empty();
        something
            || line == Line::Present
                && (!self.answers.is_empty()
                    || self.notifying.is_some()
                    || self.queue(Line::History).is_empty()
                        && self.progress.is_some_and(|(due, _)| due <= revision))
    }

    /// The cohorts that have something to read in turns of this line.
    pub(super) fn queue(&self, line: Line) -> &VecDeque<u32> {
        &self.queues[line as usize]
    }

    pub(super) fn queue_mut(&mut self, line: Line) -> &mut VecDeque<u32> {
        &mut self.queues[line as usize]
    }

    /// A cohort begins to read, if it has not begun before: nobody can join it now.
    pub(super) fn begin(&mut self, cohort: &Cohort, number: u32) {
        let place = (cohort.group, cohort.way, cohort.next);
        if self.beginners.get(&place) == Some(&number) {
            self.beginners.remove(&place);
            if self.beginners.is_empty() {
                self.beginners.shrink_to_fit();
            }
        }
    }

    /// All cohorts that have something to read.
    pub(super) fn queued(&self) -> impl Iterator<Item = u32> {
        self.queues.iter().flatten().copied()
    }

    /// The next id that no watcher has.
    pub(super) fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}
