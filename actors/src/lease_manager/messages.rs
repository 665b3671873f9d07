//! What LeaseManager takes.

use tokio::sync::oneshot;

use crate::mvcc::LeaseChange;
use crate::shared::Error;

/// What LeaseManager takes.
#[derive(Debug)]
pub enum LeaseMessage {
    /// The state machine's leases changed.
    Changed(Vec<LeaseChange>),
    /// The state machine is another one, with these leases: for each its id,
    /// granted seconds, and seconds left at its last checkpoint (0 for none).
    Reset(Vec<(i64, i64, i64)>),
    /// Give the lease its full time again; answers with that time in seconds,
    /// or 0 when there is no such lease.
    KeepAlive {
        /// The lease's id.
        id: i64,
        /// Whether another member asks: it hears [`Error::NotLeader`] at once
        /// where a client's request is passed on to the leader.
        from_peer: bool,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<i64, Error>>,
    },
    /// How long the lease has; `None` when there is no such lease, and
    /// [`Error::NotLeader`] from a member that does not know.
    TimeToLive {
        /// The lease's id.
        id: i64,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Option<Remaining>, Error>>,
    },
    /// The next leases in order of their ids, [`LIST_PIECE`](super::LIST_PIECE) of
    /// them or all there are, as far as this member knows.
    List {
        /// Only leases with ids above this one; `None` for the first ones.
        after: Option<i64>,
        /// Where the answer goes: for each lease, when it ends by a clock of
        /// LeaseManager's own, and its id.
        reply: oneshot::Sender<Vec<(u64, i64)>>,
    },
    /// From LeaseManager to itself, so that it comes behind the changes that
    /// the read index speaks of: a read index is there.
    Confirmed {
        /// What it was for.
        ticket: u64,
        /// Whether it came, or an error instead.
        came: bool,
    },
}

/// How long a lease has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Seconds that were granted.
    pub granted_ttl_s: i64,
    /// Seconds left, rounded down.
    pub ttl_s: i64,
}
