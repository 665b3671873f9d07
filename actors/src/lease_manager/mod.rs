//! LeaseManager: when leases expire.
//!
//! Owns the clock side of leases: for each one, when it ends, and the
//! keep-alives that wait for an answer. Which leases there are and which keys
//! they hold is state, kept by Mvcc; this actor hears of changes to it.
//! Receives keep-alives and questions from the faces and from other members.
//! Sends revocations and checkpoints as proposals, at a bounded pace, and
//! passes keep-alives on to the leader. Never ends a lease on a follower.
//!
//! What it promises: a lease for which a keep-alive was answered lives for its
//! whole time from then on, whoever leads.
//! - A new leader gives every lease its full time again and an election timeout
//!   on top, since nobody knows what the leader before it promised. A leader
//!   that was cut off renews for no longer than that before it knows.
//! - For a lease that has more than five minutes left, the leader notes now and
//!   then in the log how much: a new leader starts there. Before such a lease
//!   is renewed, the log must say that it has all of its time again.
//! - Revocations and checkpoints carry the term of the leader that decided
//!   them, and mean nothing if a leader of another term puts them in the log: a
//!   member that was deposed while it stood still cannot end what its successor
//!   renewed.
//! - A time in which the member stood still does not count.
//!
//! It runs on the thread of consensus, so nothing it does for all leases is done
//! in one go: neither a promotion nor a list.

mod actor;
mod calendar;
mod clock;
mod core;
mod messages;
mod metrics;
mod promotion;
mod renewals;
#[cfg(test)]
mod tests;

pub use actor::{LIST_PIECE, LeaseEdges, LeaseManager, TICK};
pub use core::{KeepAlive, LeaseCore, LeaseSettings};
pub use messages::{LeaseMessage, Remaining};
pub use metrics::LeaseMetrics;
pub use renewals::{RenewalSettings, Renewals, Role, Step, Work};
