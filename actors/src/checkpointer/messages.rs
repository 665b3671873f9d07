//! What the checkpointer takes and answers, and the two contracts around it: the state
//! that gives blocks ([`BlockSource`]) and the store that keeps them
//! ([`CheckpointStore`]).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::StoreError;

/// A position in the revision log: the revision and the place inside it.
#[derive(
    Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode,
)]
pub struct RevisionKey {
    /// The revision of the transaction.
    pub main: i64,
    /// The change within the transaction, from 0.
    pub sub: u32,
}

impl RevisionKey {
    /// Before every other key.
    pub const MIN: Self = Self { main: i64::MIN, sub: 0 };
    /// After every other key.
    pub const MAX: Self = Self { main: i64::MAX, sub: u32::MAX };

    /// The smallest key above this one; `MAX` is its own successor.
    #[must_use]
    pub fn successor(self) -> Self {
        match (self.sub.checked_add(1), self.main.checked_add(1)) {
            (Some(sub), _) => Self { main: self.main, sub },
            (None, Some(main)) => Self { main, sub: 0 },
            (None, None) => self,
        }
    }
}

impl fmt::Display for RevisionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.main, self.sub)
    }
}

/// Takes one block: its first key, its last key, its bytes.
pub type BlockVisitor<'a> =
    &'a mut dyn FnMut(RevisionKey, RevisionKey, &[u8]) -> Result<(), StoreError>;

/// What the state gives the store: an immutable view at one applied index.
///
/// The view must not change while a seal holds it: a range is visited twice, once to
/// plan and once to write, and must give the same blocks both times. How the revisions
/// are cut into blocks may differ for another range or another view.
pub trait BlockSource: Send + Sync {
    /// Visits, in ascending order, blocks that together hold every live revision in
    /// `from..=to`. A block's first and last key must lie in that range (a block that
    /// straddles its edge is cut by the source) and blocks must not overlap. The bytes
    /// are opaque to the store.
    ///
    /// # Errors
    /// The first error of `f`, unchanged.
    fn visit(
        &self,
        from: RevisionKey,
        to: RevisionKey,
        f: BlockVisitor<'_>,
    ) -> Result<(), StoreError>;

    /// About how many bytes [`visit`](Self::visit) would give for `from..=to`. Cheap: it
    /// is asked for every volume at every seal. 0 means that nothing lives there, and the
    /// range is dropped without a visit; so it must be 0 only if that is certain.
    fn live_bytes(&self, from: RevisionKey, to: RevisionKey) -> u64;
}

/// How hard a seal works to give space back.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Reclaim {
    /// Rewrite volumes that are mostly dead, within a budget for each seal.
    #[default]
    Paced,
    /// Rewrite every volume with a noticeable share of dead bytes, and every one that was
    /// written before the newest compaction.
    All,
    /// Keep no volume: the state is not one that grew from the sealed one.
    Replace,
}

/// An order to make the state at `applied_index` durable.
#[derive(Clone)]
pub struct SealJob {
    /// The raft index of the last entry in this state.
    pub applied_index: u64,
    /// The raft term of that entry.
    pub applied_term: u64,
    /// The newest revision in this state.
    pub last: RevisionKey,
    /// Everything beside the revisions (leases, members, alarms, ...), opaque, small.
    pub meta: Bytes,
    /// The revision below which the state has given up its history.
    pub compact_revision: i64,
    /// How hard to work on giving space back.
    pub reclaim: Reclaim,
    /// The revisions.
    pub source: Arc<dyn BlockSource>,
}

impl fmt::Debug for SealJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealJob")
            .field("applied_index", &self.applied_index)
            .field("applied_term", &self.applied_term)
            .field("last", &self.last)
            .field("meta_bytes", &self.meta.len())
            .field("reclaim", &self.reclaim)
            .finish_non_exhaustive()
    }
}

/// A seal that is durable: log entries up to `applied_index` are no longer needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The index the sealed copy covers.
    pub applied_index: u64,
    /// The term of that index.
    pub applied_term: u64,
    /// Bytes written to disk: volumes and manifest.
    pub bytes_written: u64,
    /// From the start of the seal to the durable manifest.
    pub took: Duration,
    /// Volumes the manifest names now.
    pub volumes: usize,
    /// Volumes written by this seal.
    pub volumes_written: usize,
    /// Old volumes that were replaced or dropped by this seal.
    pub volumes_retired: usize,
    /// Bytes on disk, after the retired volumes are gone.
    pub disk_bytes: u64,
    /// No volume holds what compaction to this revision gave up; `i64::MAX` without volumes.
    pub clean_floor: i64,
}

/// What the manifest says beside the blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedMeta {
    /// The raft index of the last entry in the sealed state: replay the log after it.
    pub applied_index: u64,
    /// The raft term of that entry.
    pub applied_term: u64,
    /// The newest revision in the sealed state.
    pub last: RevisionKey,
    /// The bytes given as [`SealJob::meta`].
    pub meta: Bytes,
    /// As [`Sealed::clean_floor`].
    pub clean_floor: i64,
}

/// Takes one loaded block: its first key, its last key, its bytes.
pub type LoadVisitor<'a> =
    &'a mut dyn FnMut(RevisionKey, RevisionKey, Bytes) -> Result<(), StoreError>;

/// Keeps one sealed copy of the state at every moment.
pub trait CheckpointStore: Send {
    /// What the manifest says beside the blocks; `None` where nothing was ever sealed.
    fn sealed(&self) -> Option<LoadedMeta>;

    /// Gives the sealed blocks in ascending order, one at a time, and then the rest.
    /// `None` where nothing was ever sealed. Blocks that a compaction emptied after they
    /// were written may appear again: the caller applies its compaction to them.
    ///
    /// # Errors
    /// When a volume is missing or any bit of it differs from what was sealed; blocks
    /// visited before the error are right, but the state is not whole. An error of
    /// `visit` comes back unchanged.
    fn load(&mut self, visit: LoadVisitor<'_>) -> Result<Option<LoadedMeta>, StoreError>;

    /// Makes the state of `job` durable and returns when it is. Blocks for as long as
    /// that takes.
    ///
    /// # Errors
    /// When the copy could not be made durable. The previous one is still whole, but a
    /// disk that failed once is not to be trusted again: stop the member.
    fn seal(&mut self, job: &SealJob) -> Result<Sealed, StoreError>;

    /// Bytes the sealed copy takes on disk.
    fn disk_bytes(&self) -> u64;
}

/// What the checkpointer's mailbox takes.
#[derive(Debug)]
pub enum CheckpointMessage {
    /// Make this state durable.
    Seal(SealJob),
    /// End the thread after what was sent before.
    Stop,
}

/// Where the checkpointer answers to, on its own thread: an implementation hands the
/// message on and returns at once.
pub trait CheckpointEvents: Send {
    /// A seal is durable.
    fn sealed(&mut self, sealed: Sealed);
    /// A seal failed and the checkpointer has stopped.
    fn failed(&mut self, error: StoreError);
}
