//! A block: a run of records in revision order, packed into one allocation.

use bytes::Bytes;

use super::record::{self, Record};
use super::revision::Revision;
use crate::shared::codec::CodecError;

/// An immutable run of records. The newest changes are in many small blocks,
/// older ones in blocks of about [`BLOCK_BYTES`].
#[derive(Debug)]
pub struct Block {
    first: Revision,
    last: Revision,
    data: Bytes,
    /// Where each record ends in `data`.
    ends: Box<[u32]>,
}

/// The size from which a block is left as it is.
pub const BLOCK_BYTES: usize = 64 * 1024;

/// Format of a block outside of memory.
const BLOCK_VERSION: u8 = 1;

impl Block {
    /// The first record's revision.
    pub fn first(&self) -> Revision {
        self.first
    }

    /// The last record's revision.
    pub fn last(&self) -> Revision {
        self.last
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes that the records take.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Bytes of the record at `slot`.
    pub fn record_bytes(&self, slot: usize) -> usize {
        self.ends[slot] as usize - self.start(slot)
    }

    /// The record at `slot`, which must be below [`Block::len`].
    pub fn record(&self, slot: usize) -> Record {
        let bytes = self.data.slice(self.start(slot)..self.ends[slot] as usize);
        record::decode(&bytes).expect("a block's records were whole when it was built or checked")
    }

    /// The revision of the record at `slot`.
    pub fn revision(&self, slot: usize) -> Revision {
        record::revision_of(&self.data[self.start(slot)..])
            .expect("a block's records were whole when it was built or checked")
    }

    /// The key of the record at `slot`, looked at without making the record.
    pub fn key(&self, slot: usize) -> &[u8] {
        record::key_of(&self.data[self.start(slot)..self.ends[slot] as usize])
            .expect("a block's records were whole when it was built or checked")
    }

    /// The slot of the record at `revision`.
    pub fn find(&self, revision: Revision) -> Option<usize> {
        let slot = self.lower_bound(revision);
        (slot < self.len() && self.revision(slot) == revision).then_some(slot)
    }

    /// The first slot whose revision is not below `revision`.
    pub fn lower_bound(&self, revision: Revision) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.revision(middle) < revision {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The block as bytes, for the checkpoint.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.data.len() + self.ends.len() * 4 + 8);
        out.push(BLOCK_VERSION);
        out.extend_from_slice(&count_u32(self.ends.len()).to_le_bytes());
        for end in &self.ends {
            out.extend_from_slice(&end.to_le_bytes());
        }
        out.extend_from_slice(&self.data);
        out
    }

    /// Reads what [`Block::to_bytes`] wrote, checking every record.
    ///
    /// # Errors
    /// When the bytes are not a whole block of records in revision order.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, CodecError> {
        let (&version, rest) = bytes.split_first().ok_or(CodecError::Truncated)?;
        if version != BLOCK_VERSION {
            return Err(CodecError::Invalid(format!("block format {version} is not known")));
        }
        let (count, rest) = rest.split_first_chunk::<4>().ok_or(CodecError::Truncated)?;
        let count = u32::from_le_bytes(*count) as usize;
        let table = rest.get(..count.saturating_mul(4)).ok_or(CodecError::Truncated)?;
        let ends: Box<[u32]> =
            table.as_chunks::<4>().0.iter().map(|e| u32::from_le_bytes(*e)).collect();
        let data = bytes.slice(5 + table.len()..);
        Self::checked(data, ends)
    }

    fn checked(data: Bytes, ends: Box<[u32]>) -> Result<Self, CodecError> {
        let mut start = 0;
        let mut last = Revision::ZERO;
        for &end in &ends {
            let end = end as usize;
            if end <= start || end > data.len() {
                return Err(CodecError::OutOfRange);
            }
            let revision = record::decode(&data.slice(start..end))?.revision;
            if revision <= last {
                return Err(CodecError::Invalid("revisions are out of order".to_owned()));
            }
            (start, last) = (end, revision);
        }
        if start != data.len() {
            return Err(CodecError::LeftOver(data.len() - start));
        }
        let first = record::revision_of(&data).ok_or(CodecError::Truncated)?;
        Ok(Self { first, last, data, ends })
    }

    fn start(&self, slot: usize) -> usize {
        match slot {
            0 => 0,
            slot => self.ends[slot - 1] as usize,
        }
    }
}

