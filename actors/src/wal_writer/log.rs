//! The log: raft's rules about entries, rolling to the next segment, releasing old ones.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use raft::eraftpb::{Entry, HardState};

use super::keeper::Keeper;
use super::record::{self, ENTRY_HEAD_BYTES_MAX, FORMAT_VERSION, HEADER_BYTES, Kind, Metadata};
use super::segment::{self, PAGE_BYTES};
use super::writer::{RecordStart, SegmentWriter};
use super::{Append, Identity, SnapshotMarker, WalError, WalOptions};
use crate::shared::disk::Disk;

/// An entries record is closed when its payload has reached this.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// The next segment is asked for when this much of one is written: early, so that it is there in
/// time, but not by a member that hardly ever writes.
const PREPARE_AFTER_BYTES: u64 = 1 << 20;
/// Room for the hard state that may end a group.
const HARD_STATE_BYTES_MAX: u64 = 64;
/// Room for the metadata and the hard state at the head of a segment.
const HEAD_BYTES_MAX: u64 = 256;

/// A segment that is full.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) path: PathBuf,
    /// Nothing beyond this index in it counts any more.
    pub(super) max_index: u64,
}

/// What the log knows when it begins or is opened again.
pub(super) struct State {
    pub(super) closed: VecDeque<Closed>,
    /// The last index in the log.
    pub(super) last_index: u64,
    /// The highest index in the segment that is written.
    pub(super) max_index: u64,
    /// The last hard state in the log.
    pub(super) hard_state: HardState,
}

/// The raft log on disk. Single-threaded; [`super::spawn`] gives it a thread.
pub struct Wal {
    disk: Arc<dyn Disk>,
    keeper: Box<dyn Keeper>,
    options: WalOptions,
    identity: Identity,
    writer: SegmentWriter,
    state: State,
    /// The entries record that is being filled.
    open: Option<RecordStart>,
    /// The commit index that goes into the hard state at the end of the group.
    commit: u64,
    /// The keeper was told that this segment fills up.
    next_asked_for: bool,
}

