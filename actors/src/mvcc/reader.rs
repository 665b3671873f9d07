//! Reading: ranges at the newest or an older revision.

use castd_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use castd_proto::etcdserverpb::{RangeRequest, RangeResponse};
use castd_proto::mvccpb::KeyValue;

use super::index::{Entry, Index};
use super::log::RevisionLog;
use super::record::Record;
use super::revision::{KeyRange, Revision};
use crate::shared::Error;

/// Everything a read needs. A transaction in progress reads its own changes
/// through `pending`; a published view has none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    pub(super) index: &'a Index,
    pub(super) log: &'a RevisionLog,
    /// Records of the batch in progress, in revision order, not yet in the log.
    pub(super) pending: &'a [Record],
    pub(super) revision: i64,
    pub(super) compact_revision: i64,
}

impl Reader<'_> {
    /// The record at `revision`.
    pub(super) fn record(&self, revision: Revision) -> Option<Record> {
        if self.pending.first().is_some_and(|first| first.revision <= revision) {
            let at = self.pending.binary_search_by_key(&revision, |record| record.revision).ok()?;
            return Some(self.pending[at].clone());
        }
        self.log.get(revision)
    }

    /// The newest change of a key at `revision`, given the newest of all; a
    /// deletion counts as none.
    pub(super) fn at(&self, newest: Entry, revision: i64) -> Option<Revision> {
        if newest.revision.main <= revision {
            return newest.is_live().then_some(newest.revision);
        }
        let mut record = self.record(newest.revision)?;
        while record.revision.main > revision {
            if record.previous == Revision::ZERO {
                return None;
            }
            record = self.record(record.previous)?;
        }
        (!record.is_tombstone()).then_some(record.revision)
    }

    /// Whether `revision` can be read at all.
    ///
    /// # Errors
    /// [`Error::FutureRevision`] or [`Error::Compacted`].
    pub(super) fn check_revision(&self, revision: i64) -> Result<(), Error> {
        if revision > self.revision {
            return Err(Error::FutureRevision);
        }
        if revision > 0 && revision < self.compact_revision {
            return Err(Error::Compacted);
        }
        Ok(())
    }

    /// Serves a range request as etcd does: the count is that of the whole
    /// range, filters come after it, sorting after the filters, and the limit
    /// last, except that a sort by another target than the key without an
    /// order gets its limit first.
    ///
    /// # Errors
    /// [`Error::FutureRevision`] or [`Error::Compacted`].
    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        self.check_revision(request.revision)?;
        let range = KeyRange::new(&request.key, &request.range_end);
        if request.count_only {
            let count = self.count(&range, request.revision);
            return Ok(RangeResponse { count, ..Default::default() });
        }
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let all = limit == 0 || must_see_all(request);
        let fetch = if all { usize::MAX } else { limit + 1 };
        let (mut kvs, count) = self.fetch(&range, request.revision, fetch);
        filter(&mut kvs, request);
        sort(&mut kvs, request);
        let more = limit > 0 && kvs.len() > limit;
        if more {
            kvs.truncate(limit);
        }
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        Ok(RangeResponse { header: None, kvs, more, count })
    }

    /// Number of keys in `range` at `revision` (0 and the newest: O(log n)).
    fn count(&self, range: &KeyRange, revision: i64) -> i64 {
        if self.is_newest(revision) {
            return clamp(self.index.count(range));
        }
        let live = self.index.iter_range(range).filter(|(_, e)| self.at(*e, revision).is_some());
        clamp(live.count() as u64)
    }

    /// The first `most` pairs of `range`, and how many there are in all.
    fn fetch(&self, range: &KeyRange, revision: i64, most: usize) -> (Vec<KeyValue>, i64) {
        if let KeyRange::Single(key) = range {
            let found = self.index.get(key).and_then(|entry| self.value(entry, revision));
            let count = i64::from(found.is_some());
            return (found.into_iter().collect(), count);
        }
        let mut kvs = Vec::new();
        if self.is_newest(revision) {
            let live = self.index.iter_range(range).filter(|(_, entry)| entry.is_live());
            kvs.extend(live.take(most).filter_map(|(_, entry)| self.value(entry, 0)));
            return (kvs, clamp(self.index.count(range)));
        }
        let mut count = 0;
        for (_, entry) in self.index.iter_range(range) {
            let Some(found) = self.at(entry, revision) else { continue };
            count += 1;
            if kvs.len() < most {
                kvs.extend(self.record(found).map(|record| record.to_key_value()));
            }
        }
        (kvs, count)
    }

    fn value(&self, entry: Entry, revision: i64) -> Option<KeyValue> {
        let found = match self.is_newest(revision) {
            true => entry.is_live().then_some(entry.revision)?,
            false => self.at(entry, revision)?,
        };
        self.record(found).map(|record| record.to_key_value())
    }

    fn is_newest(&self, revision: i64) -> bool {
        revision <= 0 || revision == self.revision
    }
}

/// Whether the limit can be applied only after all pairs were seen.
fn must_see_all(request: &RangeRequest) -> bool {
    request.sort_order != SortOrder::None as i32
        || request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn filter(kvs: &mut Vec<KeyValue>, request: &RangeRequest) {
    let keep_at_most = |bound: i64, value: i64| bound == 0 || value <= bound;
    let keep_at_least = |bound: i64, value: i64| bound == 0 || value >= bound;
    kvs.retain(|kv| {
        keep_at_most(request.max_mod_revision, kv.mod_revision)
            && keep_at_least(request.min_mod_revision, kv.mod_revision)
            && keep_at_most(request.max_create_revision, kv.create_revision)
            && keep_at_least(request.min_create_revision, kv.create_revision)
    });
}

fn sort(kvs: &mut [KeyValue], request: &RangeRequest) {
    let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
    match target {
        // Pairs come in key order.
        SortTarget::Key => {}
        SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
        SortTarget::Create => kvs.sort_by_key(|kv| kv.create_revision),
        SortTarget::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
        SortTarget::Value => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
    }
    if request.sort_order == SortOrder::Descend as i32 {
        kvs.reverse();
    }
}

/// Counts fit into etcd's signed field.
fn clamp(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
