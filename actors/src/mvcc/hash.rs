//! Hashes of the store, equal to those that etcd computes for the same history.
//!
//! etcd hashes its key bucket with CRC-32C: the bucket's name, then for each
//! record its revision as a database key (8 bytes of main, `_`, 8 bytes of sub,
//! and `t` for a deletion) and the encoded pair.

use castd_proto::mvccpb::KeyValue;
use prost::Message;

use super::record::Record;
use super::revision::Revision;
use super::view::View;
use crate::shared::Error;

/// The bucket that etcd keeps its records in.
const BUCKET: &[u8] = b"key";

/// A hash of the store up to a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C as etcd computes it.
    pub hash: u32,
    /// The compact revision at the time; -1 when there was no compaction yet.
    pub compact_revision: i64,
    /// The revision up to which records were hashed.
    pub hash_revision: i64,
    /// The newest revision at the time.
    pub revision: i64,
}

impl View {
    /// Hashes history up to `revision`, 0 for the newest. Records below the
    /// compact revision count only if they are what a read at `revision` finds,
    /// so members that have freed more or less of them agree. Walks everything.
    ///
    /// # Errors
    /// [`Error::Compacted`] or [`Error::FutureRevision`].
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, Error> {
        self.reader().check_revision(revision)?;
        let upto = if revision <= 0 { self.revision } else { revision };
        let mut hash = crc32c::crc32c(BUCKET);
        for record in self.records_from(Revision::ZERO) {
            if record.revision.main > upto {
                break;
            }
            if record.revision.main > self.compact_revision || self.is_found_at(&record, upto) {
                hash = add(hash, &record);
            }
        }
        Ok(HashKv {
            hash,
            compact_revision: self.compact_revision,
            hash_revision: upto,
            revision: self.revision,
        })
    }

    /// Hashes every record that is there.
    pub fn hash(&self) -> u32 {
        self.records_from(Revision::ZERO).fold(crc32c::crc32c(BUCKET), |hash, r| add(hash, &r))
    }

    /// Whether a read of the record's key at `revision` finds this record.
    pub(super) fn is_found_at(&self, record: &Record, revision: i64) -> bool {
        let found = self.index.get(&record.key).and_then(|entry| self.reader().at(entry, revision));
        found == Some(record.revision)
    }
}

fn add(hash: u32, record: &Record) -> u32 {
    let mut key = [0; 18];
    key[..8].copy_from_slice(&record.revision.main.to_be_bytes());
    key[8] = b'_';
    key[9..17].copy_from_slice(&u64::from(record.revision.sub).to_be_bytes());
    key[17] = b't';
    let pair = match record.is_tombstone() {
        true => KeyValue { key: record.key.clone(), ..KeyValue::default() },
        false => record.to_key_value(),
    };
    let key = if record.is_tombstone() { &key[..] } else { &key[..17] };
    crc32c::crc32c_append(crc32c::crc32c_append(hash, key), &pair.encode_to_vec())
}