impl Wal {
    /// Begins a log whose directory has no segment.
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        mut keeper: Box<dyn Keeper>,
        options: WalOptions,
        identity: Identity,
    ) -> Result<Self, WalError> {
        let state = State {
            closed: VecDeque::new(),
            last_index: 0,
            max_index: 0,
            hard_state: HardState::default(),
        };
        let spare = keeper.take(options.segment_bytes)?;
        let path = options.dir.join(segment::name(1, 1));
        let mut writer = SegmentWriter::begin(spare.file, spare.path, 1, spare.bytes);
        write_head(&mut writer, identity, 0, &state)?;
        install(disk.as_ref(), &options, &mut writer, path)?;
        Ok(Self::resume(disk, keeper, options, identity, writer, state))
    }

    /// Goes on with a log that was read.
    pub(super) fn resume(
        disk: Arc<dyn Disk>,
        keeper: Box<dyn Keeper>,
        options: WalOptions,
        identity: Identity,
        writer: SegmentWriter,
        state: State,
    ) -> Self {
        let commit = state.hard_state.commit;
        let next_asked_for = false;
        Self { disk, keeper, options, identity, writer, state, open: None, commit, next_asked_for }
    }

    /// Begins a new epoch with a hard state, and syncs it. What a torn write left behind the end
    /// of the log cannot pass for a part of what is written from here on, not even where both
    /// end up in the same record, sector by sector.
    pub(super) fn begin_epoch(&mut self) -> Result<(), WalError> {
        // Cannot overflow: each epoch takes a record, and a segment ends before 2^35 bytes.
        self.writer.epoch += 1;
        self.put_hard_state(self.state.hard_state)?;
        self.write()?;
        self.sync()
    }

    /// The last index in the log.
    pub fn last_index(&self) -> u64 {
        self.state.last_index
    }

    /// How many segments are in use.
    pub fn segments(&self) -> usize {
        self.state.closed.len() + 1
    }

    /// Takes a request into the group. It is on disk after [`Wal::write`], and durable after
    /// [`Wal::sync`].
    ///
    /// A new term or vote is written in front of the entries, so that no cut leaves entries of a
    /// term that the hard state has not reached; the commit index behind them, so that no cut
    /// leaves a commit index beyond the log.
    ///
    /// # Errors
    /// When the request breaks raft's rules, or a segment cannot be made, written or synced.
    pub fn append(&mut self, request: &Append) -> Result<(), WalError> {
        if let Some(new) = &request.hard_state {
            self.check_hard_state(new, request)?;
            let old = &self.state.hard_state;
            if (new.term, new.vote) != (old.term, old.vote) {
                let commit = old.commit;
                self.put_hard_state(HardState { commit, ..*new })?;
            }
        }
        for entry in &request.entries {
            self.put_entry(entry)?;
        }
        if let Some(new) = &request.hard_state {
            self.commit = new.commit;
        }
        Ok(())
    }

    /// Restarts the log behind a snapshot. Goes into the group like [`Wal::append`].
    ///
    /// # Errors
    /// When the snapshot is older than what is committed, or as for [`Wal::append`].
    pub fn restart_behind(&mut self, marker: &SnapshotMarker) -> Result<(), WalError> {
        if marker.index < self.commit {
            let (index, commit) = (marker.index, self.commit);
            let detail = format!("snapshot at {index} behind the commit index {commit}");
            return Err(WalError::OutOfOrder(detail));
        }
        self.close_batch()?;
        self.make_room((marker.conf_state.len() + HEADER_BYTES + ENTRY_HEAD_BYTES_MAX) as u64)?;
        let start = self.writer.begin_record();
        record::encode_snapshot(marker, self.writer.payload())?;
        self.writer.end_record(start, Kind::Snapshot)?;
        self.forget_behind(marker.index);
        self.state.last_index = marker.index;
        self.state.max_index = marker.index;
        Ok(())
    }

    /// Restarts the log behind a snapshot, with a hard state that goes with it, and makes that
    /// durable: the vote stays where the term does. Gives the hard state.
    ///
    /// # Errors
    /// As for [`Wal::restart_behind`].
    pub fn restart_durably(&mut self, marker: &SnapshotMarker) -> Result<HardState, WalError> {
        let HardState { term, vote, .. } = self.state.hard_state;
        let vote = if term >= marker.term { vote } else { 0 };
        let state = HardState { term: term.max(marker.term), vote, commit: marker.index };
        self.restart_behind(marker)?;
        self.append(&Append { hard_state: Some(state), ..Append::default() })?;
        self.write()?;
        self.sync()?;
        Ok(state)
    }

    /// Bytes of the group so far.
    pub fn staged_bytes(&self) -> usize {
        self.writer.staged_bytes()
    }

    /// Writes the group with one call and returns its bytes.
    ///
    /// # Errors
    /// Any error is final: the log must be dropped.
    pub fn write(&mut self) -> Result<u64, WalError> {
        self.close_batch()?;
        if self.commit > self.state.hard_state.commit {
            let commit = self.commit;
            self.put_hard_state(HardState { commit, ..self.state.hard_state })?;
        }
        let bytes = self.writer.write()?;
        let prepare_after = PREPARE_AFTER_BYTES.min(self.writer.capacity / 2);
        if !self.next_asked_for && self.writer.position() > prepare_after {
            self.keeper.prepare()?;
            self.next_asked_for = true;
        }
        Ok(bytes)
    }

    /// Makes all that was written durable, and begins a new group.
    ///
    /// # Errors
    /// Any error is final: the log must be dropped.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.writer.sync()
    }

    /// Whether something was staged or written that no sync has covered.
    pub fn is_dirty(&self) -> bool {
        self.writer.is_dirty()
    }

    /// Gives up the segments in which every entry is at or below `index`, in their order; never
    /// the one that is written. What is not durable yet is synced first: an old entry may be
    /// given up only when the one that replaced it cannot be lost any more.
    ///
    /// # Errors
    /// Any error is final: the log must be dropped.
    pub fn release(&mut self, index: u64) -> Result<(), WalError> {
        while self.state.closed.front().is_some_and(|segment| segment.max_index <= index) {
            if self.is_dirty() {
                self.write()?;
                self.sync()?;
            }
            if let Some(segment) = self.state.closed.pop_front() {
                self.keeper.retire(segment.path)?;
            }
        }
        Ok(())
    }

    fn check_hard_state(&self, new: &HardState, request: &Append) -> Result<(), WalError> {
        let last = request.entries.last().map_or(self.state.last_index, |e| e.index);
        let detail = if new.commit > last {
            format!("commit index {} beyond the last index {last}", new.commit)
        } else if new.commit < self.commit {
            format!("commit index {} after {}", new.commit, self.commit)
        } else if new.term < self.state.hard_state.term {
            format!("term {} after {}", new.term, self.state.hard_state.term)
        } else {
            return Ok(());
        };
        Err(WalError::OutOfOrder(detail))
    }

    fn put_hard_state(&mut self, new: HardState) -> Result<(), WalError> {
        self.close_batch()?;
        if self.writer.room() < HARD_STATE_BYTES_MAX {
            self.roll(HARD_STATE_BYTES_MAX)?;
        }
        put_hard_state(&mut self.writer, &new)?;
        self.state.hard_state = new;
        Ok(())
    }

    fn put_entry(&mut self, entry: &Entry) -> Result<(), WalError> {
        let (index, last) = (entry.index, self.state.last_index);
        if index > last + 1 || index <= self.commit {
            let commit = self.commit;
            let detail = format!("entry {index}: last index {last}, commit index {commit}");
            return Err(WalError::OutOfOrder(detail));
        }
        let full = |start| self.writer.payload_bytes(start) >= BATCH_BYTES_MAX;
        if index != last + 1 || self.open.is_some_and(full) {
            self.close_batch()?;
        }
        let size = entry.data.len() + entry.context.len();
        self.make_room((size + HEADER_BYTES + 2 * ENTRY_HEAD_BYTES_MAX) as u64)?;
        if self.open.is_none() {
            self.open = Some(self.writer.begin_record());
            record::encode_batch_start(index, self.writer.payload())?;
        }
        record::encode_entry(entry, self.writer.payload())?;
        if index <= last {
            self.forget_behind(index - 1);
        }
        self.state.last_index = index;
        self.state.max_index = index;
        Ok(())
    }

    /// Nothing behind `index` counts any more in the segments written so far.
    fn forget_behind(&mut self, index: u64) {
        for segment in &mut self.state.closed {
            segment.max_index = segment.max_index.min(index);
        }
    }

    fn close_batch(&mut self) -> Result<(), WalError> {
        match self.open.take() {
            Some(start) => self.writer.end_record(start, Kind::Entries),
            None => Ok(()),
        }
    }

    /// Rolls to the next segment unless `bytes` and a hard state fit into this one.
    fn make_room(&mut self, bytes: u64) -> Result<(), WalError> {
        let needed = bytes + HARD_STATE_BYTES_MAX;
        if self.writer.room() < needed { self.roll(needed) } else { Ok(()) }
    }

    /// Syncs this segment and goes on in the next one, which has `bytes` bytes of room at least.
    fn roll(&mut self, bytes: u64) -> Result<(), WalError> {
        self.close_batch()?;
        self.writer.write()?;
        if self.writer.is_dirty() {
            self.writer.sync()?;
        }
        let needed = (bytes + HEAD_BYTES_MAX).next_multiple_of(PAGE_BYTES);
        let spare = self.keeper.take(needed)?;
        let sequence = self.writer.sequence + 1;
        let next = SegmentWriter::begin(spare.file, spare.path, sequence, spare.bytes);
        let previous = std::mem::replace(&mut self.writer, next);
        write_head(&mut self.writer, self.identity, previous.chain, &self.state)?;
        let name = segment::name(sequence, self.state.last_index + 1);
        let path = self.options.dir.join(name);
        install(self.disk.as_ref(), &self.options, &mut self.writer, path)?;
        let max_index = std::mem::take(&mut self.state.max_index);
        self.state.closed.push_back(Closed { path: previous.path, max_index });
        self.next_asked_for = false;
        Ok(())
    }
}

