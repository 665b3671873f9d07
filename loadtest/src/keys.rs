//! Which keys and values the calls carry. All of it is laid out before the run: a call takes
//! a share of a buffer and allocates nothing.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::driver::Share;
use crate::error::LoadError;

/// Values are cut from a buffer this much longer than one of them, so that they differ.
const VALUE_SPREAD_BYTES: usize = 4096;

/// The order in which keys are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// Each with the same chance, each time.
    Random,
    /// One after the other, from the first again after the last.
    Sequential,
}

/// The keys of a run: a prefix and a number, all of the same length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeySpace {
    prefix: String,
    key_bytes: usize,
    count: u64,
    order: Order,
}

impl KeySpace {
    /// `count` keys of `key_bytes` bytes, prefix included.
    ///
    /// # Errors
    /// When the number does not fit behind the prefix, or there is no key at all.
    pub(crate) fn new(
        prefix: &str,
        key_bytes: usize,
        count: u64,
        order: Order,
    ) -> Result<Self, LoadError> {
        let Some(last) = count.checked_sub(1) else {
            return Err(LoadError::Usage("at least one key is needed".into()));
        };
        let needed = prefix.len() + last.to_string().len();
        if key_bytes < needed {
            let text = format!("{count} keys with this prefix need a key size of {needed} bytes");
            return Err(LoadError::Usage(text));
        }
        Ok(Self { prefix: prefix.to_owned(), key_bytes, count, order })
    }

    /// Number of keys.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// First key and end of the range that holds all keys of this space.
    pub(crate) fn range(&self) -> (Bytes, Bytes) {
        (Bytes::from(format!("{}0", self.prefix)), Bytes::from(format!("{}:", self.prefix)))
    }

    /// One key, made on the spot.
    pub(crate) fn key(&self, index: u64) -> Bytes {
        let digits = self.key_bytes - self.prefix.len();
        Bytes::from(format!("{}{index:0digits$}", self.prefix))
    }

    /// The index of a key, if it is one of this space.
    pub(crate) fn index(&self, key: &[u8]) -> Option<u64> {
        let digits = key.strip_prefix(self.prefix.as_bytes())?;
        let index = std::str::from_utf8(digits).ok()?.parse().ok()?;
        (key.len() == self.key_bytes && index < self.count).then_some(index)
    }

    /// All keys side by side.
    pub(crate) fn table(&self) -> KeyTable {
        let mut all = Vec::with_capacity(self.key_bytes * self.count as usize);
        for index in 0..self.count {
            all.extend_from_slice(&self.key(index));
        }
        KeyTable { all: all.into(), key_bytes: self.key_bytes }
    }

    /// Picks keys for one client. The clients of a thread share `cursor` when they go in
    /// sequence. Each thread has keys of its own.
    pub(crate) fn picker(&self, share: Share, client: usize, cursor: &Rc<Cell<u64>>) -> Picker {
        let (thread, threads) = (share.thread as u64, share.threads as u64);
        Picker {
            order: self.order,
            count: self.count,
            mine: self.count.saturating_sub(thread).div_ceil(threads).max(1),
            thread,
            threads,
            cursor: Rc::clone(cursor),
            random: SmallRng::seed_from_u64(client as u64),
        }
    }
}

/// All keys of a space in one buffer.
#[derive(Debug, Clone)]
pub(crate) struct KeyTable {
    all: Bytes,
    key_bytes: usize,
}

impl KeyTable {
    /// The key of that index.
    pub(crate) fn key(&self, index: u64) -> Bytes {
        let start = index as usize * self.key_bytes;
        self.all.slice(start..start + self.key_bytes)
    }

    /// Whether `key` is the key of that index.
    pub(crate) fn has(&self, index: u64, key: &[u8]) -> bool {
        let start = index as usize * self.key_bytes;
        self.all.get(start..start + self.key_bytes) == Some(key)
    }
}

/// Chooses the next key's index.
#[derive(Debug)]
pub(crate) struct Picker {
    order: Order,
    count: u64,
    /// Keys that belong to this client's thread.
    mine: u64,
    thread: u64,
    threads: u64,
    cursor: Rc<Cell<u64>>,
    random: SmallRng,
}

