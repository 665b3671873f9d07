//! ApplyLoop: turns the committed log into operations, in order.
//!
//! Owns the cluster's state (members, alarms, version) and decides what a
//! committed entry means under it. Receives committed entries from RaftNode,
//! sends batches of operations to Mvcc and word of compactions to Compactor;
//! changes of the membership go to RaftNode and PeerTransport before that.
//! Never answers a client itself: outcomes it decides travel through Mvcc with
//! the others, so that answers come in log order and after the view shows them.

mod actor;
mod core;
mod membership;

use raft::eraftpb::Entry;

pub use actor::{ApplyEdges, ApplyLoop};
pub use core::{ApplyCore, Plan};
pub use membership::{conf_change, member_change};

use crate::mvcc::Reply;
use crate::snapshot::Arrived;

/// What ApplyLoop takes from RaftNode, in log order.
#[derive(Debug)]
pub enum ApplyMessage {
    /// Apply these.
    Committed(Committed),
    /// Go on from the state of a snapshot; it replaces everything.
    Install(Install),
}

/// A snapshot that raft has accepted.
#[derive(Debug)]
pub struct Install {
    /// The last index it covers.
    pub index: u64,
    /// The term of that index.
    pub term: u64,
    /// The state.
    pub state: Arrived,
}

/// A batch of committed entries, in order.
#[derive(Debug)]
pub struct Committed {
    /// The entries.
    pub entries: Vec<CommittedEntry>,
}

/// A committed entry and whoever proposed it on this member.
#[derive(Debug)]
pub struct CommittedEntry {
    /// The entry.
    pub entry: Entry,
    /// Who waits for its outcome.
    pub reply: Option<Reply>,
}
