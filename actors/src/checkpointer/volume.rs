//! A volume: an immutable part of the sealed copy, one small sled database.
//!
//! sled writes a value once when it is linked to its leaf, and again whenever the leaf is
//! split or has gathered ten links: three times in all when blocks are inserted in order.
//! So a volume's tree is grown first, with empty values; after that no leaf is split, and
//! none holds more keys than it may gather links. Then each value is written once.

use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::block::{self, Assembler, Block, PIECE_OVERHEAD_BYTES};
use super::disk::{PacedWriter, forget_cached, sync_directory};
use super::stage::{CONF, DB, Stage};
use super::{RevisionKey, StoreError};

pub(super) const PREFIX: &str = "vol-";

/// Length and content of a sealed file.
#[derive(Copy, Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(super) struct FileSeal {
    pub(super) length: u64,
    pub(super) crc: u32,
}

/// What the manifest says of a volume.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(super) struct VolumeEntry {
    /// Names the directory; never used twice.
    pub(super) number: u64,
    /// Every revision of the range that lived when the volume was sealed is in it.
    pub(super) from: RevisionKey,
    pub(super) to: RevisionKey,
    /// What compaction to this revision gave up is not in it.
    pub(super) compact_revision: i64,
    /// Values in the sled database.
    pub(super) pieces: u32,
    /// The blocks' own bytes.
    pub(super) block_bytes: u64,
    /// The database was made with segments of this size and opens with no other.
    pub(super) segment_bytes: u32,
    pub(super) db: FileSeal,
    pub(super) conf: FileSeal,
}

impl VolumeEntry {
    pub(super) fn check(&self) -> Result<(), String> {
        let segment = self.segment_bytes;
        if !segment.is_power_of_two() || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment)
        {
            return Err(format!("volume {:016x} has segments of {segment} bytes", self.number));
        }
        if self.conf.length > CONF_BYTES_MAX {
            return Err(format!("volume {:016x} has an endless configuration", self.number));
        }
        Ok(())
    }

    pub(super) fn dir(&self, root: &Path) -> PathBuf {
        dir_of(root, self.number)
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.db.length + self.conf.length
    }
}

pub(super) fn dir_of(root: &Path, number: u64) -> PathBuf {
    root.join(format!("{PREFIX}{number:016x}"))
}

/// The number in a volume's directory name, or `None` where it is not one.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    if digits.len() == 16 { u64::from_str_radix(digits, 16).ok() } else { None }
}

/// A volume that is to be written, measured on a first visit of its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Survey {
    pub(super) from: RevisionKey,
    pub(super) to: RevisionKey,
    pub(super) pieces: u32,
    pub(super) block_bytes: u64,
    pub(super) piece_bytes_max: usize,
    /// As [`VolumeEntry::compact_revision`].
    pub(super) compact_revision: i64,
}

impl Survey {
    pub(super) fn begin(from: RevisionKey, compact_revision: i64) -> Self {
        Self { from, to: from, compact_revision, pieces: 0, block_bytes: 0, piece_bytes_max: 0 }
    }

    /// Counts a block in.
    pub(super) fn count(&mut self, last: RevisionKey, block_bytes: usize) {
        self.to = last;
        self.pieces += block::pieces_of(block_bytes) as u32;
        self.block_bytes += block_bytes as u64;
        let piece_bytes = block_bytes.min(block::PIECE_BYTES_MAX) + PIECE_OVERHEAD_BYTES;
        self.piece_bytes_max = self.piece_bytes_max.max(piece_bytes);
    }
}

const SEGMENT_BYTES_MIN: u32 = 16 * 1024;
const SEGMENT_BYTES_MAX: u32 = 2 * 1024 * 1024;
const CONF_BYTES_MAX: u64 = 4096;
/// More than sled adds to a value in its log: key, lengths, message and segment headers.
const RECORD_OVERHEAD_BYTES: usize = 256;

/// Large enough that a quarter of it holds the longest piece (longer records would go to
/// files of their own), and no larger than a fraction of a small volume.
fn segment_bytes_for(survey: &Survey) -> u32 {
    let longest = 4 * (survey.piece_bytes_max + RECORD_OVERHEAD_BYTES);
    let share = usize::try_from(survey.block_bytes / 8).unwrap_or(usize::MAX);
    let wanted = longest.max(share).min(SEGMENT_BYTES_MAX as usize).next_power_of_two();
    (wanted as u32).max(SEGMENT_BYTES_MIN)
}

/// sled, with its panics turned into errors.
struct Engine {
    db: Option<sled::Db>,
    volume: PathBuf,
}

/// The cache must only hold the leaf that is being filled or read.
const CACHE_BYTES: u64 = 8 << 20;

