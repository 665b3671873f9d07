//! All watchers of one distinct range, and what happened there of late.
//!
//! Events are kept only while somebody in the group has still to read them, and
//! over all groups only up to a number of bytes: whoever is further behind reads
//! from the store.

use std::collections::VecDeque;

use bytes::Bytes;
use smallvec::SmallVec;

use super::cohort::Way;
use super::encode::{EventBlock, SECTION_BYTES, Section};
use super::range_index::RangeIndex;
use super::slots::Slots;
use crate::mvcc::{KeyRange, View};

/// What an event costs besides its bytes.
const LOGGED_BYTES: usize = 96;
/// Events that are kept at most, read ones that are not forgotten yet included.
const LOG_EVENTS: usize = 1 << 18;

/// An event that happened of late.
#[derive(Debug)]
struct Logged {
    /// Tells events of this shard apart.
    number: u64,
    revision: i64,
    tombstone: bool,
    /// Encoded in the ways that somebody wants.
    plain: Option<Bytes>,
    with_previous: Option<Bytes>,
}

impl Logged {
    fn bytes(&self) -> usize {
        let of = |event: &Option<Bytes>| event.as_ref().map_or(0, Bytes::len);
        LOGGED_BYTES + of(&self.plain) + of(&self.with_previous)
    }
}

/// What was last put together from a log: others who are as far want the same.
#[derive(Debug)]
struct Cached {
    way: Way,
    next: i64,
    upto: i64,
    section: Section,
}

/// The range of a group. There may be a million of one key each, so these are small.
#[derive(Debug)]
enum Watched {
    Key(Box<[u8]>),
    Range(Box<KeyRange>),
}

impl Watched {
    /// The range in memory of its own: a request's buffer is not kept for it.
    fn new(range: &KeyRange) -> Self {
        let copy = |key: &Bytes| Bytes::copy_from_slice(key);
        match range {
            KeyRange::Single(key) => Self::Key(key.as_ref().into()),
            KeyRange::Between(from, to) => {
                Self::Range(Box::new(KeyRange::Between(copy(from), copy(to))))
            }
            KeyRange::From(from) => Self::Range(Box::new(KeyRange::From(copy(from)))),
        }
    }

    /// The key, or the first one.
    fn key(&self) -> &[u8] {
        match self {
            Self::Key(key) => key,
            Self::Range(range) => range.start(),
        }
    }

    fn range(&self) -> KeyRange {
        match self {
            Self::Key(key) => KeyRange::Single(Bytes::copy_from_slice(key)),
            Self::Range(range) => KeyRange::clone(range),
        }
    }
}

/// The latest events of a group, and what was last put together from them.
#[derive(Debug)]
struct Log {
    events: VecDeque<Logged>,
    /// It has everything from this revision on.
    from: i64,
    cached: Option<Cached>,
}

impl Log {
    fn section(&mut self, way: Way, next: i64, revision: i64) -> Option<(Section, i64)> {
        if let Some(cached) = &self.cached
            && (cached.way, cached.next) == (way, next)
        {
            return Some((cached.section.clone(), cached.upto));
        }
        if next < self.from {
            return None;
        }
        let begin = self.events.partition_point(|event| event.revision < next);
        let (mut events, mut bytes, mut last) = (Vec::new(), 0, 0);
        let mut upto = revision;
        for event in self.events.range(begin..) {
            if bytes >= SECTION_BYTES && event.revision != last {
                upto = last;
                break;
            }
            last = event.revision;
            if way.wants(event.tombstone) {
                let encoded = if way.prev_kv { &event.with_previous } else { &event.plain };
                let encoded = encoded.as_ref()?;
                bytes += encoded.len();
                events.push(encoded.clone());
            }
        }
        let section = Section::of(&events);
        self.cached = Some(Cached { way, next, upto, section: section.clone() });
        Some((section, upto))
    }

