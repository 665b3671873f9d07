//! One change of one key, as it is kept in the revision log.

use bytes::Bytes;

use super::revision::Revision;
use crate::shared::codec;

/// A put or a deletion of one key. `Bytes` fields are slices of the block that
/// holds the record, so a record is cheap to make from a block and to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where the change stands in history; the key's mod revision is `main`.
    pub revision: Revision,
    /// The change of the same key before this one; zero when the key did not
    /// exist, so that a key's history can be followed backwards.
    pub previous: Revision,
    /// The transaction that created the key; 0 for a deletion.
    pub create_revision: i64,
    /// Counts the puts since the key was created, from 1; 0 for a deletion.
    pub version: i64,
    /// The lease the key is attached to; 0 for none.
    pub lease: i64,
    /// The key.
    pub key: Bytes,
    /// The value; empty for a deletion.
    pub value: Bytes,
}

impl Record {
    /// Whether the record says that the key was deleted.
    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    /// The record as the client sees it. A deletion shows its key and its
    /// revision only.
    pub fn to_key_value(&self) -> castd_proto::mvccpb::KeyValue {
        castd_proto::mvccpb::KeyValue {
            key: self.key.clone(),
            create_revision: self.create_revision,
            mod_revision: self.revision.main,
            version: self.version,
            value: self.value.clone(),
            lease: self.lease,
        }
    }
}

/// What follows the fixed-width revision in a record's bytes. Distances are
/// stored instead of absolute numbers, because small numbers take one byte.
#[derive(bincode::Encode, bincode::BorrowDecode)]
struct Body<'a> {
    previous_distance: u64,
    previous_sub: u32,
    create_distance: u64,
    version: u64,
    lease: i64,
    key: &'a [u8],
    value: &'a [u8],
}

/// Bytes of the revision in front of each record: 8 of `main` and 4 of `sub`,
/// big-endian and of fixed width so that a block can be searched without
/// decoding what it holds.
const REVISION_LEN: usize = 12;

/// Appends `record` to `out`.
pub(super) fn encode(record: &Record, out: &mut Vec<u8>) {
    out.extend_from_slice(&record.revision.main.to_be_bytes());
    out.extend_from_slice(&record.revision.sub.to_be_bytes());
    let main = record.revision.main;
    let body = Body {
        previous_distance: distance(main, record.previous.main),
        previous_sub: record.previous.sub,
        create_distance: distance(main, record.create_revision),
        version: record.version.unsigned_abs(),
        lease: record.lease,
        key: &record.key,
        value: &record.value,
    };
    codec::append(&body, out);
}

/// The revision at the front of a record's bytes, `None` when they are too few.
pub(super) fn revision_of(bytes: &[u8]) -> Option<Revision> {
    let main = bytes.get(..8)?.try_into().ok()?;
    let sub = bytes.get(8..REVISION_LEN)?.try_into().ok()?;
    Some(Revision::new(i64::from_be_bytes(main), u32::from_be_bytes(sub)))
}

/// The key of the record that fills `bytes`.
///
/// # Errors
/// When the bytes are not a whole record.
pub(super) fn key_of(bytes: &[u8]) -> Result<&[u8], codec::CodecError> {
    let body = bytes.get(REVISION_LEN..).ok_or(codec::CodecError::Truncated)?;
    let body: Body<'_> = codec::read_borrowed(body)?;
    Ok(body.key)
}

/// Reads the record that fills `bytes`, keeping slices of it.
///
/// # Errors
/// When the bytes are not a whole record.
pub(super) fn decode(bytes: &Bytes) -> Result<Record, codec::CodecError> {
    let revision = revision_of(bytes).ok_or(codec::CodecError::Truncated)?;
    let body: Body<'_> = codec::read_borrowed(&bytes[REVISION_LEN..])?;
    Ok(Record {
        revision,
        previous: Revision::new(back(revision.main, body.previous_distance), body.previous_sub),
        create_revision: back(revision.main, body.create_distance),
        version: i64::try_from(body.version).map_err(|_| codec::CodecError::OutOfRange)?,
        lease: body.lease,
        key: bytes.slice_ref(body.key),
        value: bytes.slice_ref(body.value),
    })
}

/// Distance from `main` back to `earlier`, plus one; 0 stands for "none".
fn distance(main: i64, earlier: i64) -> u64 {
    if earlier == 0 { 0 } else { main.abs_diff(earlier) + 1 }
}

fn back(main: i64, distance: u64) -> i64 {
    if distance == 0 { 0 } else { main.wrapping_sub_unsigned(distance - 1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        (
            (2i64..1 << 60, any::<u32>()),
            (any::<bool>(), 0i64..1000, any::<u32>()),
            (0i64..1000, 0i64..i64::MAX, any::<i64>()),
            prop::collection::vec(any::<u8>(), 0..40),
            prop::collection::vec(any::<u8>(), 0..300),
        )
            .prop_map(
                |((main, sub), (has_previous, age, previous_sub), rest, key, value)| {
                    let (create_age, version, lease) = rest;
                    Record {
                        revision: Revision::new(main, sub),
                        previous: match has_previous {
                            true => Revision::new((main - age).max(1), previous_sub),
                            false => Revision::ZERO,
                        },
                        create_revision: (main - create_age).max(1),
                        version,
                        lease,
                        key: key.into(),
                        value: value.into(),
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(record in record()) {
            let mut out = Vec::new();
            encode(&record, &mut out);
            let bytes = Bytes::from(out);
            prop_assert_eq!(revision_of(&bytes), Some(record.revision));
            prop_assert_eq!(key_of(&bytes).unwrap(), record.key.as_ref());
            prop_assert_eq!(decode(&bytes).unwrap(), record);
        }

        #[test]
        fn cut_and_random_bytes_are_refused_or_read_but_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let key = key_of(&bytes).ok().map(<[u8]>::to_vec);
            if let Ok(record) = decode(&Bytes::from(bytes)) {
                prop_assert_eq!(key, Some(record.key.to_vec()));
            }
        }
    }

    #[test]
    fn a_small_record_costs_few_bytes_beside_its_key_and_value() {
        let record = Record {
            revision: Revision::new(1_000_000, 0),
            previous: Revision::new(999_000, 0),
            create_revision: 1_000_000,
            version: 1,
            lease: 0,
            key: Bytes::from_static(b"12345678"),
            value: Bytes::from(vec![7; 256]),
        };
        let mut out = Vec::new();
        encode(&record, &mut out);
        assert!(out.len() <= 8 + 256 + 26, "{} bytes", out.len());
    }
}
