//! The key-value state machine: what writes do.
//!
//! Owns the index, the revision log, the leases and the two revisions that
//! bound history. Takes decoded operations in log order and gives their
//! outcomes; everything here is a pure function of that order.

use std::sync::Arc;

use bytes::Bytes;
use castd_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest,
    PutResponse,
};
use castd_proto::mvccpb::KeyValue;

use super::block::{BLOCK_BYTES, BlockBuilder};
use super::index::{Entry, Index};
use super::leases::LeaseTable;
use super::log::RevisionLog;
use super::reader::Reader;
use super::record::Record;
use super::revision::{KeyRange, Revision};
use super::scrub::Scrubber;
use super::view::View;
use crate::cluster::ClusterState;
use crate::shared::Error;

/// The compact revision of a store that was never compacted, as in etcd.
const NEVER_COMPACTED: i64 = -1;

/// The revision of an empty store.
const FIRST_REVISION: i64 = 1;

/// The state machine; see the module's text.
#[derive(Debug)]
pub struct Store {
    pub(super) index: Index,
    pub(super) log: RevisionLog,
    pub(super) leases: LeaseTable,
    pub(super) revision: i64,
    pub(super) compact_revision: i64,
    pub(super) scrubber: Scrubber,
    /// Records of the batch in progress.
    pub(super) pending: Vec<Record>,
    /// Writes of the batch in progress.
    writes: Writes,
}

/// How many writes were done, those inside of transactions included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// Puts.
    pub puts: u64,
    /// Deletions: one for each range, whatever is in it, and one for each key
    /// that ends with its lease.
    pub deletes: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            index: Index::default(),
            log: RevisionLog::default(),
            leases: LeaseTable::default(),
            revision: FIRST_REVISION,
            compact_revision: NEVER_COMPACTED,
            scrubber: Scrubber::default(),
            pending: Vec::new(),
            writes: Writes::default(),
        }
    }
}

/// One transaction in progress: all its changes share a revision, which counts
/// only if there is a change.
#[derive(Debug)]
pub(super) struct Transaction {
    main: i64,
    changes: u32,
}

impl Transaction {
    fn next(&mut self) -> Revision {
        let revision = Revision::new(self.main, self.changes);
        self.changes += 1;
        revision
    }
}

impl Store {
    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The revision below which history was given up; -1 when it never was.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// The leases.
    pub fn leases(&self) -> &LeaseTable {
        &self.leases
    }

    pub(super) fn begin(&self) -> Transaction {
        Transaction { main: self.revision + 1, changes: 0 }
    }

    pub(super) fn commit(&mut self, transaction: &Transaction) {
        if transaction.changes > 0 {
            self.revision = transaction.main;
        }
    }

