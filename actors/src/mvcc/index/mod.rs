//! The key index: a persistent, counted B+ tree from keys to their newest change.
//!
//! *Persistent*: cloning copies one pointer, and a clone never changes. A node
//! that a clone still holds is copied before it is written, one that nobody
//! else holds is written in place, so a batch of changes copies each node on
//! its way once at most. *Counted*: each inner node knows how many live keys
//! every child has, so ranks and counts cost O(log n). Leaves keep their keys
//! back to back in one buffer: copying a leaf is three memory copies, whatever
//! the number of keys, and there is no allocation for a key.

mod iter;
mod node;
mod packed;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use iter::Iter;
use node::{Node, Updated};

use super::revision::{KeyRange, Revision};

/// What the index knows of a key: its newest change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The newest change; its `main` is the key's mod revision.
    pub revision: Revision,
    /// The transaction that created the key; 0 when it does not exist.
    pub create_revision: i64,
    /// Puts since then; 0 when the newest change is a deletion.
    pub version: i64,
    /// The lease the key is attached to; 0 for none.
    pub lease: i64,
}

impl Entry {
    /// Whether the key exists at the newest revision.
    pub fn is_live(&self) -> bool {
        self.version != 0
    }
}

/// The tree; see the module's text.
#[derive(Clone, Debug, Default)]
pub struct Index {
    root: Arc<Node>,
}

impl Index {
    /// Number of live keys.
    pub fn live(&self) -> u64 {
        self.root.live()
    }

    /// The newest change of `key`, a deletion included.
    pub fn get(&self, key: &[u8]) -> Option<Entry> {
        self.root.get(key)
    }

    /// Sets the newest change of `key` to what `make` gives for the one before
    /// it, and returns both: before and after.
    pub fn update(
        &mut self,
        key: &[u8],
        make: impl FnOnce(Option<Entry>) -> Entry,
    ) -> (Option<Entry>, Entry) {
        let Updated { before, after, split } = Arc::make_mut(&mut self.root).update(key, make);
        if let Some((separator, right)) = split {
            let left = std::mem::take(&mut self.root);
            self.root = Arc::new(Node::parent_of(left, &separator, right));
        }
        (before, after)
    }

    /// Sets the newest change of `key` and gives the one before it.
    pub fn set(&mut self, key: &[u8], entry: Entry) -> Option<Entry> {
        self.update(key, |_| entry).0
    }

    /// Forgets `key`.
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let before = Arc::make_mut(&mut self.root).remove(key)?;
        if let Some(only) = self.root.only_child() {
            self.root = only;
        }
        Some(before)
    }

    /// Number of live keys below `key`.
    pub fn rank(&self, key: &[u8]) -> u64 {
        self.root.rank(key)
    }

    /// Number of live keys in `range`.
    pub fn count(&self, range: &KeyRange) -> u64 {
        match range {
            KeyRange::Single(key) => u64::from(self.get(key).is_some_and(|entry| entry.is_live())),
            KeyRange::Between(from, to) if from >= to => 0,
            KeyRange::Between(from, to) => self.rank(to) - self.rank(from),
            KeyRange::From(from) => self.live() - self.rank(from),
        }
    }

    /// The keys at or behind `start` in order, deletions included.
    pub fn iter_from(&self, start: &[u8]) -> Iter<'_> {
        Iter::new(&self.root, start)
    }

    /// The keys of `range` in order, deletions included.
    pub fn iter_range<'a>(
        &'a self,
        range: &'a KeyRange,
    ) -> impl Iterator<Item = (&'a [u8], Entry)> + 'a {
        self.iter_from(range.start())
            .take_while(|(key, _)| !range.is_past(key))
            .filter(|(key, _)| range.contains(key))
    }
}