    fn bytes(&self) -> usize {
        self.events.iter().map(Logged::bytes).sum()
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Group {
    watched: Watched,
    pub(super) cohorts: SmallVec<[u32; 4]>,
    /// Cohorts that wait for their turn.
    busy: u32,
    /// Cohorts that want to see what was before.
    with_previous: u32,
    /// Kept while somebody has still to read from it.
    log: Option<Box<Log>>,
}

impl Group {
    pub(super) fn range(&self) -> KeyRange {
        self.watched.range()
    }

    /// The wanted events from `next` on, as many as go into a response, and the
    /// last revision they tell of, which is `revision` at the end of the log.
    /// `None` when the log does not reach back that far.
    pub(super) fn section(&mut self, way: Way, next: i64, revision: i64) -> Option<(Section, i64)> {
        self.log.as_mut()?.section(way, next, revision)
    }

    /// Whether the log goes back to `next`.
    pub(super) fn reaches(&self, next: i64) -> bool {
        self.log.as_ref().is_some_and(|log| log.from <= next)
    }

    /// Takes note of a cohort that waits for its turn.
    pub(super) fn enter(&mut self) {
        self.busy += 1;
    }
}

/// The groups of a shard.
#[derive(Debug)]
pub(super) struct Groups {
    groups: Slots<Group>,
    index: RangeIndex,
    /// Where the events of all logs are, in the order they came.
    order: VecDeque<(u32, u64)>,
    /// Bytes of all logs, and how many there may be.
    bytes: usize,
    bytes_max: usize,
    next_number: u64,
    /// Groups that the present batch concerns.
    touched: Vec<u32>,
}

impl Groups {
    /// No groups yet, whose logs together may have `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            groups: Slots::new(),
            index: RangeIndex::default(),
            order: VecDeque::new(),
            bytes: 0,
            bytes_max,
            next_number: 0,
            touched: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.index.len() == 0 && self.bytes == 0
    }

    pub(super) fn get(&self, number: u32) -> &Group {
        &self.groups[number]
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut Group {
        &mut self.groups[number]
    }

    /// The group of a range, which is made if there is none.
    pub(super) fn of(&mut self, range: &KeyRange) -> u32 {
        let key_of = |number: u32| self.groups[number].watched.key();
        if let Some(number) = self.index.get(range, key_of) {
            return number;
        }
        let number = self.groups.insert_with(|_| Group {
            watched: Watched::new(range),
            cohorts: SmallVec::new(),
            busy: 0,
            with_previous: 0,
            log: None,
        });
        self.index.insert(range, number);
        number
    }

    /// Adds a cohort; answers its place.
    pub(super) fn join(&mut self, number: u32, cohort: u32, way: Way) -> u32 {
        let group = self.get_mut(number);
        group.with_previous += u32::from(way.prev_kv);
        group.cohorts.push(cohort);
        u32::try_from(group.cohorts.len() - 1).expect("as many as there are numbers for cohorts")
    }

    /// Removes the cohort at `place`; answers which one stands there now.
    pub(super) fn quit(&mut self, number: u32, place: u32, way: Way) -> Option<u32> {
        let group = self.get_mut(number);
        group.with_previous -= u32::from(way.prev_kv);
        group.cohorts.swap_remove(place as usize);
        let moved = group.cohorts.get(place as usize).copied();
        if group.cohorts.is_empty() {
            self.forget_log(number);
            let key_of = |number: u32| self.groups[number].watched.key();
            self.index.remove(&self.get(number).range(), key_of);
            self.groups.remove(number);
        }
        moved
    }

    /// A cohort does not wait any more.
    pub(super) fn leave(&mut self, number: u32) {
        let group = self.get_mut(number);
        group.busy -= 1;
        if group.busy == 0 {
            self.forget_log(number);
        }
    }

    /// Puts a batch's changes into the logs of the groups they concern, and
    /// answers which ones these are.
    pub(super) fn note(&mut self, block: &EventBlock, view: &View) -> Vec<u32> {
        let mut concerned = Vec::new();
        let Some(first) = block.records.first().map(|record| record.revision.main) else {
            return concerned;
        };
        let mut touched = std::mem::take(&mut self.touched);
        for (at, record) in block.records.iter().enumerate() {
            let key_of = |number: u32| self.groups[number].watched.key();
            self.index.each(&record.key, key_of, |group| touched.push(group));
            for number in touched.drain(..) {
                if self.log(number, first, block, at, view) {
                    concerned.push(number);
                }
            }
        }
        self.touched = touched;
        self.keep_small();
        concerned
    }

    /// Empties the log of a group in which nobody has something to read.
    pub(super) fn forget_unread(&mut self, number: u32) {
        if self.get(number).busy == 0 {
            self.forget_log(number);
        }
    }

    /// Adds a change to a group's log; whether it is the first one of the block.
    fn log(&mut self, number: u32, first: i64, block: &EventBlock, at: usize, view: &View) -> bool {
        let record = &block.records[at];
        let group = &mut self.groups[number];
        let plain = group.cohorts.len() > group.with_previous as usize;
        let event = Logged {
            number: self.next_number,
            revision: record.revision.main,
            tombstone: record.is_tombstone(),
            plain: plain.then(|| block.plain(at)),
            with_previous: (group.with_previous > 0).then(|| block.with_previous(at, view)),
        };
        self.next_number += 1;
        self.bytes += event.bytes();
        self.order.push_back((number, event.number));
        let log = group.log.get_or_insert_with(|| {
            Box::new(Log { events: VecDeque::with_capacity(1), from: first, cached: None })
        });
        let new = log.events.back().is_none_or(|last| last.revision < first);
        log.events.push_back(event);
        new
    }

    /// Empties all logs: what happened since is not in them.
    pub(super) fn forget_logs(&mut self) {
        let numbers: Vec<u32> = self.groups.iter().map(|(number, _)| number).collect();
        for number in numbers {
            self.forget_log(number);
        }
        self.order.clear();
    }

    fn forget_log(&mut self, number: u32) {
        let group = &mut self.groups[number];
        self.bytes -= group.log.take().map_or(0, |log| log.bytes());
    }

    /// Drops the oldest events where there are too many.
    fn keep_small(&mut self) {
        while let Some((number, event)) = self.order.front().copied() {
            let log = self.groups.get_mut(number).and_then(|group| group.log.as_mut());
            let log = log.filter(|log| log.events.front().is_some_and(|e| e.number == event));
            let full = self.bytes > self.bytes_max || self.order.len() > LOG_EVENTS;
            match log {
                Some(_) if !full => return,
                Some(log) => {
                    if let Some(event) = log.events.pop_front() {
                        self.bytes -= event.bytes();
                        log.from = event.revision + 1;
                        log.cached = None;
                    }
                }
                // Everybody has read it.
                None => {}
            }
            self.order.pop_front();
        }
    }
}
