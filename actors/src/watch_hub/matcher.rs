//! Which watchers a key concerns.

use std::collections::HashMap;

use bytes::Bytes;

use super::StreamId;
use crate::mvcc::KeyRange;

/// A watcher: its stream and its id there.
pub(super) type WatcherKey = (StreamId, i64);

/// Watchers by what they watch. Watchers of one key are found by hashing, those
/// of ranges by looking at each distinct range, of which there are few.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    keys: HashMap<Bytes, Vec<WatcherKey>>,
    ranges: HashMap<(Bytes, Option<Bytes>), Vec<WatcherKey>>,
}

impl Matcher {
    pub(super) fn add(&mut self, range: &KeyRange, watcher: WatcherKey) {
        self.list(range).push(watcher);
    }

    pub(super) fn remove(&mut self, range: &KeyRange, watcher: WatcherKey) {
        let list = self.list(range);
        if let Some(at) = list.iter().position(|other| *other == watcher) {
            list.swap_remove(at);
        }
        if list.is_empty() {
            match range_key(range) {
                None => self.keys.remove(range.start()),
                Some(key) => self.ranges.remove(&key),
            };
        }
    }

    /// Calls `found` for every watcher of `key`.
    pub(super) fn each(&self, key: &[u8], mut found: impl FnMut(WatcherKey)) {
        if let Some(list) = self.keys.get(key) {
            list.iter().copied().for_each(&mut found);
        }
        for ((from, to), list) in &self.ranges {
            let inside = from.as_ref() <= key && to.as_ref().is_none_or(|to| key < to.as_ref());
            if inside {
                list.iter().copied().for_each(&mut found);
            }
        }
    }

    fn list(&mut self, range: &KeyRange) -> &mut Vec<WatcherKey> {
        match range_key(range) {
            None => self.keys.entry(Bytes::copy_from_slice(range.start())).or_default(),
            Some(key) => self.ranges.entry(key).or_default(),
        }
    }
}

fn range_key(range: &KeyRange) -> Option<(Bytes, Option<Bytes>)> {
    match range {
        KeyRange::Single(_) => None,
        KeyRange::Between(from, to) => Some((from.clone(), Some(to.clone()))),
        KeyRange::From(from) => Some((from.clone(), None)),
    }
}
