//! The store as a checkpoint keeps it: blocks of live records and a small rest.

use std::sync::Arc;

use bytes::Bytes;

use super::block::{Block, BlockBuilder};
use super::revision::Revision;
use super::store::Store;
use super::view::View;
use crate::checkpointer::{BlockSource, RevisionKey, StoreError};
use crate::cluster::ClusterState;
use crate::shared::codec::{self, CodecError};

/// Everything of the state that is not a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct StoreMeta {
    /// The cluster this state belongs to.
    pub cluster_id: u64,
    /// The member this state belongs to.
    pub member_id: u64,
    /// The newest revision.
    pub revision: i64,
    /// The compact revision.
    pub compact_revision: i64,
    /// The leases: id, granted seconds, seconds left at their last checkpoint.
    pub leases: Vec<(i64, i64, i64)>,
    /// Members, alarms and version.
    pub cluster: ClusterState,
    /// How the state came to be here.
    pub origin: Origin,
}

/// How a sealed state came to be, which says how it and the log must fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Origin {
    /// By applying this member's log, which therefore reaches at least as far.
    #[default]
    Log,
    /// It is a new member's first state; the log may not have been made yet.
    Begun,
    /// It was installed from another member's snapshot; the log may not have
    /// been restarted behind it yet.
    Installed,
}

/// Format of [`StoreMeta`] outside of memory.
const META_VERSION: u8 = 2;

impl StoreMeta {
    /// The bytes to keep.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = vec![META_VERSION];
        codec::append(self, &mut out);
        out.into()
    }

    /// Reads what [`StoreMeta::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are not such a record, or are of another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        match bytes.split_first() {
            Some((&META_VERSION, rest)) => codec::read(rest),
            Some((version, _)) => {
                Err(CodecError::Invalid(format!("state format {version} is not known")))
            }
            None => Err(CodecError::Truncated),
        }
    }
}

impl Store {
    /// Takes in one block of a checkpoint. Blocks come in order; the compact
    /// revision is that of the checkpoint.
    ///
    /// # Errors
    /// When the bytes are not a whole block.
    pub fn load_block(&mut self, bytes: &Bytes, compact_revision: i64) -> Result<(), CodecError> {
        self.take_block(Block::from_bytes(bytes)?, compact_revision);
        Ok(())
    }

    /// Takes in one block, otherwise as [`Store::load_block`].
    pub(crate) fn take_block(&mut self, block: Block, compact_revision: i64) {
        let records: Vec<_> = (0..block.len()).map(|slot| block.record(slot)).collect();
        self.log.push_sealed(block);
        for record in &records {
            self.load_record(record, compact_revision);
        }
    }

    /// Ends the loading of a checkpoint.
    pub fn finish_load(&mut self, meta: &StoreMeta, clean_floor: i64) {
        self.loaded(meta.revision, meta.compact_revision);
        self.set_clean_floor(clean_floor);
        for (id, ttl_s, remaining_s) in &meta.leases {
            // Ids are unique: they come from a map.
            let _ = self.leases.grant(*id, *ttl_s);
            self.leases.checkpoint(*id, *remaining_s);
        }
        for (key, entry) in self.index.iter_from(b"") {
            self.leases.attach(key, 0, entry.lease);
        }
    }

    /// The leases as [`StoreMeta`] keeps them.
    pub fn lease_meta(&self) -> Vec<(i64, i64, i64)> {
        self.leases.iter().map(|(id, lease)| (id, lease.ttl_s, lease.remaining_s)).collect()
    }
}

impl View {
    /// All blocks, in order; not everything in them lives.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.log.blocks_from(Revision::ZERO)
    }

    /// What of `block` must be kept, if anything.
    pub(crate) fn live(&self, block: &Arc<Block>) -> Option<Arc<Block>> {
        if block.first().main > self.compact_revision {
            return Some(Arc::clone(block));
        }
        self.live_part(block, Revision::ZERO, Revision::MAX).map(Arc::new)
    }

    /// What of `block` must be kept, cut to `from..=to`: records behind the
    /// compact revision, what a read at it finds, and deletions.
    fn live_part(&self, block: &Block, from: Revision, to: Revision) -> Option<Block> {
        let slots = block.lower_bound(from)..block.len();
        let keep = slots.filter(|slot| {
            let revision = block.revision(*slot);
            revision <= to && (revision.main > self.compact_revision || self.is_kept(block, *slot))
        });
        let mut builder = BlockBuilder::default();
        builder.copy(block, keep);
        builder.finish()
    }

    fn is_kept(&self, block: &Block, slot: usize) -> bool {
        let record = block.record(slot);
        record.is_tombstone() || self.is_found_at(&record, self.compact_revision)
    }
}

impl BlockSource for View {
    fn visit(
        &self,
        from: RevisionKey,
        to: RevisionKey,
        f: &mut dyn FnMut(RevisionKey, RevisionKey, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (from, to) = (Revision::from(from), Revision::from(to));
        for block in self.log.blocks_from(from).take_while(|block| block.first() <= to) {
            let whole = from <= block.first() && block.last() <= to;
            if whole && block.first().main > self.compact_revision {
                f(block.first().into(), block.last().into(), &block.to_bytes())?;
            } else if let Some(part) = self.live_part(block, from, to) {
                f(part.first().into(), part.last().into(), &part.to_bytes())?;
            }
        }
        Ok(())
    }

    fn live_bytes(&self, from: RevisionKey, to: RevisionKey) -> u64 {
        let (from, to) = (Revision::from(from), Revision::from(to));
        let blocks = self.log.blocks_from(from).take_while(|block| block.first() <= to);
        blocks.map(|block| block.bytes() as u64).sum()
    }
}

impl From<RevisionKey> for Revision {
    fn from(key: RevisionKey) -> Self {
        Self { main: key.main, sub: key.sub }
    }
}

impl From<Revision> for RevisionKey {
    fn from(revision: Revision) -> Self {
        Self { main: revision.main, sub: revision.sub }
    }
}