/// Packs records into a [`Block`].
#[derive(Debug, Default)]
pub struct BlockBuilder {
    data: Vec<u8>,
    ends: Vec<u32>,
}

impl BlockBuilder {
    /// Bytes added so far.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Adds a record, whose revision must be above all before it.
    pub fn push(&mut self, record: &Record) {
        record::encode(record, &mut self.data);
        self.ends.push(count_u32(self.data.len()));
    }

    /// Adds the records of `block` from `slots`.
    pub fn copy(&mut self, block: &Block, slots: impl Iterator<Item = usize>) {
        for slot in slots {
            self.data.extend_from_slice(&block.data[block.start(slot)..block.ends[slot] as usize]);
            self.ends.push(count_u32(self.data.len()));
        }
    }

    /// The block, or `None` when it would be empty.
    pub fn finish(self) -> Option<Block> {
        let first = record::revision_of(&self.data)?;
        let last_start = match self.ends.len() {
            0 | 1 => 0,
            len => self.ends[len - 2] as usize,
        };
        let last = record::revision_of(&self.data[last_start..])?;
        // An exact allocation: the block may live for years.
        let data = Bytes::from(self.data.into_boxed_slice());
        Some(Block { first, last, data, ends: self.ends.into_boxed_slice() })
    }
}

/// Block offsets are 32 bits wide: requests are limited to far less than a
/// block could hold, and a block is closed at the first record beyond 64 KiB.
fn count_u32(count: usize) -> u32 {
    u32::try_from(count).expect("a block stays below 4 GiB")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn put(main: i64, sub: u32, key: &str, value: &str) -> Record {
        Record {
            revision: Revision::new(main, sub),
            previous: Revision::ZERO,
            create_revision: main,
            version: 1,
            lease: 0,
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
        }
    }

    fn block(records: &[Record]) -> Block {
        let mut builder = BlockBuilder::default();
        records.iter().for_each(|record| builder.push(record));
        builder.finish().unwrap()
    }

    #[test]
    fn records_are_found_by_revision() {
        let records = [put(2, 0, "a", "1"), put(4, 0, "b", "2"), put(4, 1, "c", "3")];
        let block = block(&records);
        assert_eq!(block.find(Revision::new(4, 1)), Some(2));
        assert_eq!(block.record(2), records[2]);
        assert_eq!(block.key(1), b"b");
        assert_eq!(block.find(Revision::new(3, 0)), None);
        assert_eq!(block.lower_bound(Revision::new(3, 0)), 1);
        assert_eq!((block.first(), block.last()), (Revision::new(2, 0), Revision::new(4, 1)));
    }

    #[test]
    fn an_empty_builder_makes_no_block() {
        assert!(BlockBuilder::default().finish().is_none());
    }

    proptest! {
        #[test]
        fn bytes_come_back_and_damage_never_panics(
            values in prop::collection::vec("[a-z]{0,20}", 1..30),
            flip in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let records: Vec<Record> =
                values.iter().zip(2..).map(|(value, main)| put(main, 0, "k", value)).collect();
            let mut bytes = block(&records).to_bytes();
            let read = Block::from_bytes(&Bytes::from(bytes.clone())).unwrap();
            let all: Vec<Record> = (0..read.len()).map(|slot| read.record(slot)).collect();
            prop_assert_eq!(all, records);

            let at = flip.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(block) = Block::from_bytes(&Bytes::from(bytes)) {
                (0..block.len()).for_each(|slot| { block.record(slot); });
            }
        }
    }
}
