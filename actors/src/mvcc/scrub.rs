//! Freeing what compaction gave up, a small piece at a time.
//!
//! A compaction moves one number; then three things happen behind the writes:
//! 1. *mark*: the records between the previous and the new compact revision
//!    are walked once. Each of them has superseded its predecessor, which is
//!    marked dead, and a deletion is taken out of the index.
//! 2. *settle*: a deletion's own record must outlive every older copy of the
//!    key in a sealed checkpoint, or the key would come back at the next start.
//!    It dies when all volumes were written after it (the clean floor). The
//!    deletions of the compact revision itself stay until the next compaction:
//!    who watches from there on sees them.
//! 3. *rewrite*: blocks that are half dead or more are packed anew, together
//!    with small neighbours.
//!
//! The cost is that of the revisions compacted, not of the keys there are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::block::{BLOCK_BYTES, Block, BlockBuilder};
use super::record::Record;
use super::revision::Revision;
use super::store::Store;
use crate::shared::{Planted, is_planted};

/// The state of the work; see the module's text.
#[derive(Debug)]
pub(super) struct Scrubber {
    /// The next record to mark from.
    cursor: Revision,
    /// Marking is complete up to this compact revision.
    marked: i64,
    dead: BTreeMap<Revision, DeadSet>,
    dead_bytes: u64,
    /// Records found dead since the start.
    buried: u64,
    /// Deletions that are marked but not settled, in order.
    unsettled: VecDeque<Revision>,
    /// Every sealed volume was written at or after this compact revision.
    clean_floor: i64,
    /// Blocks worth packing anew, by first revision.
    rewrite: BTreeSet<Revision>,
}

impl Default for Scrubber {
    fn default() -> Self {
        Self {
            cursor: Revision::ZERO,
            marked: -1,
            dead: BTreeMap::new(),
            dead_bytes: 0,
            buried: 0,
            unsettled: VecDeque::new(),
            clean_floor: i64::MAX,
            rewrite: BTreeSet::new(),
        }
    }
}

impl Scrubber {
    pub(super) fn dead_bytes(&self) -> u64 {
        self.dead_bytes
    }
}

/// The dead records of one block.
#[derive(Debug, Default)]
struct DeadSet {
    slots: BTreeSet<u32>,
    bytes: usize,
}

/// How far the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubProgress {
    /// Everything that compaction to this revision frees has been found.
    pub marked: i64,
    /// Whether nothing is left to do for now.
    pub done: bool,
}

impl Store {
    /// Does about `records` records' worth of work.
    pub fn scrub(&mut self, records: usize) -> ScrubProgress {
        if self.is_marking() {
            self.mark(records);
        } else if self.settle(records) == 0 {
            self.rewrite(records);
        }
        let marked = self.scrubber.marked;
        let pending = marked < self.compact_revision || !self.scrubber.rewrite.is_empty();
        ScrubProgress { marked, done: !pending }
    }

    /// Whether the next piece of work marks, which takes deleted keys out of the
    /// index.
    pub fn is_marking(&self) -> bool {
        self.scrubber.marked < self.compact_revision
    }

    /// Number of records found dead since the start.
    pub fn buried(&self) -> u64 {
        self.scrubber.buried
    }

    /// Makes every block that has anything dead worth packing anew, at the
    /// next scrubs.
    pub fn defragment(&mut self) {
        self.scrubber.rewrite.extend(self.scrubber.dead.keys().copied());
    }

    /// Tells that every sealed volume was written at or after compact revision
    /// `floor`, or that one is being written now.
    pub fn set_clean_floor(&mut self, floor: i64) {
        self.scrubber.clean_floor = floor;
    }

    /// What [`Store::set_clean_floor`] said last.
    pub fn clean_floor(&self) -> i64 {
        self.scrubber.clean_floor
    }

    /// Number of deletions that wait for older volumes to be written anew.
    pub fn unsettled(&self) -> usize {
        self.scrubber.unsettled.len()
    }

    /// Takes in one record at start-up, when history below `compact_revision`
    /// was given up before. Records come in order; dead ones may be among them.
    pub(super) fn load_record(&mut self, record: &Record, compact_revision: i64) {
        let (before, _) = self.index.update(&record.key, |_| super::Entry {
            revision: record.revision,
            create_revision: record.create_revision,
            version: record.version,
            lease: record.lease,
        });
        self.revision = self.revision.max(record.revision.main);
        if record.revision.main > compact_revision {
            return;
        }
        if let Some(before) = before {
            self.bury(before.revision);
        }
        if record.is_tombstone() {
            self.index.remove(&record.key);
            self.scrubber.unsettled.push_back(record.revision);
        }
    }

    /// Ends loading.
    pub(super) fn loaded(&mut self, revision: i64, compact_revision: i64) {
        self.revision = self.revision.max(revision);
        self.compact_revision = compact_revision;
        self.scrubber.marked = compact_revision;
        self.scrubber.cursor = Revision::start_of(compact_revision + 1);
    }