    /// What the store looks like in the middle of `transaction`.
    pub(super) fn reader(&self, transaction: Option<&Transaction>) -> Reader<'_> {
        let own = transaction.is_some_and(|transaction| transaction.changes > 0);
        Reader {
            index: &self.index,
            log: &self.log,
            pending: &self.pending,
            revision: self.revision + i64::from(own),
            compact_revision: self.compact_revision,
        }
    }

    /// Applies a put of its own.
    ///
    /// # Errors
    /// [`Error::KeyNotFound`] or [`Error::LeaseNotFound`], and nothing happens.
    pub fn put(&mut self, request: PutRequest) -> Result<PutResponse, Error> {
        self.check_put(&request)?;
        let mut transaction = self.begin();
        let response = self.put_in(&mut transaction, request);
        self.commit(&transaction);
        Ok(response)
    }

    /// Applies a deletion of its own.
    pub fn delete_range(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let mut transaction = self.begin();
        let response = self.delete_range_in(&mut transaction, request);
        self.commit(&transaction);
        response
    }

    /// Whether a put can be done.
    pub(super) fn check_put(&self, request: &PutRequest) -> Result<(), Error> {
        if request.ignore_value || request.ignore_lease {
            let live = self.index.get(&request.key).is_some_and(|entry| entry.is_live());
            if !live {
                return Err(Error::KeyNotFound);
            }
        }
        if request.lease != 0 && !self.leases.contains(request.lease) {
            return Err(Error::LeaseNotFound);
        }
        Ok(())
    }

    pub(super) fn put_in(
        &mut self,
        transaction: &mut Transaction,
        request: PutRequest,
    ) -> PutResponse {
        self.writes.puts += 1;
        let revision = transaction.next();
        let ignore_lease = request.ignore_lease;
        let (before, after) = self.index.update(&request.key, |before| {
            let live = before.filter(Entry::is_live);
            Entry {
                revision,
                create_revision: live.map_or(revision.main, |entry| entry.create_revision),
                version: live.map_or(0, |entry| entry.version) + 1,
                lease: if ignore_lease { live.map_or(0, |e| e.lease) } else { request.lease },
            }
        });
        let live = before.filter(Entry::is_live);
        self.leases.attach(&request.key, live.map_or(0, |entry| entry.lease), after.lease);
        let needs_old = request.prev_kv || request.ignore_value;
        let old = live.filter(|_| needs_old).and_then(|entry| self.key_value(entry));
        let value = match &old {
            Some(old) if request.ignore_value => old.value.clone(),
            _ => request.value,
        };
        self.pending.push(Record {
            revision,
            previous: before.map_or(Revision::ZERO, |entry| entry.revision),
            create_revision: after.create_revision,
            version: after.version,
            lease: after.lease,
            key: request.key,
            value,
        });
        PutResponse { header: None, prev_kv: old.filter(|_| request.prev_kv) }
    }

    pub(super) fn delete_range_in(
        &mut self,
        transaction: &mut Transaction,
        request: &DeleteRangeRequest,
    ) -> DeleteRangeResponse {
        self.writes.deletes += 1;
        let range = KeyRange::new(&request.key, &request.range_end);
        let doomed: Vec<(Bytes, Entry)> = match &range {
            KeyRange::Single(key) => {
                self.index.get(key).map(|entry| (key.clone(), entry)).into_iter().collect()
            }
            _ => self
                .index
                .iter_range(&range)
                .map(|(key, entry)| (Bytes::copy_from_slice(key), entry))
                .collect(),
        };
        let mut response = DeleteRangeResponse::default();
        for (key, entry) in doomed.into_iter().filter(|(_, entry)| entry.is_live()) {
            if request.prev_kv {
                response.prev_kvs.extend(self.key_value(entry));
            }
            response.deleted += 1;
            self.delete_key(transaction, key);
        }
        response
    }

    /// Writes the tombstone of a live key.
    fn delete_key(&mut self, transaction: &mut Transaction, key: Bytes) {
        let revision = transaction.next();
        let tombstone = Entry { revision, create_revision: 0, version: 0, lease: 0 };
        let before = self.index.set(&key, tombstone);
        self.leases.attach(&key, before.map_or(0, |entry| entry.lease), 0);
        self.pending.push(Record {
            revision,
            previous: before.map_or(Revision::ZERO, |entry| entry.revision),
            create_revision: 0,
            version: 0,
            lease: 0,
            key,
            value: Bytes::new(),
        });
    }

    /// Grants a lease.
    ///
    /// # Errors
    /// [`Error::LeaseExists`].
    pub fn lease_grant(
        &mut self,
        request: &LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, Error> {
        self.leases.grant(request.id, request.ttl)?;
        Ok(LeaseGrantResponse { id: request.id, ttl: request.ttl, ..Default::default() })
    }

    /// Revokes a lease and deletes the keys it holds in one transaction.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`].
    pub fn lease_revoke(
        &mut self,
        request: &LeaseRevokeRequest,
    ) -> Result<LeaseRevokeResponse, Error> {
        let keys = self.leases.revoke(request.id)?;
        let mut transaction = self.begin();
        for key in keys {
            self.writes.deletes += 1;
            self.delete_key(&mut transaction, Bytes::from(key));
        }
        self.commit(&transaction);
        Ok(LeaseRevokeResponse::default())
    }

    /// Notes how much time a lease has left.
    pub fn lease_checkpoint(&mut self, id: i64, remaining_s: i64) {
        self.leases.checkpoint(id, remaining_s);
    }

    /// Gives up history below `request.revision`. What that frees is found and
    /// freed later, piece by piece ([`Store::scrub`]).
    ///
    /// # Errors
    /// [`Error::Compacted`] or [`Error::FutureRevision`].
    pub fn compact(&mut self, request: &CompactionRequest) -> Result<CompactionResponse, Error> {
        if request.revision <= self.compact_revision {
            return Err(Error::Compacted);
        }
        if request.revision > self.revision {
            return Err(Error::FutureRevision);
        }
        self.compact_revision = request.revision;
        Ok(CompactionResponse::default())
    }

    /// Ends a batch: its records move into the log and are given to be
    /// announced.
    pub fn finish_batch(&mut self) -> Vec<Record> {
        let records = std::mem::take(&mut self.pending);
        let mut builder = BlockBuilder::default();
        for record in &records {
            builder.push(record);
            if builder.bytes() >= BLOCK_BYTES {
                self.log_block(std::mem::take(&mut builder));
            }
        }
        self.log_block(builder);
        records
    }

    /// How many writes were done since this was asked last.
    pub fn take_writes(&mut self) -> Writes {
        std::mem::take(&mut self.writes)
    }

    fn log_block(&mut self, builder: BlockBuilder) {
        if let Some(block) = builder.finish() {
            self.log.push(block);
        }
    }

    /// An immutable view of the store as it stands between two batches.
    pub fn view(&self, applied_index: u64, applied_term: u64, cluster: Arc<ClusterState>) -> View {
        View {
            index: self.index.clone(),
            log: self.log.clone(),
            revision: self.revision,
            compact_revision: self.compact_revision,
            dead_bytes: self.scrubber.dead_bytes(),
            applied_index,
            applied_term,
            cluster,
        }
    }

    fn key_value(&self, entry: Entry) -> Option<KeyValue> {
        self.reader(None).record(entry.revision).map(|record| record.to_key_value())
    }
}
