//! How a new leader gives a million leases their time again without standing still: it
//! writes their ends down a few at a time, and knows meanwhile what the others have.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound::{self, Excluded, Unbounded};

/// The way of a promotion through the leases, in order of their ids.
#[derive(Debug)]
pub(super) struct Promotion {
    /// The lease it came to last.
    after: Option<i64>,
    /// Where the ends go that would come together.
    pub(super) spread: Spread,
}

impl Promotion {
    /// At its beginning; `a_second` leases may end in each second.
    pub(super) fn new(a_second: usize) -> Self {
        Self { after: None, spread: Spread { a_second: a_second.max(1), seconds: BTreeMap::new() } }
    }

    /// The ids that it has not come to.
    pub(super) fn rest(&self) -> (Bound<i64>, Bound<i64>) {
        (self.after.map_or(Unbounded, Excluded), Unbounded)
    }

    /// It came to this lease.
    pub(super) fn came_to(&mut self, id: i64) {
        self.after = Some(id);
    }
}

/// Finds room for what would end together, so that there is room for others.
#[derive(Debug)]
pub(super) struct Spread {
    a_second: usize,
    seconds: BTreeMap<u64, Second>,
}

#[derive(Debug)]
struct Second {
    taken: usize,
    /// No second before this one has room, from this one on.
    room_from: u64,
}

impl Spread {
    /// The first second from `wanted` on that has room; takes a place in it.
    pub(super) fn take(&mut self, wanted: u64) -> u64 {
        let mut found = wanted;
        loop {
            match self.seconds.entry(found) {
                Entry::Vacant(free) => {
                    free.insert(Second { taken: 1, room_from: found });
                    break;
                }
                Entry::Occupied(mut second) if second.get().taken < self.a_second => {
                    second.get_mut().taken += 1;
                    break;
                }
                Entry::Occupied(full) => found = full.get().room_from.max(found + 1),
            }
        }
        self.remember(wanted, found);
        found
    }

    /// Makes the way from `wanted` to `found` short for those who come next.
    fn remember(&mut self, wanted: u64, found: u64) {
        let mut passed = wanted;
        while passed < found {
            let Some(second) = self.seconds.get_mut(&passed) else { return };
            passed = second.room_from.max(passed + 1);
            second.room_from = found;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everyone_gets_the_first_second_with_room(
            wishes in prop::collection::vec(0u64..12, 1..200),
            a_second in 1usize..8,
        ) {
            let mut spread = Promotion::new(a_second).spread;
            let mut taken = BTreeMap::<u64, usize>::new();
            for wanted in wishes {
                let has_room = |second: &u64| taken.get(second).is_none_or(|n| *n < a_second);
                let first = (wanted..).find(has_room).unwrap();
                prop_assert_eq!(spread.take(wanted), first);
                *taken.entry(first).or_default() += 1;
            }
        }
    }
}
