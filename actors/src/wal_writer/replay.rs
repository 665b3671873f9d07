//! From records back to entries, hard state and snapshot: raft's view of what was read.

use raft::eraftpb::{Entry, HardState};

use super::SnapshotMarker;
use super::record::{self, Kind, Record};

/// What the records read so far add up to.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Entries up to this index are not wanted.
    after_index: u64,
    /// The lowest index from which on the log has every entry.
    pub(super) first_index: u64,
    /// The last index in the log.
    pub(super) last_index: u64,
    pub(super) hard_state: HardState,
    pub(super) snapshot: Option<SnapshotMarker>,
    /// The wanted entries, without a gap.
    pub(super) entries: Vec<Entry>,
    /// The term of the entry at `after_index`.
    pub(super) after_term: Option<u64>,
    /// For each segment: nothing beyond this index in it counts any more.
    pub(super) segment_max: Vec<u64>,
}

impl Replay {
    pub(super) fn new(after_index: u64) -> Self {
        Self { after_index, ..Self::default() }
    }

    /// The next segment begins, and says that its next entry has `first_index`.
    pub(super) fn begin_segment(&mut self, first_index: u64) -> Result<(), String> {
        let last = first_index.checked_sub(1).ok_or("the segment begins with index 0")?;
        if self.segment_max.is_empty() {
            (self.first_index, self.last_index) = (first_index, last);
        } else if last != self.last_index {
            let expected = self.last_index + 1;
            return Err(format!("the segment begins with index {first_index}, not {expected}"));
        }
        self.segment_max.push(0);
        Ok(())
    }

    /// Takes in a record that is not metadata.
    pub(super) fn apply(&mut self, record: &Record<'_>) -> Result<(), String> {
        match record.kind {
            Some(Kind::Entries) => self.apply_entries(record.payload),
            Some(Kind::HardState) => self.apply_hard_state(record.payload),
            Some(Kind::Snapshot) => self.apply_snapshot(record.payload),
            Some(Kind::Metadata) => Err("metadata in the middle of a segment".into()),
            None => Err("the kind of the record is unknown".into()),
        }
    }

    fn apply_entries(&mut self, payload: &[u8]) -> Result<(), String> {
        let batch = record::decode_entries(payload, self.after_index)?;
        let (first, last) = (batch.first, self.last_index);
        if first > last + 1 {
            return Err(format!("entry {first} follows entry {last}"));
        }
        if first <= self.hard_state.commit {
            let commit = self.hard_state.commit;
            return Err(format!("entry {first} replaces one below the commit index {commit}"));
        }
        if first <= last {
            self.forget_behind(first - 1);
        }
        self.entries.extend(batch.kept);
        self.after_term = batch.after_term.or(self.after_term);
        self.reach(batch.last);
        Ok(())
    }

    fn apply_hard_state(&mut self, payload: &[u8]) -> Result<(), String> {
        let new = record::decode_hard_state(payload)?;
        if new.commit > self.last_index {
            let (commit, last) = (new.commit, self.last_index);
            return Err(format!("commit index {commit}, but the last entry is {last}"));
        }
        if new.commit < self.hard_state.commit || new.term < self.hard_state.term {
            return Err("the hard state goes back".into());
        }
        self.hard_state = new;
        Ok(())
    }

    fn apply_snapshot(&mut self, payload: &[u8]) -> Result<(), String> {
        let marker = record::decode_snapshot(payload)?;
        if marker.index < self.hard_state.commit {
            return Err("the snapshot is older than what is committed".into());
        }
        self.forget_behind(marker.index);
        self.entries.clear();
        self.first_index = marker.index + 1;
        self.after_term = if marker.index == self.after_index { Some(marker.term) } else { None };
        self.reach(marker.index);
        self.snapshot = Some(marker);
        Ok(())
    }

    /// Drops all entries behind `index`.
    fn forget_behind(&mut self, index: u64) {
        let keep = self.entries.partition_point(|entry| entry.index <= index);
        self.entries.truncate(keep);
        if self.after_index > index {
            self.after_term = None;
        }
        self.first_index = self.first_index.min(index + 1);
        for max in &mut self.segment_max {
            *max = index.min(*max);
        }
    }

    fn reach(&mut self, index: u64) {
        self.last_index = index;
        if let Some(max) = self.segment_max.last_mut() {
            *max = index;
        }
    }
}