impl Picker {
    /// The index of the key for the next call.
    pub(crate) fn pick(&mut self) -> u64 {
        let nth = match self.order {
            Order::Random => self.random.random_range(0..self.mine),
            Order::Sequential => {
                let nth = self.cursor.get();
                self.cursor.set((nth + 1) % self.mine);
                nth
            }
        };
        (nth * self.threads + self.thread) % self.count
    }

    /// The client's source of chance.
    pub(crate) fn random(&mut self) -> &mut SmallRng {
        &mut self.random
    }
}

/// Values of one size, cut from a shared buffer of random letters.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    pool: Bytes,
    value_bytes: usize,
}

impl Values {
    /// Values of `value_bytes` bytes.
    pub(crate) fn new(value_bytes: usize) -> Self {
        let mut random = SmallRng::seed_from_u64(value_bytes as u64);
        let letters = (0..value_bytes + VALUE_SPREAD_BYTES)
            .map(|_| random.random_range(b'!'..=b'~'))
            .collect::<Vec<u8>>();
        Self { pool: letters.into(), value_bytes }
    }

    /// The next value.
    pub(crate) fn value(&self, random: &mut SmallRng) -> Bytes {
        let start = random.random_range(0..VALUE_SPREAD_BYTES);
        self.pool.slice(start..start + self.value_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn space(count: u64, order: Order) -> KeySpace {
        KeySpace::new("k", 6, count, order).unwrap()
    }

    #[test]
    fn keys_have_one_length_and_lie_in_the_range() {
        let space = space(10_000, Order::Random);
        let table = space.table();
        let (first, end) = space.range();
        for index in [0, 1, 99, 9_999] {
            let key = table.key(index);
            assert_eq!(key.len(), 6);
            assert_eq!(key, space.key(index));
            assert!(table.has(index, &key) && !table.has(index + 1, &key));
            assert!(first <= key && key < end, "{key:?}");
            assert_eq!(space.index(&key), Some(index));
        }
        assert_eq!(space.key(42), "k00042");
        for foreign in ["k42", "x00042", "k10000", "k0004x", ""] {
            assert_eq!(space.index(foreign.as_bytes()), None, "{foreign:?}");
        }
    }

    #[test]
    fn keys_that_do_not_fit_are_refused() {
        assert!(KeySpace::new("prefix", 8, 100, Order::Random).is_ok());
        assert!(KeySpace::new("prefix", 8, 101, Order::Random).is_err());
        assert!(KeySpace::new("", 8, 0, Order::Random).is_err());
    }

    #[test]
    fn threads_in_sequence_visit_every_key_once_a_round() {
        let space = space(1001, Order::Sequential);
        let mut seen = BTreeSet::new();
        for thread in 0..3 {
            let share = Share { thread, threads: 3 };
            let cursor = Rc::new(Cell::new(0));
            let mut pickers: Vec<_> = (0..7).map(|c| space.picker(share, c, &cursor)).collect();
            for call in 0..(1001 - thread).div_ceil(3) {
                assert!(seen.insert(pickers[call % 7].pick()), "a key twice");
            }
        }
        assert_eq!(seen.len(), 1001);
    }

    #[test]
    fn random_keys_are_in_bounds_even_with_more_threads_than_keys() {
        let space = space(2, Order::Random);
        let share = Share { thread: 3, threads: 4 };
        let mut picker = space.picker(share, 0, &Rc::new(Cell::new(0)));
        assert!((0..100).all(|_| picker.pick() < 2));
    }

    #[test]
    fn values_have_their_size_and_differ() {
        let values = Values::new(256);
        let mut random = SmallRng::seed_from_u64(1);
        let (one, other) = (values.value(&mut random), values.value(&mut random));
        assert_eq!((one.len(), other.len()), (256, 256));
        assert_ne!(one, other);
        assert_eq!(Values::new(0).value(&mut random).len(), 0);
    }
}
