//! Keys, values and events, as they are on the wire and as the checker keeps them.

use bytes::Bytes;
use castd_check::{Event, Key, Kv, Value};
use castd_proto::mvccpb::event::EventType;
use castd_proto::mvccpb::{self, KeyValue};

/// What every key of a round starts with.
pub(crate) const PREFIX: &str = "chaos/";
/// The first key behind all of them.
const PREFIX_END: &str = "chaos0";
/// Values are padded to this length, in bytes.
const VALUE_BYTES: usize = 64;
/// Digits of the number in a value.
const VALUE_DIGITS: usize = 12;

/// The first key of all and the end of their range.
pub(crate) fn all_keys() -> (Bytes, Bytes) {
    (Bytes::from_static(PREFIX.as_bytes()), Bytes::from_static(PREFIX_END.as_bytes()))
}

/// A key's bytes.
pub(crate) fn key_bytes(key: Key) -> Bytes {
    Bytes::from(format!("{PREFIX}{key:010}"))
}

/// A value's bytes.
pub(crate) fn value_bytes(value: Value) -> Bytes {
    Bytes::from(format!("{value:0VALUE_DIGITS$}{:.>1$}", "", VALUE_BYTES - VALUE_DIGITS))
}

/// What an answer tells of a key, or a text that says why that cannot be.
pub(crate) fn read_kv(pair: &KeyValue, expected: Key) -> Result<Kv, String> {
    match read_key(&pair.key) {
        Some(key) if key == expected => known(pair),
        _ => Err(format!("asked for key {expected}, got {:?}", pair.key)),
    }
}

/// An event of a watch, or a text that says why it cannot be one.
pub(crate) fn read_event(event: &mvccpb::Event) -> Result<Event, String> {
    let pair = event.kv.as_ref().ok_or("an event without a key")?;
    let key = read_key(&pair.key).ok_or_else(|| format!("a foreign key {:?}", pair.key))?;
    let before = event.prev_kv.as_ref().map(|before| read_kv(before, key)).transpose()?;
    let now = match event.r#type() {
        EventType::Put => Some(known(pair)?),
        EventType::Delete => None,
    };
    Ok(Event { revision: pair.mod_revision, key, now, before })
}

fn known(pair: &KeyValue) -> Result<Kv, String> {
    let value = read_value(&pair.value)
        .ok_or_else(|| format!("a value nobody wrote: {:?} at {:?}", pair.value, pair.key))?;
    Ok(Kv {
        value,
        create: pair.create_revision,
        modified: pair.mod_revision,
        version: pair.version,
    })
}

fn read_key(bytes: &[u8]) -> Option<Key> {
    let digits = bytes.strip_prefix(PREFIX.as_bytes())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn read_value(bytes: &[u8]) -> Option<Value> {
    let digits = bytes.get(..VALUE_DIGITS)?;
    let value = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (value_bytes(value) == bytes).then_some(value)
}

#[cfg(test)]
mod tests {
    use castd_check::LEASE_KEYS;

    use super::*;

    #[test]
    fn keys_and_values_come_back() {
        for key in [0, 7, LEASE_KEYS + 3] {
            assert_eq!(read_key(&key_bytes(key)), Some(key));
        }
        let bytes = value_bytes(42);
        assert_eq!(bytes.len(), VALUE_BYTES);
        assert_eq!(read_value(&bytes), Some(42));
        assert_eq!(read_value(&bytes[..VALUE_BYTES - 1]), None);
        assert_eq!(read_value(b"x"), None);
        let (first, end) = all_keys();
        assert!(first < key_bytes(0) && key_bytes(Key::MAX) < end);
    }

    #[test]
    fn events_of_the_wire_are_read() {
        let pair = |value, modified| KeyValue {
            key: key_bytes(3),
            value: value_bytes(value),
            create_revision: 2,
            mod_revision: modified,
            version: modified - 1,
            lease: 0,
        };
        let put = mvccpb::Event {
            r#type: EventType::Put.into(),
            kv: Some(pair(9, 3)),
            prev_kv: Some(pair(8, 2)),
        };
        let event = read_event(&put).unwrap();
        assert_eq!((event.revision, event.key), (3, 3));
        assert_eq!(event.now.unwrap().value, 9);
        assert_eq!(event.before.unwrap().version, 1);
        assert!(read_event(&mvccpb::Event::default()).is_err());
    }
}