fn put_hard_state(writer: &mut SegmentWriter, state: &HardState) -> Result<(), WalError> {
    let start = writer.begin_record();
    record::encode_hard_state(state, writer.payload())?;
    writer.end_record(start, Kind::HardState)
}

/// Writes and syncs what every segment begins with.
fn write_head(
    writer: &mut SegmentWriter,
    identity: Identity,
    previous_chain: u32,
    state: &State,
) -> Result<(), WalError> {
    let metadata = Metadata {
        version: FORMAT_VERSION,
        cluster_id: identity.cluster_id,
        member_id: identity.member_id,
        sequence: writer.sequence,
        previous_chain,
        first_index: state.last_index + 1,
        segment_bytes: writer.capacity,
    };
    let start = writer.begin_record();
    record::encode_metadata(&metadata, writer.payload())?;
    writer.end_record(start, Kind::Metadata)?;
    put_hard_state(writer, &state.hard_state)?;
    writer.write()?;
    writer.sync()
}

/// Gives a segment its name. Its head is durable before the name is, so a file of that name is
/// a part of the log, and the segment before it was synced.
fn install(
    disk: &dyn Disk,
    options: &WalOptions,
    writer: &mut SegmentWriter,
    path: PathBuf,
) -> Result<(), WalError> {
    disk.rename(&writer.path, &path).map_err(|e| WalError::io("renaming", &writer.path, e))?;
    writer.path = path;
    let dir = &options.dir;
    disk.sync_dir(dir).map_err(|e| WalError::io("syncing the directory of", dir, e))
}
