//! Compactor: gives up old history by itself, and frees what was given up.
//!
//! Owns the schedule of automatic compaction and the pace of scrubbing.
//! Receives word from ApplyLoop that history was given up. Sends compactions
//! as proposals (on the leader only) and pieces of scrubbing to Mvcc, one at a
//! time with a pause between, so that no client notices.

mod actor;
mod core;

pub use actor::{Compactor, CompactorEdges, LOOK, ScrubPace};
pub use core::{AutoCompaction, Schedule};

/// What Compactor takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactorMessage {
    /// The compact revision moved: there is something to free.
    Compacted,
}
