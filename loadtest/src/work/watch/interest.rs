//! What the watchers watch.

use std::ops::Range;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::keys::KeySpace;

/// End of a range that has none.
const OPEN_END: &[u8] = b"\0";

/// Who watches what, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scenario {
    /// All watch one key.
    FanOut,
    /// Each watches a key of its own; the keys are put in turn.
    OwnKeys,
    /// Keys, prefixes of several lengths, ranges, and one range without an end, which overlap.
    Mixed {
        /// Keys.
        keys: u64,
        /// Keys that every other write puts, in a transaction.
        txn_keys: usize,
    },
    /// As in `Mixed`; streams and connections are cut, and the watchers go on behind the last
    /// revision they saw.
    Resume {
        /// Keys.
        keys: u64,
        /// Keys that every other write puts, in a transaction.
        txn_keys: usize,
        /// Mean time between two cuts of a stream.
        cut_every: Duration,
    },
    /// All watch all keys; further watchers, of one key each, stop reading for a while.
    Slow {
        /// Keys.
        keys: u64,
        /// Watchers that stop, each with a stream of its own.
        stopped: usize,
        /// For how long.
        stop_for: Duration,
    },
    /// All watch all keys, from before a history that was written first.
    Past {
        /// Keys.
        keys: u64,
        /// Puts, each with a revision of its own.
        history: u64,
        /// How long the watchers may take to come up to the present.
        patience: Duration,
    },
}

impl Scenario {
    /// Its name on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::FanOut => "fan-out",
            Self::OwnKeys => "own-keys",
            Self::Mixed { .. } => "mixed",
            Self::Resume { .. } => "resume",
            Self::Slow { .. } => "slow",
            Self::Past { .. } => "past",
        }
    }

    /// How many keys are put for so many watchers.
    pub(crate) fn keys(&self, watchers: usize) -> u64 {
        match self {
            Self::FanOut => 1,
            Self::OwnKeys => watchers as u64,
            Self::Mixed { keys, .. }
            | Self::Resume { keys, .. }
            | Self::Slow { keys, .. }
            | Self::Past { keys, .. } => *keys,
        }
    }

    /// Keys in each transaction; none where all writes are puts of one key.
    pub(super) fn txn_keys(&self) -> Option<usize> {
        match self {
            Self::Mixed { txn_keys, .. } | Self::Resume { txn_keys, .. } => {
                Some(*txn_keys).filter(|keys| *keys > 1)
            }
            _ => None,
        }
    }

    /// What watcher number `watcher` watches.
    pub(super) fn interest(&self, space: &KeySpace, watcher: usize) -> Interest {
        match self {
            Self::FanOut | Self::OwnKeys => Interest::key(space, watcher as u64 % space.count()),
            Self::Mixed { .. } | Self::Resume { .. } => Interest::mixed(space, watcher),
            Self::Slow { .. } | Self::Past { .. } => Interest::all(space),
        }
    }
}

/// What one watcher watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interest {
    /// Indexes of the keys it is to see.
    pub(super) keys: Range<u32>,
    /// The key, or the first one of a range.
    pub(super) key: Bytes,
    /// As in the request.
    pub(super) range_end: Bytes,
}

impl Interest {
    /// One key.
    pub(super) fn key(space: &KeySpace, index: u64) -> Self {
        Self {
            keys: narrow(index)..narrow(index + 1),
            key: space.key(index),
            range_end: Bytes::new(),
        }
    }

    /// Every key of the space, and nothing else.
    fn all(space: &KeySpace) -> Self {
        let (key, range_end) = space.range();
        Self { keys: 0..narrow(space.count()), key, range_end }
    }

