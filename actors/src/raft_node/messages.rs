//! What RaftNode takes and shows.

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::mvcc::Reply;
use crate::shared::Error;

/// A message from the faces or from other actors that want something.
#[derive(Debug)]
pub enum RaftMessage {
    /// Replicate and apply this.
    Propose(Propose),
    /// Tell when everything committed by now is applied.
    ReadIndex(ReadReply),
}

/// A proposal.
#[derive(Debug)]
pub struct Propose {
    /// Tells this member's proposals apart; never used twice, also not by an
    /// earlier run of the member.
    pub id: u64,
    /// The encoded request.
    pub data: Bytes,
    /// Who waits for the outcome.
    pub reply: Reply,
}

/// Who waits for a linearizable read's turn.
#[derive(Debug)]
pub struct ReadReply(pub oneshot::Sender<Result<(), Error>>);

impl ReadReply {
    /// Answers; a client that went away hears nothing.
    pub fn send(self, outcome: Result<(), Error>) {
        let _ = self.0.send(outcome);
    }
}

/// A message that gives credit back: something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaftCompletion {
    /// Everything up to this ready is durable.
    Persisted {
        /// The ready's number.
        ready: u64,
    },
    /// The state machine has applied the log up to here.
    Applied {
        /// The last applied index.
        index: u64,
    },
    /// A sealed checkpoint covers the log up to here.
    Sealed {
        /// The last index it covers.
        index: u64,
    },
}

/// What raft knows, for everyone to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftStatus {
    /// The leader's member id; 0 when none is known.
    pub leader: u64,
    /// Whether this member leads.
    pub is_leader: bool,
    /// Whether this member has no vote.
    pub is_learner: bool,
    /// The current term.
    pub term: u64,
    /// The last committed index.
    pub committed: u64,
    /// The last index that the state machine has applied.
    pub applied: u64,
    /// How often a leader was seen to come, the first time included.
    pub leader_changes: u64,
}
