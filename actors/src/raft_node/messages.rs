//! What RaftNode takes and shows.

use bytes::Bytes;
use raft::eraftpb::{ConfChange, Message};
use tokio::sync::oneshot;

use crate::mvcc::Reply;
use crate::shared::Error;
use crate::snapshot::Arrived;

/// A message from the faces or from other actors that want something.
#[derive(Debug)]
pub enum RaftMessage {
    /// Replicate and apply this.
    Propose(Propose),
    /// Tell when everything committed by now is applied.
    ReadIndex(ReadReply),
    /// Replicate and apply a change of the membership.
    ChangeMembers(ProposeMembers),
    /// Make this member the leader instead of us.
    TransferLeader {
        /// The member; 0 for whoever is furthest and reachable.
        to: u64,
        /// Told when it leads, or why it does not.
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// How far the others are.
    Progress {
        /// For each other member the last index it is known to have;
        /// [`Error::NotLeader`] when this member does not know.
        reply: oneshot::Sender<Result<Vec<(u64, u64)>, Error>>,
    },
}

/// What comes in from other members by way of PeerTransport. `S` is a received
/// state; tests and simulations carry theirs in memory.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a mailbox of a few hundred holds them")]
pub enum RaftInbound<S = Arrived> {
    /// Messages for raft, in the order of their lane.
    Step(Vec<Message>),
    /// A snapshot message whose state is in this member's memory already.
    Snapshot {
        /// raft's message; its snapshot carries no data.
        message: Message,
        /// The state.
        state: S,
        /// Let go of when the sender may go on.
        hold: SnapshotHold,
    },
    /// Messages to this member are being lost.
    Unreachable(u64),
    /// What became of a snapshot that was to be sent.
    SnapshotSent {
        /// The member it was for.
        to: u64,
        /// Whether it arrived.
        arrived: bool,
    },
}

/// Kept until a snapshot that came is in force and durable, or turns out to be of no use.
/// The sender's call lasts as long, so its raft sends nothing else in vain meanwhile.
#[derive(Debug)]
pub struct SnapshotHold {
    _released: oneshot::Sender<()>,
}

impl SnapshotHold {
    /// A hold, and what ends (with an error, that says nothing) when it is let go of.
    pub fn new() -> (Self, oneshot::Receiver<()>) {
        let (released, release) = oneshot::channel();
        (Self { _released: released }, release)
    }
}

/// A proposal that changes the membership.
#[derive(Debug)]
pub struct ProposeMembers {
    /// As [`Propose::id`].
    pub id: u64,
    /// The change; its context is an encoded `castdpb.MemberChange`.
    pub change: ConfChange,
    /// Who waits for the outcome.
    pub reply: Reply,
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
#[derive(Clone, Debug, PartialEq)]
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
    /// The state machine is that of the snapshot at this index, durably.
    Installed {
        /// The snapshot's index.
        index: u64,
    },
    /// What became of membership changes that were committed; sent before the
    /// batch they were in goes on to Mvcc, so it arrives before its `Applied`.
    ConfChanges(Vec<ConfChange>),
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
    /// Members with a vote, as far as this member has applied.
    pub voters: u64,
    /// Members without a vote, as far as this member has applied.
    pub learners: u64,
    /// Read index rounds that took longer than a retry's time.
    pub slow_read_indexes: u64,
    /// Messages with entries that were not taken, because too many waited already.
    pub refused_appends: u64,
}