impl Engine {
    fn open(stage: &Stage, segment_bytes: u32, volume: &Path) -> Result<Self, StoreError> {
        let config = sled::Config::new()
            .path(stage.dir())
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput)
            .segment_size(segment_bytes as usize);
        let db = guarded(volume, || config.open())?;
        Ok(Self { db: Some(db), volume: volume.to_owned() })
    }

    fn run<T>(&self, f: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, StoreError> {
        let db = self.db.as_ref().expect("the database is there until it is closed");
        guarded(&self.volume, || f(db))
    }

    fn close(&mut self) -> Result<(), StoreError> {
        let db = self.db.take();
        guarded(&self.volume, || {
            drop(db);
            Ok(())
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::debug!(%error, "sled failed while it was put away");
        }
    }
}

fn guarded<T>(volume: &Path, f: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    let failed = |reason| StoreError::Engine { volume: volume.to_owned(), reason };
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result.map_err(|e| failed(e.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(failed(format!("it panicked: {}", text.unwrap_or("no text"))))
        }
    }
}

/// Leaves are split when they have more than 16 keys, into 9 and the rest. Keys beyond
/// the last piece see to it that the last leaf, the only one that may be larger and may
/// already carry links, holds no piece.
const SPARE_KEYS: u32 = 17;

fn grow(engine: &Engine, pieces: u32) -> Result<(), StoreError> {
    engine.run(|db| {
        (0..pieces + SPARE_KEYS)
            .try_for_each(|index| db.insert(index.to_be_bytes(), &[][..]).map(|_| ()))
    })
}

/// A volume that is being filled, on the stage.
pub(super) struct VolumeWriter {
    number: u64,
    dir: PathBuf,
    survey: Survey,
    segment_bytes: u32,
    engine: Engine,
    pieces: u32,
    // After the engine, so that sled is put away before its directory goes.
    stage: Stage,
}

impl VolumeWriter {
    /// Sets the stage for the blocks that `survey` has counted.
    pub(super) fn begin(root: &Path, number: u64, survey: Survey) -> Result<Self, StoreError> {
        let dir = dir_of(root, number);
        let segment_bytes = segment_bytes_for(&survey);
        let stage = Stage::set(root)?;
        let engine = Engine::open(&stage, segment_bytes, &dir)?;
        grow(&engine, survey.pieces)?;
        Ok(Self { number, dir, survey, segment_bytes, engine, pieces: 0, stage })
    }

    /// Takes the next block.
    pub(super) fn add(
        &mut self,
        first: RevisionKey,
        last: RevisionKey,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let pieces = block::encode(self.number, self.pieces, first, last, bytes);
        for piece in pieces.map_err(StoreError::Caller)? {
            let key = self.pieces.to_be_bytes();
            self.engine.run(|db| db.insert(key, piece))?;
            self.pieces += 1;
        }
        Ok(())
    }

    /// True once all the blocks of the survey are there.
    pub(super) fn is_full(&self) -> bool {
        self.pieces >= self.survey.pieces
    }

    /// Copies the finished database off the stage, durably, with its directory but not
    /// with the name of this directory in the root.
    pub(super) fn finish(mut self, bytes_per_second_max: u64) -> Result<VolumeEntry, StoreError> {
        if self.pieces != self.survey.pieces {
            return Err(view_changed(&self.survey, self.pieces));
        }
        self.engine.run(|db| db.flush())?;
        self.engine.close()?;
        let Self { number, dir, survey, stage, segment_bytes, .. } = self;
        refuse_blobs(&stage, &dir)?;
        std::fs::create_dir(&dir).map_err(StoreError::io("create", &dir))?;
        let db = copy_out(&stage, &dir.join(DB), bytes_per_second_max)?;
        let conf_path = stage.dir().join(CONF);
        let conf = std::fs::read(&conf_path).map_err(StoreError::io("read", &conf_path))?;
        let conf = write_small(&conf, &dir.join(CONF))?;
        sync_directory(&dir)?;
        Ok(VolumeEntry {
            number,
            from: survey.from,
            to: survey.to,
            compact_revision: survey.compact_revision,
            pieces: survey.pieces,
            block_bytes: survey.block_bytes,
            segment_bytes,
            db,
            conf,
        })
    }
}

/// A view must give the same blocks on both of its visits.
pub(super) fn view_changed(survey: &Survey, pieces: u32) -> StoreError {
    StoreError::Caller(format!(
        "the view of {}..={} changed during a seal: {} pieces, then {pieces}",
        survey.from, survey.to, survey.pieces
    ))
}

/// sled keeps long records in files of their own, which a volume has no place for; the
/// choice of the segment size prevents them.
fn refuse_blobs(stage: &Stage, volume: &Path) -> Result<(), StoreError> {
    let blobs = stage.dir().join("blobs");
    let mut entries = std::fs::read_dir(&blobs).map_err(StoreError::io("list", &blobs))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(StoreError::Engine {
            volume: volume.to_owned(),
            reason: "it put a record outside its log".to_owned(),
        }),
    }
}

