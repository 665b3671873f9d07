//! The revision log: every record that a reader may still ask for, in order.
//!
//! ```text
//!  sealed: chunk[0] ── block block block …     blocks of about 64 KiB
//!          chunk[1] ── block block …           a chunk is the unit of copying
//!  tail:   block(30 KiB) block(9 KiB) block(300 B)
//! ```
//! A batch of changes becomes one small block at the tail. Tail blocks are
//! merged like the digits of a binary counter, so each record is copied a few
//! times only, until the first one is large enough to be sealed. Cloning the
//! log copies a pointer and the short tail: that is a reader's view.

use std::sync::Arc;

use super::block::{BLOCK_BYTES, Block, BlockBuilder};
use super::record::Record;
use super::revision::Revision;

/// Blocks in a chunk. Sealing a block copies at most this many pointers.
const CHUNK_BLOCKS: usize = 128;

type Chunk = Vec<Arc<Block>>;

/// The records in revision order; see the module's text.
#[derive(Clone, Debug, Default)]
pub struct RevisionLog {
    sealed: Arc<Vec<Arc<Chunk>>>,
    tail: Vec<Arc<Block>>,
    bytes: u64,
}

impl RevisionLog {
    /// Bytes of all records, dead ones included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The record at `revision`.
    pub fn get(&self, revision: Revision) -> Option<Record> {
        let block = self.block_of(revision)?;
        block.find(revision).map(|slot| block.record(slot))
    }

    /// The block in which `revision` lies, if any.
    pub fn block_of(&self, revision: Revision) -> Option<&Arc<Block>> {
        if let Some(first) = self.tail.first()
            && first.first() <= revision
        {
            let next = self.tail.partition_point(|block| block.first() <= revision);
            return Some(&self.tail[next - 1]);
        }
        let next = self.sealed.partition_point(|chunk| chunk_first(chunk) <= revision);
        let chunk = self.sealed.get(next.checked_sub(1)?)?;
        let next = chunk.partition_point(|block| block.first() <= revision);
        chunk.get(next.checked_sub(1)?)
    }

    /// The blocks that may hold revisions from `from` on, in order.
    pub fn blocks_from(&self, from: Revision) -> impl Iterator<Item = &Arc<Block>> {
        let chunks = &self.sealed[self.sealed.partition_point(|chunk| chunk_last(chunk) < from)..];
        let before = |blocks: &[Arc<Block>]| blocks.partition_point(|block| block.last() < from);
        let first = chunks.first().map_or(0, |chunk| before(chunk));
        let sealed = chunks.iter().flat_map(|chunk| chunk.iter()).skip(first);
        sealed.chain(&self.tail[before(&self.tail)..])
    }

    /// The records at or behind `from`, in order.
    pub fn records_from(&self, from: Revision) -> impl Iterator<Item = Record> {
        self.blocks_from(from).flat_map(move |block| {
            (block.lower_bound(from)..block.len()).map(|slot| block.record(slot))
        })
    }

    /// Appends a block, which must lie behind all others.
    pub fn push(&mut self, block: Block) {
        self.bytes += block.bytes() as u64;
        self.tail.push(Arc::new(block));
        self.merge_tail();
        while self.tail.first().is_some_and(|block| block.bytes() >= BLOCK_BYTES) {
            let block = self.tail.remove(0);
            self.seal(block);
        }
    }

    /// Seals whatever is in the tail, so that blocks keep their borders from now on.
    pub fn seal_tail(&mut self) {
        let Some(block) = merge(&self.tail) else { return };
        self.tail.clear();
        self.seal(Arc::new(block));
    }

    /// Puts `replacement` in the place of the sealed blocks from the one that
    /// begins at `first`, `count` of them, all in one chunk. Returns whether
    /// they were found.
    pub fn replace(&mut self, first: Revision, count: usize, replacement: Option<Block>) -> bool {
        let chunks = Arc::make_mut(&mut self.sealed);
        let Some(at) = chunks.partition_point(|chunk| chunk_first(chunk) <= first).checked_sub(1)
        else {
            return false;
        };
        let chunk = Arc::make_mut(&mut chunks[at]);
        let Ok(start) = chunk.binary_search_by_key(&first, |block| block.first()) else {
            return false;
        };
        if start + count > chunk.len() {
            return false;
        }
        let new = replacement.map(Arc::new);
        for old in &chunk[start..start + count] {
            self.bytes -= old.bytes() as u64;
        }
        if let Some(new) = &new {
            self.bytes += new.bytes() as u64;
        }
        chunk.splice(start..start + count, new);
        if chunk.is_empty() {
            chunks.remove(at);
        }
        true
    }

    /// Appends a block that keeps its borders from now on.
    pub fn push_sealed(&mut self, block: Block) {
        self.seal_tail();
        self.bytes += block.bytes() as u64;
        self.seal(Arc::new(block));
    }

