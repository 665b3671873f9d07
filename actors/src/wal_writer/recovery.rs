//! Creating a log, and opening one: reading every segment, and deciding what a bad record means.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::keeper::{Keeper, Pool, ThreadKeeper};
use super::log::{Closed, State};
use super::record::{self, FORMAT_VERSION, HEADER_BYTES, Kind, Metadata, NoRecord};
use super::replay::Replay;
use super::segment::{self, PAGE_BYTES};
use super::writer::SegmentWriter;
use super::{Identity, Recovered, SnapshotMarker, TailCut, Wal, WalError, WalOptions};
use crate::shared::disk::{Disk, DiskFile, RealDisk};

/// Whether `dir` holds a log.
///
/// # Errors
/// When the directory cannot be read: then nobody knows.
pub fn exists(dir: &Path) -> Result<bool, WalError> {
    exists_on(&RealDisk { unsafe_no_fsync: false }, dir)
}

/// [`exists`] on any disk.
pub(crate) fn exists_on(disk: &dyn Disk, dir: &Path) -> Result<bool, WalError> {
    match disk.list(dir) {
        Ok(names) => Ok(names.iter().any(|name| segment::parse_name(name).is_some())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(WalError::io("listing", dir, error)),
    }
}

/// Creates an empty log. A crash on the way leaves either a whole log or none: the first segment
/// gets its name when it is complete.
///
/// # Errors
/// [`WalError::Exists`] when the directory holds a log; otherwise what the disk says.
pub fn create(options: WalOptions, identity: Identity) -> Result<Wal, WalError> {
    let disk = Arc::new(RealDisk { unsafe_no_fsync: options.unsafe_no_fsync });
    create_on(disk, options, identity, threaded)
}

/// Opens a log, cuts a torn tail, and returns it with what it holds beyond `after_index`: the
/// last index in sealed state, and at least the last index that was released.
///
/// # Errors
/// [`WalError::Damaged`], [`WalError::EndsTooEarly`], [`WalError::StartsTooLate`] and
/// [`WalError::MissingSegment`] when acknowledged data is gone, [`WalError::NewerFormat`] when a
/// newer program wrote it, [`WalError::NotFound`] when there is none. Nothing on disk has been
/// changed then.
pub fn open(options: WalOptions, after_index: u64) -> Result<(Wal, Recovered), WalError> {
    let disk = Arc::new(RealDisk { unsafe_no_fsync: options.unsafe_no_fsync });
    open_on(disk, options, after_index, threaded)
}

/// Opens a log that a snapshot may have replaced: where it does not hold the entry that `marker`
/// names, it is restarted behind it, durably, with its term and its vote. Then, or if that was
/// done before, or if the log never needed it, it is as [`open`] gives it.
///
/// # Errors
/// As for [`open`]; also when more was committed in the log than the snapshot covers.
pub fn open_behind(
    options: WalOptions,
    marker: &SnapshotMarker,
) -> Result<(Wal, Recovered), WalError> {
    let disk = Arc::new(RealDisk { unsafe_no_fsync: options.unsafe_no_fsync });
    open_behind_on(disk, options, marker, threaded)
}

/// Reads `bytes` as a segment and as the payload of each kind of record. For fuzzing: whatever
/// the bytes are, this returns.
#[doc(hidden)]
pub fn fuzz_segment(bytes: &[u8]) {
    let mut reader = Reader::new(0);
    let _ = reader.read(Path::new("fuzz"), 1, bytes);
    for kind in [Kind::Metadata, Kind::Entries, Kind::HardState, Kind::Snapshot] {
        let next = bytes.len() as u64;
        let record = record::Record {
            kind: Some(kind),
            epoch: 0,
            group_start: 0,
            payload: bytes,
            crc: 0,
            next,
        };
        let mut replay = Replay::new(2);
        let _ = replay.begin_segment(1);
        let _ = replay.apply(&record);
        let _ = record::decode_metadata(bytes);
    }
    let _ = segment::search_beyond(bytes, 0, 0, 0);
}

fn threaded(pool: Pool) -> Result<Box<dyn Keeper>, WalError> {
    Ok(Box::new(ThreadKeeper::spawn(pool)?))
}

/// [`create`] on any disk, with any keeper.
pub(crate) fn create_on(
    disk: Arc<dyn Disk>,
    options: WalOptions,
    identity: Identity,
    keeper: impl FnOnce(Pool) -> Result<Box<dyn Keeper>, WalError>,
) -> Result<Wal, WalError> {
    let options = whole_pages(options);
    let dir = options.dir.clone();
    disk.create_dir(&dir).map_err(|e| WalError::io("creating the directory of", &dir, e))?;
    if !segments_in(disk.as_ref(), &dir)?.is_empty() {
        return Err(WalError::Exists(dir));
    }
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        disk.sync_dir(parent).map_err(|e| WalError::io("syncing", parent, e))?;
    }
    let pool = pool_for(&disk, &options)?;
    Wal::begin(disk, keeper(pool)?, options, identity)
}

