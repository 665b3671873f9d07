//! What a watcher missed: the changes of a range of keys since some revision,
//! a bounded piece at a time.
//!
//! Two ways lead there. *Backward*: the index names the newest change of every
//! key, and each record names the one before it; that costs what the changes
//! themselves cost, however much else happened since. *Forward*: the log is
//! read from the first revision on; that costs what everything costs, a little
//! for each record. Backward comes first where the range has few keys, and is
//! given up as soon as the changes seem to be many.

use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::record::Record;
use super::revision::{KeyRange, Revision};
use super::view::View;

/// Keys, and changes of them, up to which they are followed backward.
const STEPS: usize = 1024;

/// A step backward costs about as much as this many records on the way forward.
const STEP_COST: usize = 8;

/// Steps after which it is judged anew how many there will be.
const PROBE: usize = 64;

/// A piece of what a watcher missed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The changes of the range, in order; those of one revision together.
    pub records: Vec<Record>,
    /// The first revision that was not looked at: the next piece begins there.
    /// One behind the newest revision when there are no more.
    pub next: i64,
}

/// How large a piece may be. One revision is a piece whatever its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceLimits {
    /// Records to look at, wanted or not: the time that a piece takes.
    pub records: usize,
    /// Bytes of the keys and values given: the memory that a piece takes.
    pub bytes: usize,
}

impl View {
    /// The changes of `range` at or behind revision `from`, which must not be
    /// below the compact revision: as many as a piece may have.
    pub fn changes(&self, range: &KeyRange, from: i64, limits: PieceLimits) -> Changes {
        let left = self.revision - from + 1;
        if left <= 0 {
            return Changes { records: Vec::new(), next: from };
        }
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        // A vain attempt costs little beside the way forward that follows it.
        let steps = STEPS.min(left / STEP_COST).min(limits.records / 4);
        match self.backward(range, from, steps) {
            Some(records) => self.cut(records, limits),
            None => self.forward(range, from, limits),
        }
    }

    /// All changes of `range` from `from` on, or nothing when they are, or seem
    /// to be, more than `steps`, or are of more keys.
    pub(super) fn backward(
        &self,
        range: &KeyRange,
        from: i64,
        steps: usize,
    ) -> Option<Vec<Record>> {
        let first = from.max(self.compact_revision + 1);
        let mut heads = self.newest_changes(range, first, steps)?;
        let mut records = Vec::new();
        while let Some(mut head) = heads.peek_mut() {
            let probe = records.len() % PROBE == PROBE - 1;
            if records.len() >= steps || probe && self.seem_many(records.len(), *head, from, steps)
            {
                return None;
            }
            let record = self.log.get(*head)?;
            if record.previous.main >= first {
                *head = record.previous;
            } else {
                PeekMut::pop(head);
            }
            records.push(record);
        }
        records.extend(self.compacted(range, from).into_iter().rev());
        records.reverse();
        Some(records)
    }

    /// The newest change of every key of `range` that changed at or behind
    /// `from`, nothing when the range has more than `most` keys. A deleted key
    /// is in the index as long as its deletion is not compacted.
    fn newest_changes(
        &self,
        range: &KeyRange,
        from: i64,
        most: usize,
    ) -> Option<BinaryHeap<Revision>> {
        let mut heads = BinaryHeap::new();
        if let KeyRange::Single(key) = range {
            let entry = self.index.get(key);
            heads.extend(entry.map(|entry| entry.revision).filter(|head| head.main >= from));
            return Some(heads);
        }
        if self.index.count(range) > most as u64 {
            return None;
        }
        for (seen, (_, entry)) in self.index.iter_range(range).enumerate() {
            if seen >= most {
                return None;
            }
            if entry.revision.main >= from {
                heads.push(entry.revision);
            }
        }
        Some(heads)
    }

    /// Whether `found` changes down to `head` let expect more than `steps` down
    /// to `from`, if the rest is like them.
    fn seem_many(&self, found: usize, head: Revision, from: i64, steps: usize) -> bool {
        let walked = self.revision - head.main + 1;
        let all = self.revision - from + 1;
        found as i128 * i128::from(all) > steps as i128 * i128::from(walked)
    }

    /// The changes of `range` at the compact revision, if `from` is there. What
    /// was deleted at it is in the log alone, and no record leads there.
    fn compacted(&self, range: &KeyRange, from: i64) -> Vec<Record> {
        if from > self.compact_revision {
            return Vec::new();
        }
        let records = self.log.records_from(Revision::start_of(from));
        records
            .take_while(|record| record.revision.main <= self.compact_revision)
            .filter(|record| range.contains(&record.key))
            .collect()
    }

    /// The piece in front of `records`, which are all there are.
    fn cut(&self, records: Vec<Record>, limits: PieceLimits) -> Changes {
        let mut piece = Piece::new(limits);
        for record in records {
            let main = record.revision.main;
            if !piece.look_at(main) || !piece.add(record) {
                return piece.end(main);
            }
        }
        piece.end(self.revision + 1)
    }

    /// A piece, read from the log.
    pub(super) fn forward(&self, range: &KeyRange, from: i64, limits: PieceLimits) -> Changes {
        let from = Revision::start_of(from);
        let mut piece = Piece::new(limits);
        for block in self.log.blocks_from(from) {
            for slot in block.lower_bound(from)..block.len() {
                let main = block.revision(slot).main;
                if !piece.look_at(main) {
                    return piece.end(main);
                }
                if range.contains(block.key(slot)) && !piece.add(block.record(slot)) {
                    return piece.end(main);
                }
            }
        }
        piece.end(self.revision + 1)
    }
}

/// A piece in the making.
struct Piece {
    limits: PieceLimits,
    records: Vec<Record>,
    looked: usize,
    bytes: usize,
    /// The revision that is being looked at.
    main: i64,
    /// Records of the revisions before it.
    whole: usize,
}

impl Piece {
    fn new(limits: PieceLimits) -> Self {
        Self { limits, records: Vec::new(), looked: 0, bytes: 0, main: 0, whole: 0 }
    }

    /// Whether a record of revision `main` may still be looked at.
    fn look_at(&mut self, main: i64) -> bool {
        if main != self.main {
            let full = self.looked >= self.limits.records || self.bytes >= self.limits.bytes;
            if full && self.looked > 0 {
                return false;
            }
            (self.main, self.whole) = (main, self.records.len());
        }
        self.looked += 1;
        true
    }

    /// Adds a record of the revision that is being looked at; when that makes
    /// the piece too large, the revision is left out and the answer is no.
    fn add(&mut self, record: Record) -> bool {
        self.bytes += record.key.len() + record.value.len();
        if self.bytes > self.limits.bytes && self.whole > 0 {
            self.records.truncate(self.whole);
            return false;
        }
        self.records.push(record);
        true
    }

    fn end(self, next: i64) -> Changes {
        Changes { records: self.records, next }
    }
}