    fn mark(&mut self, records: usize) {
        let too_far = i64::from(is_planted(Planted::CompactionOneTooFar));
        let limit = Revision::end_of(self.compact_revision + too_far);
        // Dead records are named by block and slot, so blocks must not move.
        self.log.seal_tail();
        let batch: Vec<Record> = self
            .log
            .records_from(self.scrubber.cursor)
            .take_while(|record| record.revision <= limit)
            .take(records)
            .collect();
        for record in &batch {
            self.mark_record(record);
        }
        match batch.last() {
            Some(last) if batch.len() == records => {
                self.scrubber.cursor = Revision::new(last.revision.main, last.revision.sub + 1);
            }
            _ => {
                self.scrubber.cursor = Revision::start_of(self.compact_revision + 1);
                self.scrubber.marked = self.compact_revision;
            }
        }
    }

    fn mark_record(&mut self, record: &Record) {
        self.bury(record.previous);
        let at_limit = record.revision.main == self.compact_revision;
        if at_limit && is_planted(Planted::CompactionEatsLive) {
            self.bury(record.revision);
        }
        if !record.is_tombstone() {
            return;
        }
        if self.index.get(&record.key).is_some_and(|entry| entry.revision == record.revision) {
            self.index.remove(&record.key);
        }
        self.scrubber.unsettled.push_back(record.revision);
    }

    /// Marks the record at `revision` dead, unless it is gone already or is a
    /// deletion, which has rules of its own.
    fn bury(&mut self, revision: Revision) {
        if let Some((block, slot)) = self.locate(revision)
            && !block.record(slot).is_tombstone()
        {
            self.mark_dead(&block, slot);
        }
    }

    fn locate(&self, revision: Revision) -> Option<(Arc<Block>, usize)> {
        let block = self.log.block_of(revision)?;
        block.find(revision).map(|slot| (Arc::clone(block), slot))
    }

    fn mark_dead(&mut self, block: &Block, slot: usize) {
        let scrubber = &mut self.scrubber;
        let set = scrubber.dead.entry(block.first()).or_default();
        let number = u32::try_from(slot).expect("a block has fewer than 2^32 records");
        if !set.slots.insert(number) {
            return;
        }
        scrubber.buried += 1;
        set.bytes += block.record_bytes(slot);
        scrubber.dead_bytes += block.record_bytes(slot) as u64;
        if set.bytes * 2 >= block.bytes() {
            scrubber.rewrite.insert(block.first());
        }
    }

    /// Lets deletions die that no volume needs any more; gives how many.
    fn settle(&mut self, records: usize) -> usize {
        let mut settled = 0;
        while settled < records
            && let Some(&revision) = self.scrubber.unsettled.front()
            && (revision.main <= self.scrubber.clean_floor
                || is_planted(Planted::DeletionForgotten))
            && (revision.main < self.compact_revision || is_planted(Planted::DeletionEaten))
        {
            self.scrubber.unsettled.pop_front();
            if let Some((block, slot)) = self.locate(revision) {
                self.mark_dead(&block, slot);
            }
            settled += 1;
        }
        settled
    }

    /// Packs blocks anew, at least one, until about `records` were looked at.
    fn rewrite(&mut self, records: usize) {
        let mut looked = 0;
        while looked < records
            && let Some(first) = self.scrubber.rewrite.pop_first()
        {
            looked += self.rewrite_one(first).max(1);
        }
    }

    /// Packs the block that begins at `first` anew, with the neighbours that
    /// fit; gives how many records that were.
    fn rewrite_one(&mut self, first: Revision) -> usize {
        let run = self.run_to_join(first);
        let mut builder = BlockBuilder::default();
        for block in &run {
            let dead = self.scrubber.dead.remove(&block.first());
            self.scrubber.rewrite.remove(&block.first());
            self.scrubber.dead_bytes -= dead.as_ref().map_or(0, |set| set.bytes as u64);
            let is_dead =
                |slot: &usize| dead.as_ref().is_some_and(|set| set.slots.contains(&(*slot as u32)));
            builder.copy(block, (0..block.len()).filter(|slot| !is_dead(slot)));
        }
        let replaced = self.log.replace(first, run.len(), builder.finish());
        assert!(replaced || run.is_empty(), "blocks with dead records are sealed and do not move");
        run.iter().map(|block| block.len()).sum()
    }

    /// The block that begins at `first` and the ones behind it that fit into
    /// one block together with what is alive in it.
    fn run_to_join(&self, first: Revision) -> Vec<Arc<Block>> {
        let Some(block) = self.log.block_of(first) else { return Vec::new() };
        let mut run = vec![Arc::clone(block)];
        let mut live = self.live_bytes(block);
        for next in self.log.sealed_after(first).unwrap_or_default() {
            live += self.live_bytes(next);
            let worth =
                next.bytes() < BLOCK_BYTES / 4 || self.scrubber.rewrite.contains(&next.first());
            if live > BLOCK_BYTES || !worth || !self.log.same_chunk(first, next.first()) {
                break;
            }
            run.push(Arc::clone(next));
        }
        run
    }

    fn live_bytes(&self, block: &Block) -> usize {
        block.bytes() - self.scrubber.dead.get(&block.first()).map_or(0, |set| set.bytes)
    }
}