/// [`open`] on any disk, with any keeper.
pub(crate) fn open_on(
    disk: Arc<dyn Disk>,
    options: WalOptions,
    after_index: u64,
    keeper: impl FnOnce(Pool) -> Result<Box<dyn Keeper>, WalError>,
) -> Result<(Wal, Recovered), WalError> {
    open_found(disk, options, after_index, |_| false, keeper)
}

/// [`open_behind`] on any disk, with any keeper.
pub(crate) fn open_behind_on(
    disk: Arc<dyn Disk>,
    options: WalOptions,
    marker: &SnapshotMarker,
    keeper: impl FnOnce(Pool) -> Result<Box<dyn Keeper>, WalError>,
) -> Result<(Wal, Recovered), WalError> {
    let lacks = |found: &Replay| {
        found.last_index < marker.index || found.after_term.is_some_and(|term| term != marker.term)
    };
    let mut restart = false;
    let noted = |found: &Replay| {
        restart = lacks(found);
        restart
    };
    let (mut wal, mut recovered) = open_found(disk, options, marker.index, noted, keeper)?;
    if restart {
        recovered.hard_state = wal.restart_durably(marker)?;
        recovered.snapshot = Some(marker.clone());
        recovered.after_term = Some(marker.term);
        recovered.entries.clear();
    }
    Ok((wal, recovered))
}

/// Opens what is there. Where `is_replaced` says so, it need not reach `after_index`.
fn open_found(
    disk: Arc<dyn Disk>,
    options: WalOptions,
    after_index: u64,
    is_replaced: impl FnOnce(&Replay) -> bool,
    keeper: impl FnOnce(Pool) -> Result<Box<dyn Keeper>, WalError>,
) -> Result<(Wal, Recovered), WalError> {
    let options = whole_pages(options);
    let segments = segments_in(disk.as_ref(), &options.dir)?;
    let mut reader = Reader::new(after_index);
    let mut bytes = Vec::new();
    for (sequence, path) in &segments {
        load(disk.as_ref(), path, &mut bytes)?;
        reader.read(path, *sequence, &bytes)?;
    }
    drop(bytes);
    let Some((identity, mut tail)) = reader.identity.zip(reader.tail.take()) else {
        return Err(WalError::NotFound(options.dir));
    };
    let needed = (!is_replaced(&reader.replay)).then_some(after_index);
    reader.check_reach(&options.dir, &tail, needed)?;

    let mut file = disk.open(&tail.path).map_err(|e| WalError::io("opening", &tail.path, e))?;
    let cut = tail.cut.take().map(|cut| cut_tail(file.as_mut(), cut)).transpose()?;
    // What was read may be in the page cache only, from a process that died before its sync.
    file.sync_data().map_err(|e| WalError::io("syncing", &tail.path, e))?;
    let failed = |e| WalError::io("syncing the directory of", &options.dir, e);
    disk.sync_dir(&options.dir).map_err(failed)?;
    let writer = SegmentWriter::resume(file, tail)?;

    let replay = reader.replay;
    let mut hard_state = replay.hard_state;
    hard_state.commit = hard_state.commit.max(after_index);
    if let Some(marker) = &replay.snapshot {
        hard_state.commit = hard_state.commit.max(marker.index);
    }
    let mut closed: Vec<_> = std::iter::zip(segments, &replay.segment_max)
        .map(|((_, path), &max_index)| Closed { path, max_index })
        .collect();
    let max_index = closed.pop().map_or(0, |active| active.max_index);
    let recovered = Recovered {
        identity,
        hard_state,
        snapshot: replay.snapshot,
        entries: replay.entries,
        after_term: replay.after_term,
        cut,
        segments: closed.len() + 1,
        bytes: reader.bytes,
    };
    let state = State {
        closed: closed.into(),
        last_index: replay.last_index,
        max_index,
        hard_state: replay.hard_state,
    };
    let keeper = keeper(pool_for(&disk, &options)?)?;
    let mut wal = Wal::resume(disk, keeper, options, identity, writer, state);
    wal.begin_epoch()?;
    Ok((wal, recovered))
}

fn whole_pages(options: WalOptions) -> WalOptions {
    let segment_bytes = options.segment_bytes.max(PAGE_BYTES).next_multiple_of(PAGE_BYTES);
    WalOptions { segment_bytes, ..options }
}

