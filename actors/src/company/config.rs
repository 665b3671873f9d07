//! How a member is to run.

use std::num::NonZeroUsize;
use std::time::Duration;

use prometheus::Registry;

use super::members::MembershipRules;
use crate::compactor::{AutoCompaction, ScrubPace};
use crate::mvcc::SealPolicy;
use crate::shared::FatalReport;

/// Where the shards of the watch hub run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchThreads {
    /// One shard, on the thread that carries consensus.
    Consensus,
    /// So many shards, each on a thread of its own.
    Own(NonZeroUsize),
}

impl WatchThreads {
    pub(super) fn shards(self) -> usize {
        match self {
            Self::Consensus => 1,
            Self::Own(shards) => shards.get(),
        }
    }
}

/// How a member is to run.
#[derive(Clone)]
pub struct CompanyConfig {
    /// The heartbeat interval, which is raft's tick.
    pub heartbeat: Duration,
    /// The election timeout.
    pub election: Duration,
    /// Whether candidates ask first whether they could win.
    pub pre_vote: bool,
    /// Whether the only voter makes itself leader at once, without waiting for
    /// an election timeout.
    pub campaign_at_once: bool,
    /// Which changes of the membership are refused.
    pub rules: MembershipRules,
    /// A batch that takes longer to apply is logged.
    pub slow_apply: Duration,
    /// Applied entries in memory before the log there is compacted.
    pub snapshot_count: u64,
    /// Entries kept in memory when it is.
    pub catchup_entries: u64,
    /// Bytes of a leader's entries that may wait for this member's disk and store. Beyond
    /// them it takes no more for now.
    pub backlog_bytes_max: u64,
    /// When a checkpoint is due.
    pub seal: SealPolicy,
    /// Automatic compaction.
    pub compaction: AutoCompaction,
    /// The pace at which compaction frees what it gave up.
    pub scrub: ScrubPace,
    /// Where the watch hub runs.
    pub watch_threads: WatchThreads,
    /// How often silent watchers are told how far they are.
    pub watch_progress: Duration,
    /// Watch responses above this are sent in fragments to those who asked, in bytes.
    pub watch_fragment_bytes: usize,
    /// The version that other members are told, as `3.7.1`.
    pub version: String,
    /// Where figures are registered.
    pub registry: Registry,
    /// Told when the member cannot go on; must end the process.
    pub fatal: FatalReport,
}

impl std::fmt::Debug for CompanyConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompanyConfig").field("seal", &self.seal).finish_non_exhaustive()
    }
}
