//! Which ranges of keys a key lies in, found without looking at the others.
//!
//! Ranges of one key are found by hashing. All others lie in an interval tree:
//! a balanced tree ordered by where they start, in which each node knows the
//! end that reaches furthest below it, so that a branch that ends before the
//! key is never entered. Every change costs about the same: neither of the two
//! ever stops to move all that it holds.

mod table;
#[cfg(test)]
mod tests;
mod tree;

use table::KeyTable;
use tree::{Bounds, IntervalTree};

use crate::mvcc::KeyRange;

/// A set of ranges, each known under a number that its owner chose. Keeps copies of
/// the ranges' bounds, so that it holds on to no request's buffer. Single keys it
/// does not keep: `key_of` must tell which one a number stands for.
#[derive(Debug, Default)]
pub(super) struct RangeIndex {
    singles: KeyTable,
    ranges: IntervalTree,
}

impl RangeIndex {
    /// The number under which exactly this range is known.
    pub(super) fn get<'a>(
        &self,
        range: &KeyRange,
        key_of: impl Fn(u32) -> &'a [u8],
    ) -> Option<u32> {
        match bounds(range) {
            Err(key) => self.singles.get(key, key_of),
            Ok(bounds) => self.ranges.get(bounds),
        }
    }

    /// Adds a range that is not there yet.
    pub(super) fn insert(&mut self, range: &KeyRange, number: u32) {
        match bounds(range) {
            Err(key) => self.singles.insert(key, number),
            Ok(bounds) => {
                let before = self.ranges.insert(bounds, number);
                debug_assert_eq!(before, None, "a range is added once");
            }
        }
    }

    /// Takes a range out and gives its number.
    pub(super) fn remove<'a>(
        &mut self,
        range: &KeyRange,
        key_of: impl Fn(u32) -> &'a [u8],
    ) -> Option<u32> {
        match bounds(range) {
            Err(key) => self.singles.remove(key, key_of),
            Ok(bounds) => self.ranges.remove(bounds),
        }
    }

    /// Calls `found` with the number of every range that contains `key`, once each.
    pub(super) fn each<'a>(
        &self,
        key: &[u8],
        key_of: impl Fn(u32) -> &'a [u8],
        mut found: impl FnMut(u32),
    ) {
        if let Some(number) = self.singles.get(key, key_of) {
            found(number);
        }
        self.ranges.each(key, &mut found);
    }

    /// Number of ranges.
    pub(super) fn len(&self) -> usize {
        self.singles.len() + self.ranges.len()
    }
}

/// The bounds of a range, or its only key.
fn bounds(range: &KeyRange) -> Result<Bounds<'_>, &[u8]> {
    match range {
        KeyRange::Single(key) => Err(key),
        KeyRange::Between(from, to) => Ok(Bounds::new(from, Some(to))),
        KeyRange::From(from) => Ok(Bounds::new(from, None)),
    }
}
