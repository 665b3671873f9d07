//! What can happen.

use std::cmp::Ordering;

use super::network::{Held, Parcel};
use crate::door::{CallId, Failure, Reply, Request};
use crate::member::Part;
use crate::time::Nanos;
use crate::weather::Fault;

/// Something that comes again and again while a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// raft's tick.
    Raft,
    /// LeaseManager's.
    Leases,
    /// Compactor's.
    Compactor,
    /// Progress notifications are due.
    Progress,
}

/// Something that happens. `life` tells the processes of a member apart: what was meant
/// for one does not reach the next.
pub(crate) enum Event {
    /// A member's process starts.
    Start { member: u64 },
    /// An actor has its turn.
    Turn { member: u64, life: u16, part: Part },
    /// A beat of a shell.
    Beat { member: u64, life: u16, beat: Beat },
    /// A pause that a shell has made is over.
    Pause { member: u64, life: u16, part: Part, pause: u64 },
    /// A link is tried.
    Connect { from: u64, life: u16, to: u64 },
    /// A link is found to be broken.
    Break { from: u64, life: u16, to: u64 },
    /// Something comes to a member from another one.
    Arrive(Box<Parcel>),
    /// The sender of a snapshot learns what became of it.
    SnapshotSent { from: u64, life: u16, to: u64, arrived: bool },
    /// A member has a snapshot, and its sender waits until it is in force.
    SnapshotHeld(Box<Held>),
    /// Nobody answered a member's question in time.
    Unanswered { member: u64, question: u64 },
    /// A client's call reaches a member.
    Request { call: CallId, member: u64, request: Box<Request> },
    /// A client hears what became of its call.
    Answer { call: CallId, outcome: Box<Result<Reply, Failure>> },
    /// A client does what it has planned.
    Client { client: usize, token: u64 },
    /// A fault begins or ends.
    Fault(Fault),
}

/// When an event is; what is at the same time comes in the order it was arranged in.
pub(super) struct Moment {
    pub(super) at: Nanos,
    pub(super) sequence: u64,
    pub(super) event: Event,
}

impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Moment {}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Moment {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}
