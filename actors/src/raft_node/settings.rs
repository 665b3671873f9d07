//! How RaftNode is to behave, and what it wants done.

use raft::eraftpb::Message;

use super::messages::RaftStatus;
use crate::apply_loop::Committed;
use crate::snapshot::Arrived;
use crate::wal_writer::{Append, SnapshotMarker};

/// How raft is to behave. Times are in ticks, which are heartbeat intervals.
#[derive(Clone, Debug)]
pub struct RaftSettings {
    /// This member.
    pub member_id: u64,
    /// Ticks without a leader before an election.
    pub election_ticks: usize,
    /// Whether a candidate asks first whether it could win.
    pub pre_vote: bool,
    /// Whether the only voter makes itself leader at once, and a cluster that
    /// starts does not wait for a whole election timeout.
    pub campaign_at_once: bool,
    /// Applied entries kept in memory before the log there is compacted.
    pub snapshot_count: u64,
    /// Applied entries kept when it is.
    pub catchup_entries: u64,
    /// The index that the loaded state covers.
    pub applied: u64,
    /// Distinguishes this run's read contexts from all others'.
    pub run: u64,
    /// Ticks after which a proposal or a read without an outcome is given up.
    pub request_timeout_ticks: u64,
    /// Bytes of entries that may wait for this member's disk and store. Beyond them it takes
    /// no more from the leader for now.
    pub backlog_bytes_max: u64,
    /// Ticks after which a read index that nobody confirmed is asked for again.
    pub read_retry_ticks: u64,
    /// Chooses the election timeouts; members should not share one.
    pub seed: u64,
}

/// What has to be done after a step.
#[derive(Debug)]
pub struct Effects<S = Arrived> {
    /// For the WAL, before the appends: the log goes on behind a snapshot.
    pub marker: Option<SnapshotMarker>,
    /// For the WAL, in order.
    pub appends: Vec<Append>,
    /// For ApplyLoop, in order.
    pub committed: Vec<Committed>,
    /// For ApplyLoop, after what is committed.
    pub install: Option<Accepted<S>>,
    /// For the peers.
    pub messages: Vec<Message>,
    /// The log up to this index is no longer needed on disk.
    pub release: Option<u64>,
    /// The new status, if it changed.
    pub status: Option<RaftStatus>,
    /// This member cannot go on, and why.
    pub fatal: Option<String>,
}

impl<S> Default for Effects<S> {
    fn default() -> Self {
        Self {
            marker: None,
            appends: Vec::new(),
            committed: Vec::new(),
            install: None,
            messages: Vec::new(),
            release: None,
            status: None,
            fatal: None,
        }
    }
}

/// A received snapshot that raft has accepted.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The last index it covers.
    pub index: u64,
    /// The term of that index.
    pub term: u64,
    /// The state.
    pub state: S,
}