fn pool_for(disk: &Arc<dyn Disk>, options: &WalOptions) -> Result<Pool, WalError> {
    Pool::new(Arc::clone(disk), &options.dir, options.segment_bytes, options.spare_segments)
}

/// The segments in a directory by sequence, none of them missing.
fn segments_in(disk: &dyn Disk, dir: &Path) -> Result<Vec<(u64, PathBuf)>, WalError> {
    let names = match disk.list(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(WalError::NotFound(dir.to_path_buf()));
        }
        other => other.map_err(|e| WalError::io("listing", dir, e))?,
    };
    let mut segments: Vec<_> = names
        .iter()
        .filter_map(|name| Some((segment::parse_name(name)?.0, dir.join(name))))
        .collect();
    segments.sort();
    for pair in segments.windows(2) {
        let sequence = pair[0].0.saturating_add(1);
        if pair[1].0 != sequence {
            return Err(WalError::MissingSegment { dir: dir.to_path_buf(), sequence });
        }
    }
    Ok(segments)
}

fn load(disk: &dyn Disk, path: &Path, bytes: &mut Vec<u8>) -> Result<(), WalError> {
    let failed = |e| WalError::io("reading", path, e);
    let file = disk.open(path).map_err(failed)?;
    let length = file.len().map_err(failed)?;
    bytes.resize(length as usize, 0);
    file.read_at(bytes, 0).map_err(failed)?;
    file.forget_cache();
    Ok(())
}

/// Overwrites a torn tail with zeros, so that none of its records can ever be read behind new
/// ones. The caller syncs.
fn cut_tail(file: &mut dyn DiskFile, cut: TailCut) -> Result<TailCut, WalError> {
    let zeros = vec![0u8; cut.bytes as usize];
    file.write_at(&zeros, cut.offset).map_err(|e| WalError::io("cutting", &cut.path, e))?;
    Ok(cut)
}

/// The segment that was read last.
pub(super) struct Tail {
    pub(super) path: PathBuf,
    pub(super) sequence: u64,
    /// The epoch of its last record.
    pub(super) epoch: u32,
    /// Where its records end.
    pub(super) end: u64,
    pub(super) chain: u32,
    /// The torn records behind `end`.
    cut: Option<TailCut>,
}

/// Reads segments in their order.
struct Reader {
    replay: Replay,
    identity: Option<Identity>,
    tail: Option<Tail>,
    /// Bytes of records so far.
    bytes: u64,
}

impl Reader {
    fn new(after_index: u64) -> Self {
        Self { replay: Replay::new(after_index), identity: None, tail: None, bytes: 0 }
    }

    /// Reads the next segment: `bytes` is the whole file.
    fn read(&mut self, path: &Path, sequence: u64, bytes: &[u8]) -> Result<(), WalError> {
        if let Some(torn) = self.tail.as_ref().and_then(|tail| tail.cut.as_ref()) {
            let detail = format!(
                "{}; the segment was synced before the next one ({}) began, so acknowledged \
                 entries are damaged",
                torn.detail,
                path.display()
            );
            return Err(WalError::damaged(&torn.path, torn.offset, detail));
        }
        let (mut offset, mut chain, mut epoch) = self.read_head(path, sequence, bytes)?;
        let fault = loop {
            match record::read_at(bytes, sequence, epoch, offset) {
                Ok(record) => {
                    self.replay.apply(&record).map_err(|e| WalError::damaged(path, offset, e))?;
                    chain = record::extend_chain(chain, record.crc);
                    (offset, epoch) = (record.next, record.epoch);
                }
                Err(fault) => break fault,
            }
        };
        let cut = judge_end(path, bytes, &Stop { sequence, epoch, offset, fault })?;
        self.bytes += offset;
        let path = path.to_path_buf();
        self.tail = Some(Tail { path, sequence, epoch, end: offset, chain, cut });
        Ok(())
    }

