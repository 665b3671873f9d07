//! The public door of the log: what it is opened with, what it takes and what it answers.

use std::path::PathBuf;

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState};

use super::WalError;

/// Whose log it is. Written into every segment; all segments must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The member's id.
    pub member_id: u64,
}

/// How and where the log is kept.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// The directory of the segments, `<data>/member/wal`.
    pub dir: PathBuf,
    /// Size of a segment in bytes; rounded up to whole pages of 4 KiB. An entry that does not fit
    /// gets a larger segment of its own.
    pub segment_bytes: u64,
    /// How many released segments are kept for re-use.
    pub spare_segments: usize,
    /// Never sync. A power cut can then lose or damage anything.
    pub unsafe_no_fsync: bool,
}

impl WalOptions {
    /// The defaults: segments of 16 MiB, four spares, syncs on.
    ///
    /// Opening a log reads its last segment to the end, written or not, in order to tell a torn
    /// tail from damage; creating one fills a segment. So small segments make for quick starts,
    /// and a roll costs about one sync more for each of them.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), segment_bytes: 16 << 20, spare_segments: 4, unsafe_no_fsync: false }
    }
}

/// The log restarts here: everything up to `index` is in a snapshot, the next entry is
/// `index + 1`. Written when a snapshot replaces the log, not for local checkpoints.
///
/// The order: seal the snapshot's state, and say in it that it is one; then send the marker, and
/// the `Append` behind it. A crash between the two leaves a sealed state that the log does not
/// reach: [`open_behind`](super::open_behind) restarts the log then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMarker {
    /// Last index that the snapshot covers.
    pub index: u64,
    /// Term of that index.
    pub term: u64,
    /// The configuration at that index, as the caller encodes it; at most 512 KiB.
    pub conf_state: Bytes,
}

/// A torn group at the end of the log that was cut when it was opened. None of it was ever
/// acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailCut {
    /// The segment's file.
    pub path: PathBuf,
    /// Where the cut is, in bytes.
    pub offset: u64,
    /// How many bytes were overwritten with zeros.
    pub bytes: u64,
    /// What was wrong there.
    pub detail: String,
}

/// What was found in the log when it was opened.
#[derive(Debug)]
pub struct Recovered {
    /// Whose log it is.
    pub identity: Identity,
    /// The last hard state. Its commit index is raised to the snapshot's and to `after_index`:
    /// commits are written without a sync of their own, so the last ones may not be on disk.
    pub hard_state: HardState,
    /// The last snapshot marker in the segments that are left.
    pub snapshot: Option<SnapshotMarker>,
    /// The entries with an index above `after_index` (and above the snapshot's), without a gap.
    pub entries: Vec<Entry>,
    /// The term of the entry at `after_index`, if it is still in the log.
    pub after_term: Option<u64>,
    /// The torn tail that was cut, if there was one.
    pub cut: Option<TailCut>,
    /// How many segments are in use.
    pub segments: usize,
    /// Bytes of records that were read.
    pub bytes: u64,
}

/// One durable request.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// The number that [`WalEvents::persisted`] answers with.
    pub ready_number: u64,
    /// Entries to append. Each index is one more than the last, or at most the last index: then
    /// it replaces that entry and all behind it.
    pub entries: Vec<Entry>,
    /// The hard state, if it changed. Its commit index must be in the log.
    pub hard_state: Option<HardState>,
    /// Whether the answer must wait for a sync.
    pub must_sync: bool,
}

/// What the log takes.
#[derive(Clone, Debug)]
pub enum WalMessage {
    /// Write entries and a hard state.
    Append(Append),
    /// Restart the log behind a snapshot. Always synced; covered by the answer to the `Append`
    /// that follows.
    Snapshot(SnapshotMarker),
    /// Nothing up to this index is needed any more: it is in sealed state.
    Release {
        /// The last index that is not needed.
        index: u64,
    },
    /// Sync what is written and end the thread.
    Stop,
}

/// What the log answers, on its own thread. Must not block for long: the log waits meanwhile.
pub trait WalEvents: Send + 'static {
    /// All requests up to this ready number (the highest of a group) are written, and synced if
    /// one of them asked for it.
    fn persisted(&mut self, ready_number: u64);
    /// The log has failed and its thread ends: the process must end too. Nothing that was not
    /// reported as persisted may be counted on.
    fn failed(&mut self, error: WalError);
}