fn copy_out(stage: &Stage, path: &Path, bytes_per_second_max: u64) -> Result<FileSeal, StoreError> {
    let failed = |e| StoreError::io("write", path)(e);
    let mut out = PacedWriter::create(path, bytes_per_second_max).map_err(failed)?;
    stage.read_db(|bytes| out.write(bytes).map_err(failed))?;
    let (length, crc) = out.finish().map_err(failed)?;
    Ok(FileSeal { length, crc })
}

fn write_small(bytes: &[u8], path: &Path) -> Result<FileSeal, StoreError> {
    let failed = |e| StoreError::io("write", path)(e);
    let mut out = PacedWriter::create(path, u64::MAX).map_err(failed)?;
    out.write(bytes).map_err(failed)?;
    let (length, crc) = out.finish().map_err(failed)?;
    Ok(FileSeal { length, crc })
}

/// Gives the blocks of a sealed volume in order. Every bit of it is checked: first that
/// its files are what was sealed, then each piece as sled gives it.
pub(super) fn read(
    root: &Path,
    entry: &VolumeEntry,
    f: &mut dyn FnMut(Block) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let dir = entry.dir(root);
    let stage = Stage::set(root)?;
    check_conf(entry, &dir)?;
    fetch_db(entry, &dir, &stage)?;
    let mut engine = Engine::open(&stage, entry.segment_bytes, &dir)?;
    read_pieces(&engine, entry, &dir, f)?;
    engine.close()
}

fn check_conf(entry: &VolumeEntry, dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(CONF);
    let mut conf = Vec::new();
    open_sealed(&path)?
        .take(CONF_BYTES_MAX + 1)
        .read_to_end(&mut conf)
        .map_err(StoreError::io("read", &path))?;
    let found = FileSeal { length: conf.len() as u64, crc: crc32c::crc32c(&conf) };
    compare(&path, entry.conf, found)
}

fn fetch_db(entry: &VolumeEntry, dir: &Path, stage: &Stage) -> Result<(), StoreError> {
    let path = dir.join(DB);
    let mut db = open_sealed(&path)?;
    let length = db.metadata().map_err(StoreError::io("look at", &path))?.len();
    if length != entry.db.length {
        let reason = format!("it has {length} bytes and was sealed with {}", entry.db.length);
        return Err(StoreError::damaged(&path, None, reason));
    }
    let (length, crc) = stage.fill_db(&mut db, &path)?;
    forget_cached(&db);
    compare(&path, entry.db, FileSeal { length, crc })
}

/// The sealed files are opened for reading only, here and nowhere else.
fn open_sealed(path: &Path) -> Result<File, StoreError> {
    File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => StoreError::damaged(path, None, "it is missing"),
        _ => StoreError::io("open", path)(e),
    })
}

fn compare(path: &Path, sealed: FileSeal, found: FileSeal) -> Result<(), StoreError> {
    if sealed == found {
        return Ok(());
    }
    let reason = format!(
        "it was sealed with {} bytes and CRC {:08x}, and has {} bytes and CRC {:08x}",
        sealed.length, sealed.crc, found.length, found.crc
    );
    Err(StoreError::damaged(path, None, reason))
}

fn read_pieces(
    engine: &Engine,
    entry: &VolumeEntry,
    dir: &Path,
    f: &mut dyn FnMut(Block) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut assembler = Assembler::new(entry.number);
    let (mut end, mut block_bytes) = (None, 0u64);
    for index in 0..entry.pieces {
        let damaged = |reason: String| StoreError::damaged(dir, Some(index), reason);
        let piece = engine.run(|db| db.get(index.to_be_bytes()))?;
        let piece = piece.ok_or_else(|| damaged("it is missing".to_owned()))?;
        let Some(block) = assembler.push(&Bytes::from_owner(piece)).map_err(damaged)? else {
            continue;
        };
        let in_range = entry.from <= block.first && block.last <= entry.to;
        if !in_range || end.is_some_and(|end| block.first <= end) {
            let reason = format!("its range {}..={} is out of place", block.first, block.last);
            return Err(damaged(reason));
        }
        end = Some(block.last);
        block_bytes += block.bytes.len() as u64;
        f(block)?;
    }
    assembler.finish().map_err(|reason| StoreError::damaged(dir, None, reason))?;
    if block_bytes != entry.block_bytes {
        let reason = format!("it holds {block_bytes} bytes of {}", entry.block_bytes);
        return Err(StoreError::damaged(dir, None, reason));
    }
    Ok(())
}
