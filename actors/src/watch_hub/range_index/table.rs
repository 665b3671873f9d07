//! A hash table that grows and shrinks by one bucket at a time (linear
//! hashing), so that no insertion ever pays for all that came before it. The keys
//! themselves are with the owner of the numbers, who is asked for them: they would
//! take more memory than all else here.

use std::hash::{BuildHasher, RandomState};

/// An entry's place in the vector; [`NIL`] for none.
type Link = u32;

const NIL: Link = u32::MAX;

/// Vectors shorter than this keep what they have allocated.
const SHRINK_FROM: usize = 1024;

#[derive(Debug)]
struct Entry {
    hash: u32,
    /// The next entry of the bucket.
    next: Link,
    number: u32,
}

/// Numbers by key; see the module's text.
#[derive(Debug, Default)]
pub(super) struct KeyTable {
    hasher: RandomState,
    /// The first entry of each bucket.
    buckets: Vec<Link>,
    /// All entries, without gaps.
    entries: Vec<Entry>,
}

impl KeyTable {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number of `key`; `key_of` gives each number's key.
    pub(super) fn get<'a>(&self, key: &[u8], key_of: impl Fn(u32) -> &'a [u8]) -> Option<u32> {
        self.find(key, key_of).map(|at| self.entry(at).number)
    }

    /// Adds a key that is not there yet.
    pub(super) fn insert(&mut self, key: &[u8], number: u32) {
        let at = Link::try_from(self.entries.len()).ok().filter(|at| *at != NIL);
        let at = at.expect("there are fewer than 2^32 - 1 keys");
        let hash = self.hash(key);
        self.entries.push(Entry { hash, next: NIL, number });
        if self.entries.len() > self.buckets.len() {
            self.grow();
        }
        self.hang(at);
    }

    /// Takes a key out and gives its number, whose key `key_of` still knows.
    pub(super) fn remove<'a>(
        &mut self,
        key: &[u8],
        key_of: impl Fn(u32) -> &'a [u8],
    ) -> Option<u32> {
        let at = self.find(key, key_of)?;
        let after = self.entry(at).next;
        *self.link_to(at) = after;
        // The last entry fills the gap.
        let last = (self.entries.len() - 1) as Link;
        if at != last {
            *self.link_to(last) = at;
        }
        let number = self.entries.swap_remove(at as usize).number;
        while self.entries.len() < self.buckets.len() / 2 {
            self.shrink();
        }
        give_back(&mut self.buckets);
        give_back(&mut self.entries);
        Some(number)
    }

    fn find<'a>(&self, key: &[u8], key_of: impl Fn(u32) -> &'a [u8]) -> Option<Link> {
        let hash = self.hash(key);
        let mut at = *self.buckets.get(bucket_of(hash, self.buckets.len()))?;
        while at != NIL {
            let entry = self.entry(at);
            if entry.hash == hash && key_of(entry.number) == key {
                return Some(at);
            }
            at = entry.next;
        }
        None
    }

    /// The link that leads to the entry at `at`.
    fn link_to(&mut self, at: Link) -> &mut Link {
        let bucket = bucket_of(self.entry(at).hash, self.buckets.len());
        let mut before = NIL;
        let mut next = self.buckets[bucket];
        while next != at {
            before = next;
            next = self.entry(next).next;
        }
        match before {
            NIL => &mut self.buckets[bucket],
            before => &mut self.entries[before as usize].next,
        }
    }

    /// Hangs the entry at `at` into its bucket.
    fn hang(&mut self, at: Link) {
        let bucket = bucket_of(self.entry(at).hash, self.buckets.len());
        self.entries[at as usize].next = self.buckets[bucket];
        self.buckets[bucket] = at;
    }

    /// Adds a bucket, which takes its part of the one it is split from.
    fn grow(&mut self) {
        self.buckets.push(NIL);
        let origin = origin_of(self.buckets.len() - 1);
        let entries = std::mem::replace(&mut self.buckets[origin], NIL);
        self.hang_all(entries);
    }

    /// Takes the last bucket away; the one it was split from gets its entries.
    fn shrink(&mut self) {
        if let Some(entries) = self.buckets.pop() {
            self.hang_all(entries);
        }
    }

    /// Hangs the entry at `at` and those behind it into their buckets.
    fn hang_all(&mut self, mut at: Link) {
        while at != NIL {
            let next = self.entry(at).next;
            self.hang(at);
            at = next;
        }
    }

    fn hash(&self, key: &[u8]) -> u32 {
        // The lower half is as good as the whole: tables stay below 2^32 keys.
        self.hasher.hash_one(key) as u32
    }

    fn entry(&self, at: Link) -> &Entry {
        &self.entries[at as usize]
    }
}

/// The bucket of `hash` among `count`. Those that are not there yet are still
/// part of the one they will be split from.
fn bucket_of(hash: u32, count: usize) -> usize {
    let mask = count.next_power_of_two() - 1;
    let bucket = hash as usize & mask;
    if bucket < count { bucket } else { bucket & (mask >> 1) }
}

/// The bucket from which `bucket` is split: its number without the highest bit.
fn origin_of(bucket: usize) -> usize {
    bucket.checked_ilog2().map_or(0, |bit| bucket - (1 << bit))
}

fn give_back<T>(vector: &mut Vec<T>) {
    if vector.capacity() >= SHRINK_FROM && vector.len() < vector.capacity() / 4 {
        vector.shrink_to(vector.len() * 2);
    }
}

#[cfg(test)]
impl KeyTable {
    /// Checks that every entry is in its bucket, once, and that the buckets are
    /// as many as the entries call for.
    pub(super) fn check<'a>(&self, key_of: impl Fn(u32) -> &'a [u8]) {
        let mut seen = vec![false; self.entries.len()];
        for (bucket, &first) in self.buckets.iter().enumerate() {
            let mut at = first;
            while at != NIL {
                let entry = self.entry(at);
                assert_eq!(entry.hash, self.hash(key_of(entry.number)));
                assert_eq!(bucket_of(entry.hash, self.buckets.len()), bucket);
                assert!(!std::mem::replace(&mut seen[at as usize], true));
                at = entry.next;
            }
        }
        assert!(seen.iter().all(|seen| *seen));
        assert!((self.len()..=2 * self.len() + 1).contains(&self.buckets.len()));
    }

    /// Whether no more is allocated than any table may keep.
    pub(super) fn is_small(&self) -> bool {
        self.buckets.capacity() < SHRINK_FROM && self.entries.capacity() < SHRINK_FROM
    }
}