    /// The keys that have all but the last `digits` characters in common with one.
    fn prefix(space: &KeySpace, index: u64, digits: usize) -> Self {
        let name = space.key(index);
        let key = name.slice(..name.len() - digits);
        let first = index - index % 10_u64.pow(digits as u32);
        let end = (first + 10_u64.pow(digits as u32)).min(space.count());
        // Its last character is a digit or one of the prefix: there is one behind it.
        let mut range_end = BytesMut::from(&key[..key.len() - 1]);
        range_end.put_u8(key[key.len() - 1] + 1);
        Self { keys: narrow(first)..narrow(end), key, range_end: range_end.freeze() }
    }

    /// The keys from one up to another, that one left out.
    fn range(space: &KeySpace, first: u64, end: u64) -> Self {
        Self { keys: narrow(first)..narrow(end), key: space.key(first), range_end: space.key(end) }
    }

    /// The keys from one on, and whatever else there is behind them.
    fn open(space: &KeySpace, first: u64) -> Self {
        Self {
            keys: narrow(first)..narrow(space.count()),
            key: space.key(first),
            range_end: Bytes::from_static(OPEN_END),
        }
    }

    /// A little of everything; the same number always gives the same. Wide ranges are rare, or
    /// nearly all events would be theirs.
    fn mixed(space: &KeySpace, watcher: usize) -> Self {
        let mut random = SmallRng::seed_from_u64(watcher as u64);
        let count = space.count();
        let index = random.random_range(0..count);
        // All digits of the largest number may go, so that a prefix can hold every key.
        let digits_max = (count - 1).max(1).ilog10() as usize + 1;
        match watcher % 10 {
            0 if watcher == 0 => Self::open(space, index),
            0 => Self::prefix(space, index, random.random_range(1..=digits_max)),
            1 | 2 => Self::prefix(space, index, 1),
            3 if count > 1 => {
                let first = index.min(count - 2);
                let length = random.random_range(1..=(count / 10).max(1));
                Self::range(space, first, (first + length).min(count - 1))
            }
            _ => Self::key(space, index),
        }
    }
}

/// Key indexes are small: a run lays out all its keys in memory.
fn narrow(index: u64) -> u32 {
    u32::try_from(index).expect("fewer keys than 2^32, or their table would not fit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Order;

    fn space(count: u64) -> KeySpace {
        KeySpace::new("w/", 10, count, Order::Sequential).unwrap()
    }

    /// Whether a server would send events of `key`.
    fn is_in(interest: &Interest, key: &Bytes) -> bool {
        match &interest.range_end[..] {
            b"" => *key == interest.key,
            OPEN_END => *key >= interest.key,
            end => *key >= interest.key && &key[..] < end,
        }
    }

    #[test]
    fn what_is_asked_for_is_what_is_expected() {
        for count in [1, 2, 9, 10, 11, 100, 1234] {
            let space = space(count);
            let mixed = Scenario::Mixed { keys: count, txn_keys: 4 };
            let slow = Scenario::Slow { keys: count, stopped: 1, stop_for: Duration::ZERO };
            for scenario in [mixed, slow, Scenario::OwnKeys] {
                for watcher in 0..200 {
                    let interest = scenario.interest(&space, watcher);
                    assert!(!interest.keys.is_empty());
                    for index in 0..count {
                        let expected = interest.keys.contains(&narrow(index));
                        let found = is_in(&interest, &space.key(index));
                        assert_eq!(found, expected, "{count} {watcher} {interest:?} {index}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_mix_has_all_kinds_and_prefixes_of_several_lengths() {
        let space = space(1000);
        let all: Vec<Interest> =
            (0..1000).map(|watcher| Interest::mixed(&space, watcher)).collect();
        let count = |is: &dyn Fn(&Interest) -> bool| all.iter().filter(|i| is(i)).count();
        assert_eq!(count(&|i| i.range_end == OPEN_END), 1);
        assert!(count(&|i| i.range_end.is_empty()) > 500);
        for length in [7, 8, 9] {
            assert!(count(&|i| !i.range_end.is_empty() && i.key.len() == length) > 10, "{length}");
        }
        assert!(count(&|i| i.range_end.len() == 10) > 50, "ranges");
    }
}
