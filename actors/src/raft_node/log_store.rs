//! The recent part of the raft log, in memory, where raft reads it.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

/// Entries behind a point up to which the log was given up, and what raft must
/// know to start. The WAL has all of it on disk.
#[derive(Debug, Default)]
pub struct LogStore {
    hard_state: HardState,
    conf_state: ConfState,
    /// Index and term of the entry before the first one.
    base: (u64, u64),
    entries: VecDeque<Entry>,
    /// How many bytes there are up to each entry, it included.
    sums: VecDeque<u64>,
    /// The same for the entry before the first one.
    given_up: u64,
    /// What a snapshot taken now would cover, and who is in the cluster there.
    applied: (u64, ConfState),
}

impl LogStore {
    /// A log that continues after the entry at `base` (index and term).
    pub fn new(
        base: (u64, u64),
        hard_state: HardState,
        conf_state: ConfState,
        entries: Vec<Entry>,
    ) -> Self {
        let applied = (base.0, conf_state.clone());
        let mut store = Self { hard_state, conf_state, base, applied, ..Self::default() };
        store.append(entries);
        store
    }

    /// Takes entries in; gives back those that were there from the first one's
    /// index on, which are replaced.
    pub fn append(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let mut replaced = Vec::new();
        let Some(first) = entries.first() else { return replaced };
        while self.last() >= first.index.max(self.base.0 + 1) {
            let Some(dropped) = self.entries.pop_back() else { break };
            self.sums.pop_back();
            replaced.push(dropped);
        }
        assert_eq!(first.index, self.last() + 1, "entries continue the log without a gap");
        let mut sum = self.sum_up_to(self.last());
        self.sums.extend(entries.iter().map(|entry| {
            sum += entry_bytes(entry);
            sum
        }));
        self.entries.extend(entries);
        replaced
    }

    /// Begins anew behind a snapshot that replaces everything.
    pub fn reset(&mut self, base: (u64, u64), conf_state: ConfState) {
        self.base = base;
        self.entries.clear();
        self.sums.clear();
        self.applied = (base.0, conf_state);
    }

    /// The state machine has applied the log up to `index`, where `conf_state`
    /// says who is in the cluster.
    pub fn set_applied(&mut self, index: u64, conf_state: Option<ConfState>) {
        self.applied.0 = index;
        if let Some(conf_state) = conf_state {
            self.applied.1 = conf_state;
        }
    }

    /// Gives up entries up to `index`, if they are there.
    pub fn compact(&mut self, index: u64) {
        while let Some(entry) = self.entries.front()
            && entry.index <= index
        {
            self.base = (entry.index, entry.term);
            self.entries.pop_front();
            self.given_up = self.sums.pop_front().unwrap_or(self.given_up);
        }
    }

    /// Bytes of the entries held.
    pub fn bytes(&self) -> u64 {
        self.bytes_between(self.base.0, self.last())
    }

    /// Bytes of the entries held behind the index `after` and up to `upto`.
    pub fn bytes_between(&self, after: u64, upto: u64) -> u64 {
        self.sum_up_to(upto).saturating_sub(self.sum_up_to(after))
    }

    fn sum_up_to(&self, index: u64) -> u64 {
        let held = index.saturating_sub(self.base.0).min(self.entries.len() as u64);
        let last = (held as usize).checked_sub(1).and_then(|position| self.sums.get(position));
        last.copied().unwrap_or(self.given_up)
    }

    /// Index of the first entry held.
    pub fn first(&self) -> u64 {
        self.base.0 + 1
    }

    /// Index of the last entry held, or of the one before the first.
    pub fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    fn position(&self, index: u64) -> Result<usize> {
        if index <= self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        usize::try_from(index - self.base.0 - 1)
            .map_err(|_| Error::Store(StorageError::Unavailable))
    }
}

fn entry_bytes(entry: &Entry) -> u64 {
    (entry.data.len() + entry.context.len() + size_of::<Entry>()) as u64
}

impl Storage for LogStore {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state, conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        let (start, end) = (self.position(low)?, self.position(high)?);
        assert!(end <= self.entries.len(), "raft asks for entries up to the last one only");
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let fits = |entry: &&Entry| {
            let first = size == 0;
            size += entry_bytes(entry);
            first || size <= limit
        };
        Ok(self.entries.range(start..end).take_while(fits).cloned().collect())
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        let entry = self.entries.get(self.position(index)?);
        entry.map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    /// Names the state as of the last applied entry. The state itself is not
    /// here: whoever sends the message asks for it.
    fn snapshot(&self, request_index: u64, _to: u64) -> Result<Snapshot> {
        let (index, conf_state) = &self.applied;
        if *index == 0 || *index < request_index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = *index;
        metadata.term = self.term(*index)?;
        metadata.set_conf_state(conf_state.clone());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![0; 10].into(), ..Entry::default() }
    }

    fn store() -> LogStore {
        let entries = (5..=9).map(|index| entry(index, 2)).collect();
        LogStore::new((4, 1), HardState::default(), ConfState::default(), entries)
    }

    fn indexes(entries: &[Entry]) -> Vec<(u64, u64)> {
        entries.iter().map(|entry| (entry.index, entry.term)).collect()
    }

    #[test]
    fn it_answers_for_what_it_holds() {
        let store = store();
        assert_eq!((store.first_index(), store.last_index()), (Ok(5), Ok(9)));
        assert_eq!((store.term(4), store.term(9)), (Ok(1), Ok(2)));
        assert_eq!(store.term(3), Err(Error::Store(StorageError::Compacted)));
        assert_eq!(store.term(10), Err(Error::Store(StorageError::Unavailable)));
        let some = store.entries(6, 9, None, GetEntriesContext::empty(false)).unwrap();
        assert_eq!(indexes(&some), [(6, 2), (7, 2), (8, 2)]);
        let one = store.entries(6, 9, 1, GetEntriesContext::empty(false)).unwrap();
        assert_eq!(one.len(), 1, "one entry is given however large it is");
    }

    #[test]
    fn a_new_leaders_entries_replace_old_ones() {
        let mut store = store();
        let replaced = store.append(vec![entry(7, 3), entry(8, 3)]);
        assert_eq!(indexes(&replaced), [(9, 2), (8, 2), (7, 2)]);
        assert_eq!(store.last_index(), Ok(8));
        assert_eq!((store.term(6), store.term(7)), (Ok(2), Ok(3)));
    }

    #[test]
    fn a_snapshot_names_what_is_applied() {
        let mut store = store();
        let voters = ConfState::from((vec![1, 2], vec![3]));
        store.set_applied(7, Some(voters.clone()));
        let metadata = store.snapshot(0, 2).unwrap().take_metadata();
        assert_eq!((metadata.index, metadata.term), (7, 2));
        assert_eq!(metadata.get_conf_state(), &voters);
        assert!(store.snapshot(8, 2).is_err(), "nothing newer is there to be sent");

        store.reset((20, 5), voters);
        assert_eq!(
            (store.first_index(), store.last_index(), store.term(20)),
            (Ok(21), Ok(20), Ok(5))
        );
        assert_eq!(store.snapshot(0, 2).unwrap().get_metadata().index, 20);
    }

    #[test]
    fn compaction_keeps_the_last_ones_term() {
        let mut store = store();
        store.compact(7);
        assert_eq!((store.first_index(), store.term(7), store.entries.len()), (Ok(8), Ok(2), 2));
        store.compact(100);
        assert_eq!((store.first_index(), store.last_index(), store.bytes()), (Ok(10), Ok(9), 0));
        store.append(vec![entry(10, 4)]);
        assert_eq!(store.term(10), Ok(4));
    }
}
