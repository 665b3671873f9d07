//! An immutable view of the store, for readers.

use std::sync::Arc;

use castd_proto::etcdserverpb::{RangeRequest, RangeResponse};

use super::index::Index;
use super::log::RevisionLog;
use super::reader::Reader;
use super::record::Record;
use super::revision::Revision;
use crate::cluster::ClusterState;
use crate::shared::Error;

/// Everything as it was after one batch. It never changes, whatever the writer
/// does, so a reader needs no lock and a long walk disturbs nobody.
#[derive(Clone, Debug)]
pub struct View {
    pub(super) index: Index,
    pub(super) log: RevisionLog,
    pub(super) revision: i64,
    pub(super) compact_revision: i64,
    pub(super) dead_bytes: u64,
    pub(super) applied_index: u64,
    pub(super) applied_term: u64,
    pub(super) cluster: Arc<ClusterState>,
}

impl View {
    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The revision below which history was given up; -1 when it never was.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// The raft index up to which this view has applied the log.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// The raft term of the entry at [`View::applied_index`].
    pub fn applied_term(&self) -> u64 {
        self.applied_term
    }

    /// Members, alarms and the cluster's version.
    pub fn cluster(&self) -> &ClusterState {
        &self.cluster
    }

    /// Serves a range request, which must have been validated.
    ///
    /// # Errors
    /// [`Error::FutureRevision`] or [`Error::Compacted`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        self.reader().range(request)
    }

    /// Bytes of all records, those that are free to be reclaimed included.
    pub fn db_size(&self) -> u64 {
        self.log.bytes()
    }

    /// Bytes of the records that are still needed.
    pub fn db_size_in_use(&self) -> u64 {
        self.log.bytes().saturating_sub(self.dead_bytes)
    }

    /// Number of keys that exist.
    pub fn keys(&self) -> u64 {
        self.index.live()
    }

    /// The record at `revision`, if history still has it.
    pub fn record(&self, revision: Revision) -> Option<Record> {
        self.log.get(revision)
    }

    /// The records at or behind `from`, in order.
    pub fn records_from(&self, from: Revision) -> impl Iterator<Item = Record> {
        self.log.records_from(from)
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader {
            index: &self.index,
            log: &self.log,
            pending: &[],
            revision: self.revision,
            compact_revision: self.compact_revision,
        }
    }
}
