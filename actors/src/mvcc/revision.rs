//! Positions in the history of the store.

/// A revision: the `main` number that a transaction got, and the place `sub`
/// of one change within it. Revisions order all changes of the store.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    bincode::Encode,
    bincode::Decode,
)]
pub struct Revision {
    /// Number of the transaction, from 2 up (1 is the empty store).
    pub main: i64,
    /// Place of the change in its transaction, from 0 up.
    pub sub: u32,
}

impl Revision {
    /// Before every change.
    pub const ZERO: Self = Self { main: 0, sub: 0 };
    /// After every change.
    pub const MAX: Self = Self { main: i64::MAX, sub: u32::MAX };

    /// The revision `main`, `sub`.
    pub const fn new(main: i64, sub: u32) -> Self {
        Self { main, sub }
    }

    /// The first position of transaction `main`.
    pub const fn start_of(main: i64) -> Self {
        Self { main, sub: 0 }
    }

    /// The last position of transaction `main`.
    pub const fn end_of(main: i64) -> Self {
        Self { main, sub: u32::MAX }
    }
}

/// A range of keys as etcd's requests give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    /// One key.
    Single(bytes::Bytes),
    /// All keys from the first to the second, which is excluded.
    Between(bytes::Bytes, bytes::Bytes),
    /// The key and all that follow.
    From(bytes::Bytes),
}

impl KeyRange {
    /// Reads a request's `key` and `range_end`: no end means the one key, an
    /// end of a single zero byte means every key from `key` on.
    pub fn new(key: &bytes::Bytes, range_end: &bytes::Bytes) -> Self {
        if range_end.is_empty() {
            return Self::Single(key.clone());
        }
        if range_end.as_ref() == [0] {
            return Self::From(key.clone());
        }
        Self::Between(key.clone(), range_end.clone())
    }

    /// The first key that may be in the range.
    pub fn start(&self) -> &[u8] {
        match self {
            Self::Single(key) | Self::Between(key, _) | Self::From(key) => key,
        }
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Single(only) => only == key,
            Self::Between(from, to) => from.as_ref() <= key && key < to.as_ref(),
            Self::From(from) => from.as_ref() <= key,
        }
    }

    /// Whether `key` lies behind the range, so that a walk in key order may stop.
    pub fn is_past(&self, key: &[u8]) -> bool {
        match self {
            Self::Single(only) => only.as_ref() < key,
            Self::Between(_, to) => to.as_ref() <= key,
            Self::From(_) => false,
        }
    }

    /// Whether the two ranges share a key.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Single(key), range) | (range, Self::Single(key)) => range.contains(key),
            _ => !self.ends_by(other.start()) && !other.ends_by(self.start()),
        }
    }

    /// Whether no key at or behind `start` is in the range.
    fn ends_by(&self, start: &[u8]) -> bool {
        self.is_past(start)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn range(key: &'static str, end: &'static str) -> KeyRange {
        KeyRange::new(&Bytes::from_static(key.as_bytes()), &Bytes::from_static(end.as_bytes()))
    }

    #[test]
    fn revisions_order_by_transaction_then_place() {
        assert!(Revision::new(2, 9) < Revision::new(3, 0));
        assert!(Revision::new(3, 0) < Revision::new(3, 1));
        assert!(Revision::end_of(3) < Revision::start_of(4));
    }

    #[test]
    fn ranges_contain_and_end_where_etcd_says() {
        assert!(range("a", "").contains(b"a") && !range("a", "").contains(b"aa"));
        assert!(range("a", "c").contains(b"b") && !range("a", "c").contains(b"c"));
        assert!(range("a", "\0").contains(b"zzz") && !range("b", "\0").contains(b"a"));
        assert!(range("a", "c").is_past(b"c") && !range("a", "\0").is_past(b"zzz"));
    }

    #[test]
    fn overlap_is_symmetric() {
        let cases = [
            (range("a", ""), range("a", "c"), true),
            (range("c", ""), range("a", "c"), false),
            (range("a", "c"), range("b", "d"), true),
            (range("a", "b"), range("b", "d"), false),
            (range("a", "\0"), range("x", "z"), true),
            (range("z", "\0"), range("a", "z"), false),
        ];
        for (one, two, expected) in cases {
            assert_eq!(one.overlaps(&two), expected, "{one:?} {two:?}");
            assert_eq!(two.overlaps(&one), expected, "{two:?} {one:?}");
        }
    }
}