    /// Reads the metadata and the first hard state, which were synced before the segment got its
    /// name and can therefore not be torn.
    fn read_head(
        &mut self,
        path: &Path,
        sequence: u64,
        bytes: &[u8],
    ) -> Result<(u64, u32, u32), WalError> {
        let head = |offset| {
            record::read_at(bytes, sequence, 0, offset).map_err(|fault| {
                let detail = format!("{}: the head of the segment is damaged", describe(&fault));
                WalError::damaged(path, offset, detail)
            })
        };
        let first = head(0)?;
        let metadata = record::decode_metadata(first.payload).map_err(|e| match e {
            Ok(found) => {
                let supported = FORMAT_VERSION;
                WalError::NewerFormat { path: path.to_path_buf(), found, supported }
            }
            Err(detail) => WalError::damaged(path, 0, detail),
        })?;
        self.check_metadata(path, sequence, bytes, &metadata)?;
        if first.kind != Some(Kind::Metadata) {
            return Err(WalError::damaged(path, 0, "the first record is not metadata"));
        }
        let second = head(first.next)?;
        let damaged = |detail| WalError::damaged(path, first.next, detail);
        self.replay.begin_segment(metadata.first_index).map_err(damaged)?;
        if second.kind != Some(Kind::HardState) {
            return Err(damaged("the second record is not a hard state".into()));
        }
        self.replay.apply(&second).map_err(damaged)?;
        let chain = record::extend_chain(record::extend_chain(0, first.crc), second.crc);
        Ok((second.next, chain, second.epoch))
    }

    fn check_metadata(
        &mut self,
        path: &Path,
        sequence: u64,
        bytes: &[u8],
        metadata: &Metadata,
    ) -> Result<(), WalError> {
        let here = |detail: String| Err(WalError::damaged(path, 0, detail));
        let Metadata { cluster_id, member_id, .. } = *metadata;
        let identity = Identity { cluster_id, member_id };
        if metadata.sequence != sequence {
            return here(format!("the file is segment {:016x}", metadata.sequence));
        }
        if self.identity.is_some_and(|known| known != identity) {
            return here(format!("it belongs to member {member_id:x} of cluster {cluster_id:x}"));
        }
        if (bytes.len() as u64) < metadata.segment_bytes {
            let length = bytes.len() as u64;
            let detail = format!("the file was truncated from {} bytes", metadata.segment_bytes);
            return Err(WalError::damaged(path, length, detail));
        }
        if let Some(previous) = &self.tail
            && previous.chain != metadata.previous_chain
        {
            let detail = format!(
                "its records do not end where the next segment ({}) says they do: acknowledged \
                 entries are missing",
                path.display()
            );
            return Err(WalError::damaged(&previous.path, previous.end, detail));
        }
        self.identity = Some(identity);
        Ok(())
    }

    /// Checks that the log reaches from the sealed state, if that needs it, to everything that
    /// was committed.
    fn check_reach(&self, dir: &Path, tail: &Tail, after: Option<u64>) -> Result<(), WalError> {
        let Replay { first_index, last_index, ref hard_state, .. } = self.replay;
        if let Some(after) = after.filter(|after| first_index > after + 1) {
            let dir = dir.to_path_buf();
            return Err(WalError::StartsTooLate { dir, first: first_index, after });
        }
        let needs = [
            (hard_state.commit, "the commit index of the hard state"),
            (after.unwrap_or(0), "the sealed state"),
        ];
        for (needed, needed_by) in needs {
            if last_index < needed {
                let (path, offset) = (tail.path.clone(), tail.end);
                let last = last_index;
                return Err(WalError::EndsTooEarly { path, offset, last, needed, needed_by });
            }
        }
        Ok(())
    }
}

fn describe(fault: &NoRecord) -> &'static str {
    match fault {
        NoRecord::Unwritten => "there is no record",
        NoRecord::BrokenHeader => "the checksum of the record's header does not match",
        NoRecord::BrokenPayload { .. } => "the checksum of the record does not match",
    }
}

/// Where the records of a segment stop, and why.
struct Stop {
    sequence: u64,
    /// The epoch of the last record.
    epoch: u32,
    offset: u64,
    fault: NoRecord,
}

/// Decides what the end of a segment's records is: a clean end (`None`), a torn tail, or damage.
fn judge_end(path: &Path, bytes: &[u8], stop: &Stop) -> Result<Option<TailCut>, WalError> {
    let &Stop { sequence, epoch, offset: end, ref fault } = stop;
    let beyond = segment::search_beyond(bytes, sequence, epoch, end);
    if let Some(group) = beyond.group_start_max.filter(|&start| start > end) {
        let detail = format!(
            "{}, but records that were written after it was synced follow (from offset {group}): \
             acknowledged entries are damaged",
            describe(fault)
        );
        return Err(WalError::damaged(path, end, detail));
    }
    if beyond.undecided {
        let detail = format!("{}, and what follows cannot be told apart", describe(fault));
        return Err(WalError::damaged(path, end, detail));
    }
    if *fault == NoRecord::Unwritten && beyond.end == 0 {
        return Ok(None);
    }
    let header_end = end + HEADER_BYTES as u64;
    let until = beyond.end.max(header_end).min(bytes.len() as u64);
    Ok(Some(TailCut {
        path: path.to_path_buf(),
        offset: end,
        bytes: until - end,
        detail: describe(fault).to_owned(),
    }))
}
