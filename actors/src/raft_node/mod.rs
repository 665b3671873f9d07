//! RaftNode: this member's voice in the consensus.
//!
//! Owns raft's state machine and the recent part of its log in memory.
//! Receives proposals and read requests from the faces, ticks of the clock,
//! and completions: what the WAL has made durable, what Mvcc has applied, what
//! a checkpoint has sealed. Sends appends to WalWriter, committed entries to
//! ApplyLoop, messages to PeerTransport, and publishes [`RaftStatus`]. Never
//! touches a disk, a socket or a clock of its own, and never waits: what does
//! not fit into a window stays inside raft until credit comes back.

mod actor;
mod catch_up;
mod coalesce;
mod core;
mod guard;
mod leadership;
mod log_store;
mod logger;
mod membership;
mod messages;
mod metrics;
mod proposals;
mod reads;
mod restraint;
mod settings;
#[cfg(test)]
mod sim;
mod status;
#[cfg(test)]
mod tests;

pub use actor::{RaftEdges, RaftNode};
pub use core::{APPEND_WINDOW, COMMIT_WINDOW, RaftCore};
pub use log_store::LogStore;
pub use messages::{
    Propose, ProposeMembers, RaftCompletion, RaftInbound, RaftMessage, RaftStatus, ReadReply,
    SnapshotHold,
};
pub use metrics::RaftMetrics;
pub use settings::{Accepted, Effects, RaftSettings};
