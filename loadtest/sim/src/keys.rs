//! Keys and values as bytes, and as the judge knows them.

use bytes::Bytes;
use castd_actors::mvcc::Record;
use castd_check::{Event as Change, Kv};
use castd_proto::mvccpb::KeyValue;

/// A key by its number. In order of the numbers.
pub(crate) fn key(number: u32) -> Bytes {
    format!("k{number:010}").into()
}

/// The end of a range up to a key, that one included.
pub(crate) fn behind(number: u32) -> Bytes {
    number.checked_add(1).map_or_else(|| "l".into(), key)
}

/// The number of a key; there are no others.
pub(crate) fn number(key: &[u8]) -> u32 {
    let digits = key.strip_prefix(b"k").and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX)
}

/// A value by its number.
pub(crate) fn value(number: u64, padding: usize) -> Bytes {
    format!("{number}:{}", "x".repeat(padding)).into()
}

fn value_number(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let digits = text.split(':').next().unwrap_or_default();
    digits.parse().unwrap_or(u64::MAX)
}

/// What a pair says of its key.
pub(crate) fn kv(pair: &KeyValue) -> Kv {
    Kv {
        value: value_number(&pair.value),
        create: pair.create_revision,
        modified: pair.mod_revision,
        version: pair.version,
    }
}

/// A record as a change.
pub(crate) fn change(record: &Record, before: Option<Kv>) -> Change {
    let pair = record.to_key_value();
    let now = (!record.is_tombstone()).then(|| kv(&pair));
    Change { revision: record.revision.main, key: number(&record.key), now, before }
}
