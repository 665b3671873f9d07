//! One transaction writes a key at most once: puts of the same key, and puts into a
//! range that is deleted, are refused before they reach the store.
//!
//! The two branches of a nested transaction exclude each other, so they may write the
//! same key. The order of the checks is etcd's: a nested put is held against the
//! deletions around it and in its earlier neighbours, not in its later ones.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use castd_actors::Error;
use castd_proto::etcdserverpb::request_op::Request;
use castd_proto::etcdserverpb::{DeleteRangeRequest, RequestOp};

/// Checks one branch of a transaction.
///
/// # Errors
/// `DuplicateKey`.
pub(super) fn check(ops: &[RequestOp]) -> Result<(), Error> {
    match ops {
        [] => Ok(()),
        [only] if !matches!(only.request, Some(Request::RequestTxn(_))) => Ok(()),
        _ => writes(ops).map(drop),
    }
}

/// What a list of operations may write.
#[derive(Default)]
struct Writes<'a> {
    puts: HashSet<&'a [u8]>,
    deleted: Intervals<'a>,
}

fn writes(ops: &[RequestOp]) -> Result<Writes<'_>, Error> {
    let mut all = Writes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            all.deleted.insert_delete(delete);
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            let success = writes(&nested.success)?;
            let failure = writes(&nested.failure)?;
            all.nest(success, failure)?;
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            all.put(&put.key, |_| false)?;
        }
    }
    Ok(all)
}

impl<'a> Writes<'a> {
    fn nest(&mut self, success: Self, failure: Self) -> Result<(), Error> {
        for &key in &success.puts {
            self.put(key, |_| false)?;
        }
        for &key in &failure.puts {
            self.put(key, |key| success.puts.contains(key))?;
        }
        self.deleted.absorb(success.deleted);
        self.deleted.absorb(failure.deleted);
        Ok(())
    }

    /// Adds a put; one that is there already is allowed when `may_repeat` says so.
    fn put(&mut self, key: &'a [u8], may_repeat: impl Fn(&[u8]) -> bool) -> Result<(), Error> {
        if !self.puts.insert(key) && !may_repeat(key) {
            return Err(Error::DuplicateKey);
        }
        if self.deleted.contains(key) { Err(Error::DuplicateKey) } else { Ok(()) }
    }
}

/// The end of an interval.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End<'a> {
    /// This key is the last one not in it.
    Before(&'a [u8]),
    /// This key is the last one in it.
    With(&'a [u8]),
}

impl End<'_> {
    fn covers(self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end,
            Self::With(end) => key <= end,
        }
    }
}

/// A set of keys as intervals that do not overlap: first key to end.
#[derive(Default)]
struct Intervals<'a>(BTreeMap<&'a [u8], End<'a>>);

impl<'a> Intervals<'a> {
    /// etcd compares the range's end as it stands, so that `\0`, which stands for the
    /// end of all keys, makes an interval without keys here. It is kept so.
    fn insert_delete(&mut self, delete: &'a DeleteRangeRequest) {
        let first = &delete.key[..];
        if delete.range_end.is_empty() {
            self.insert(first, End::With(first));
        } else if first < &delete.range_end[..] {
            self.insert(first, End::Before(&delete.range_end));
        }
    }

    fn insert(&mut self, first: &'a [u8], end: End<'a>) {
        if let Some((_, reached)) = self.below(first)
            && reached.covers(first)
        {
            self.widen(first, end);
            return;
        }
        self.0.insert(first, end);
        self.swallow(first);
    }

    /// Moves the end of the interval that holds `key` out to `end`.
    fn widen(&mut self, key: &[u8], end: End<'a>) {
        let Some((first, reached)) = self.below(key) else { return };
        if further(end, reached) {
            self.0.insert(first, end);
            self.swallow(first);
        }
    }

    /// Joins the interval at `first` with those that begin within it.
    fn swallow(&mut self, first: &'a [u8]) {
        let Some(mut end) = self.0.get(first).copied() else { return };
        while let Some((&next, &reached)) =
            self.0.range::<[u8], _>((Bound::Excluded(first), Bound::Unbounded)).next()
        {
            if !end.covers(next) {
                break;
            }
            self.0.remove(next);
            end = if further(reached, end) { reached } else { end };
        }
        self.0.insert(first, end);
    }

    fn absorb(&mut self, other: Self) {
        for (first, end) in other.0 {
            self.insert(first, end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.below(key).is_some_and(|(_, end)| end.covers(key))
    }

    /// The last interval that begins at or before `key`.
    fn below(&self, key: &[u8]) -> Option<(&'a [u8], End<'a>)> {
        let upto = (Bound::Unbounded, Bound::Included(key));
        self.0.range::<[u8], _>(upto).next_back().map(|(first, end)| (*first, *end))
    }
}

/// Whether `a` reaches further than `b`.
fn further(a: End<'_>, b: End<'_>) -> bool {
    match (a, b) {
        (End::Before(a), End::Before(b)) | (End::With(a), End::With(b)) => a > b,
        (End::With(a), End::Before(b)) => a >= b,
        (End::Before(a), End::With(b)) => a > b,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(key: &[u8]) -> DeleteRangeRequest {
        DeleteRangeRequest { key: key.to_vec().into(), ..Default::default() }
    }

    fn interval(key: &[u8], end: &[u8]) -> DeleteRangeRequest {
        DeleteRangeRequest { range_end: end.to_vec().into(), ..point(key) }
    }

    #[test]
    fn intervals_join() {
        let deletes =
            [interval(b"c", b"e"), interval(b"a", b"b"), point(b"b"), interval(b"a", b"d")];
        let mut set = Intervals::default();
        for delete in &deletes {
            set.insert_delete(delete);
        }
        assert_eq!(set.0.len(), 1);
        for (key, inside) in [("a", true), ("b", true), ("d9", true), ("e", false), ("9", false)] {
            assert_eq!(set.contains(key.as_bytes()), inside, "{key}");
        }
    }

    #[test]
    fn an_end_of_zero_holds_nothing() {
        let delete = interval(b"a", b"\0");
        let mut set = Intervals::default();
        set.insert_delete(&delete);
        assert!(!set.contains(b"b"));
    }

    proptest! {
        #[test]
        fn a_set_holds_what_one_of_its_intervals_holds(
            deletes in prop::collection::vec((0u8..12, 0u8..12), 0..8),
        ) {
            let deletes: Vec<_> = deletes
                .iter()
                .map(|(a, b)| if a == b { point(&[*a]) } else { interval(&[*a], &[*b]) })
                .collect();
            let mut set = Intervals::default();
            for delete in &deletes {
                set.insert_delete(delete);
            }
            for key in 0u8..13 {
                let inside = deletes.iter().any(|delete| {
                    if delete.range_end.is_empty() {
                        delete.key[0] == key
                    } else {
                        delete.key[0] <= key && key < delete.range_end[0]
                    }
                });
                prop_assert_eq!(set.contains(&[key]), inside, "key {}", key);
            }
        }
    }
}
