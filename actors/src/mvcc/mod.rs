//! Mvcc: the store of keys in all their revisions.
//!
//! Owns the key index, the revision log, the leases' keys; its thread is their
//! one writer. Receives committed operations and snapshots from ApplyLoop in log
//! order, pieces of work from Compactor, seals from Checkpointer. Sends events to
//! WatchHub, lease changes to LeaseManager, answers to whoever proposed, and
//! publishes an immutable [`View`] after each batch, which is all that readers
//! ever see. Never decides by a clock, and reads nothing from a disk but a snapshot
//! that it installs.

mod actor;
mod block;
mod changes;
#[cfg(test)]
mod changes_tests;
mod checkpoint;
mod hash;
mod index;
#[cfg(test)]
mod install_model;
#[cfg(test)]
mod install_tests;
mod leases;
mod log;
mod messages;
mod metrics;
mod reader;
mod record;
mod reply;
mod revision;
mod scrub;
mod seal;
mod store;
#[cfg(test)]
mod tests;
mod txn;
mod view;

pub use actor::{Mvcc, MvccEdges, SealPolicy};
pub(crate) use block::Block;
pub use changes::{Changes, PieceLimits};
pub use checkpoint::{Origin, StoreMeta};
pub use hash::HashKv;
pub use index::Entry;
pub use messages::{
    Answer, Applied, ApplyBatch, EventBatch, LeaseChange, LeaseKeys, MvccMessage, Operation,
    OperationKind, OperationName, Outcome,
};
pub use metrics::MvccMetrics;
pub use record::Record;
pub use reply::{Courier, Delivery, Reply};
pub use revision::{KeyRange, Revision};
pub use scrub::ScrubProgress;
pub use store::Store;
pub use view::View;
