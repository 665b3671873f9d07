//! Bugs on purpose, for a test of the tests: a simulator that cannot find these finds
//! nothing else.
//!
//! Without the feature `planted` there is no switch: [`is_planted`] says no, and the
//! compiler leaves the places out. With it, a thread can have one bug at a time.

/// A bug, at the place where a programmer could make it. Each is of a kind that
/// databases like this one have had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Planted {
    /// The WAL says that a group is durable, and syncs it with the next one.
    AcknowledgedBeforeSync,
    /// A follower acknowledges entries and gives votes before the WAL has them.
    PromisedBeforeWritten,
    /// A vote without entries is not worth a write.
    HardStateNotWritten,
    /// All read rounds of a process use the same context.
    ReadContextReused,
    /// A leader answers its own reads without asking whether it still leads.
    ReadUnconfirmed,
    /// A read does not wait until its index is applied.
    ReadNotAwaited,
    /// When batches have piled up, the first two operations change places.
    AppliedOutOfOrder,
    /// A checkpoint says that it covers one entry more than it does.
    CheckpointAhead,
    /// An installed snapshot's state goes by the index that was applied before it.
    SnapshotWithoutIndex,
    /// A new snapshot leaves the log as it was: no marker says where it goes on.
    SnapshotWithoutMarker,
    /// A compaction takes the version that is live at its revision, if it was written
    /// there.
    CompactionEatsLive,
    /// A compaction takes what was superseded just behind its revision, too.
    CompactionOneTooFar,
    /// Deletions are freed while old checkpoints still have what they deleted.
    DeletionForgotten,
    /// A compaction at the revision of a deletion takes the deletion, too.
    DeletionEaten,
    /// A watcher that comes from history to what happens now misses a revision.
    WatchSkipsAtSync,
    /// A watcher that fell behind a compaction goes on behind it, and is not told.
    WatchSkipsCompacted,
    /// A watcher is told of progress while events wait to be sent to it.
    ProgressAheadOfEvents,
    /// Followers end leases by their own clocks.
    LeaseEndedByFollower,
    /// A new leader counts on from what it has seen as a follower.
    LeaseNotRenewedByLeader,
    /// A keep-alive is answered without asking whether this member still leads.
    LeaseRenewedUnconfirmed,
    /// A key that moves to another lease still hangs on the one before.
    LeaseKeepsKeys,
    /// A learner votes and is counted.
    LearnerCounts,
    /// A removed member is still counted.
    RemovedCounts,
}

#[cfg(feature = "planted")]
impl Planted {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::AcknowledgedBeforeSync,
        Self::PromisedBeforeWritten,
        Self::HardStateNotWritten,
        Self::ReadContextReused,
        Self::ReadUnconfirmed,
        Self::ReadNotAwaited,
        Self::AppliedOutOfOrder,
        Self::CheckpointAhead,
        Self::SnapshotWithoutIndex,
        Self::SnapshotWithoutMarker,
        Self::CompactionEatsLive,
        Self::CompactionOneTooFar,
        Self::DeletionForgotten,
        Self::DeletionEaten,
        Self::WatchSkipsAtSync,
        Self::WatchSkipsCompacted,
        Self::ProgressAheadOfEvents,
        Self::LeaseEndedByFollower,
        Self::LeaseNotRenewedByLeader,
        Self::LeaseRenewedUnconfirmed,
        Self::LeaseKeepsKeys,
        Self::LearnerCounts,
        Self::RemovedCounts,
    ];
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Planted;

    thread_local! {
        static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
    }

    /// Has this thread's members make this mistake from now on, and no other.
    pub fn plant(bug: Option<Planted>) {
        PLANTED.set(bug);
    }

    /// Whether this thread's members make this mistake.
    pub fn is_planted(bug: Planted) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted")]
pub use switch::{is_planted, plant};

/// Whether members make this mistake: never.
#[cfg(not(feature = "planted"))]
pub const fn is_planted(_: Planted) -> bool {
    false
}
