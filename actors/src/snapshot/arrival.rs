//! The receiver's side: a state that is put together as its stream comes.

use super::stream::{Decoder, Head, Item, SnapshotError};
use crate::mvcc::{Store, StoreMeta};

/// Puts a state together in memory, and believes nothing that it has not checked. Nothing of
/// it is in force before it is installed.
#[derive(Debug, Default)]
pub struct Arriving {
    decoder: Decoder,
    head: Option<Box<Head>>,
    store: Store,
    bytes: u64,
}

impl Arriving {
    /// Takes the next piece of the stream in.
    ///
    /// # Errors
    /// At the first byte that cannot be right; this is then of no further use.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), SnapshotError> {
        let Self { decoder, head, store, bytes } = self;
        *bytes += piece.len() as u64;
        decoder.push(piece, &mut |item| match item {
            Item::Head(new) => *head = Some(new),
            Item::Block(block) => {
                let compacted = head.as_ref().map_or(-1, |head| head.meta.compact_revision);
                store.take_block(block, compacted);
            }
        })
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// When the stream is not whole.
    pub fn finish(self) -> Result<Arrived, SnapshotError> {
        let Self { decoder, head, mut store, bytes } = self;
        decoder.finish()?;
        let Head { index, term, meta } = *head.ok_or(SnapshotError::CutShort { bytes })?;
        // All of it will be written anew, so no older copy of a deleted key is left anywhere.
        store.finish_load(&meta, meta.compact_revision);
        Ok(Arrived { index, term, state: Box::new((store, meta)) })
    }
}

/// A state of another member, whole, that waits to be installed.
#[derive(Debug)]
pub struct Arrived {
    index: u64,
    term: u64,
    state: Box<(Store, StoreMeta)>,
}

impl Arrived {
    /// The raft index of the last entry in the state.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The raft term of that entry.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Everything in the state that is not a record. Its member is the sender.
    pub fn meta(&self) -> &StoreMeta {
        &self.state.1
    }

    /// The state itself.
    pub fn into_state(self) -> (Store, StoreMeta) {
        *self.state
    }
}