    /// The sealed blocks of one chunk behind the block that begins at `after`.
    pub fn sealed_after(&self, after: Revision) -> Option<&[Arc<Block>]> {
        let at = self.sealed.partition_point(|chunk| chunk_last(chunk) <= after);
        let chunk = self.sealed.get(at)?;
        Some(&chunk[chunk.partition_point(|block| block.first() <= after)..])
    }

    /// Whether the sealed blocks that begin at `one` and `other` can be
    /// replaced together.
    pub fn same_chunk(&self, one: Revision, other: Revision) -> bool {
        let chunk_of = |first| self.sealed.partition_point(|chunk| chunk_first(chunk) <= first);
        chunk_of(one) == chunk_of(other)
    }

    fn merge_tail(&mut self) {
        while let [.., left, right] = self.tail.as_slice() {
            if left.bytes() > 2 * right.bytes() || left.bytes() >= BLOCK_BYTES {
                return;
            }
            let merged =
                merge(&self.tail[self.tail.len() - 2..]).expect("two blocks are not empty");
            self.tail.truncate(self.tail.len() - 2);
            self.tail.push(Arc::new(merged));
        }
    }

    fn seal(&mut self, block: Arc<Block>) {
        let chunks = Arc::make_mut(&mut self.sealed);
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_BLOCKS => Arc::make_mut(chunk).push(block),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK_BLOCKS);
                chunk.push(block);
                chunks.push(Arc::new(chunk));
            }
        }
    }
}

fn merge(blocks: &[Arc<Block>]) -> Option<Block> {
    let mut builder = BlockBuilder::default();
    for block in blocks {
        builder.copy(block, 0..block.len());
    }
    builder.finish()
}

/// Chunks are never left empty.
fn chunk_first(chunk: &Chunk) -> Revision {
    chunk.first().map_or(Revision::MAX, |block| block.first())
}

fn chunk_last(chunk: &Chunk) -> Revision {
    chunk.last().map_or(Revision::ZERO, |block| block.last())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(main: i64, value_len: usize) -> Record {
        Record {
            revision: Revision::new(main, 0),
            previous: Revision::ZERO,
            create_revision: main,
            version: 1,
            lease: 0,
            key: Bytes::from_static(b"k"),
            value: Bytes::from(vec![b'v'; value_len]),
        }
    }

    fn push(log: &mut RevisionLog, records: &[Record]) {
        let mut builder = BlockBuilder::default();
        records.iter().for_each(|record| builder.push(record));
        log.push(builder.finish().unwrap());
    }

    fn filled(records: i64) -> RevisionLog {
        let mut log = RevisionLog::default();
        for main in 2..2 + records {
            push(&mut log, &[put(main, 1000)]);
        }
        log
    }

    #[test]
    fn single_records_become_large_blocks() {
        let log = filled(1000);
        assert!(log.tail.len() < 12, "{} tail blocks", log.tail.len());
        let blocks: usize = log.sealed.iter().map(|chunk| chunk.len()).sum();
        assert!((8..=20).contains(&blocks), "{blocks} sealed blocks for 1 MB");
        for main in 2..1002 {
            assert_eq!(log.get(Revision::new(main, 0)).unwrap().revision.main, main);
        }
        assert!(log.get(Revision::new(1002, 0)).is_none() && log.get(Revision::ZERO).is_none());
    }

    #[test]
    fn a_view_keeps_what_it_saw() {
        let mut log = filled(100);
        let view = log.clone();
        push(&mut log, &[put(102, 10)]);
        log.seal_tail();
        assert_eq!(view.records_from(Revision::ZERO).count(), 100);
        assert_eq!(log.records_from(Revision::ZERO).count(), 101);
    }

    #[test]
    fn records_are_walked_from_any_revision() {
        let log = filled(300);
        for from in [0, 2, 77, 301, 302] {
            let mains: Vec<i64> =
                log.records_from(Revision::start_of(from)).map(|r| r.revision.main).collect();
            assert_eq!(mains, (from.max(2)..302).collect::<Vec<_>>());
        }
    }

    #[test]
    fn blocks_are_replaced_and_removed() {
        let mut log = filled(500);
        log.seal_tail();
        let before = log.bytes();
        let first = log.sealed_after(Revision::ZERO).unwrap()[0].clone();
        let mut builder = BlockBuilder::default();
        builder.copy(&first, 0..1);
        assert!(log.replace(first.first(), 1, builder.finish()));
        assert_eq!(log.records_from(Revision::ZERO).count(), 500 - first.len() + 1);
        assert!(log.bytes() < before);
        assert!(log.replace(first.first(), 1, None));
        assert!(!log.replace(first.first(), 1, None), "it is gone");
        while let Some(block) = log.sealed_after(Revision::ZERO).map(|rest| rest[0].clone()) {
            assert!(log.replace(block.first(), 1, None));
        }
        assert_eq!((log.bytes(), log.records_from(Revision::ZERO).count()), (0, 0));
    }
}
