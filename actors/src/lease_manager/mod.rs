//! LeaseManager: when leases expire.
//!
//! Owns the clock side of leases: for each one, when it ends. Which leases
//! there are and which keys they hold is state, kept by Mvcc; this actor hears
//! of changes to it. Receives keep-alives and questions from the faces. Sends
//! revocations as proposals, at a bounded pace. Only the leader expires
//! leases; whoever becomes leader gives every lease its full time again,
//! because nobody knows what the previous one promised.

mod actor;
mod core;
mod metrics;

use tokio::sync::oneshot;

pub use actor::{LeaseEdges, LeaseManager};
pub use core::{LeaseCore, LeaseSettings};
pub use metrics::LeaseMetrics;

use crate::mvcc::LeaseChange;
use crate::shared::Error;

/// What LeaseManager takes.
#[derive(Debug)]
pub enum LeaseMessage {
    /// The state machine's leases changed.
    Changed(Vec<LeaseChange>),
    /// The state machine's leases are these now, whatever they were: id, granted
    /// seconds, seconds left at the last checkpoint of the lease (0 for none).
    Reset(Vec<(i64, i64, i64)>),
    /// Give the lease its full time again; answers with that time in seconds,
    /// or 0 when there is no such lease.
    KeepAlive {
        /// The lease's id.
        id: i64,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<i64, Error>>,
    },
    /// How long the lease has; `None` when there is no such lease.
    TimeToLive {
        /// The lease's id.
        id: i64,
        /// Where the answer goes.
        reply: oneshot::Sender<Option<Remaining>>,
    },
    /// All leases, the one that ends first in front.
    List {
        /// Where the answer goes.
        reply: oneshot::Sender<Vec<i64>>,
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
