//! Volumes as small sled databases.
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

use super::SledStoreOptions;
use super::StoreError;
use super::paced::{PacedWriter, forget_cached};
use super::stage::{self, CONF, DB, Stage};
use super::volume::{
    CONF_BYTES_MAX, FileSeal, NewVolume, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SealedFiles, Survey,
    TakeBlock, VolumeEntry, Volumes, compare, name_of, read_pieces,
};

/// Each volume is a directory with the files of one database.
#[derive(Debug)]
pub(super) struct SledVolumes {
    pub(super) root: PathBuf,
    pub(super) options: SledStoreOptions,
}

impl SledVolumes {
    fn dir_of(&self, number: u64) -> PathBuf {
        self.root.join(name_of(number))
    }
}

impl Volumes for SledVolumes {
    /// Sets the stage for the blocks that `survey` has counted.
    fn begin(&self, number: u64, survey: &Survey) -> Result<Box<dyn NewVolume>, StoreError> {
        let dir = self.dir_of(number);
        let segment_bytes = segment_bytes_for(survey);
        let stage = Stage::set(&self.root)?;
        let engine = Engine::open(&stage, segment_bytes, &dir)?;
        grow(&engine, survey.pieces)?;
        let bytes_per_second_max = self.options.bytes_per_second_max;
        Ok(Box::new(NewDatabase { dir, segment_bytes, bytes_per_second_max, engine, stage }))
    }

    fn read(&self, entry: &VolumeEntry, f: TakeBlock<'_>) -> Result<(), StoreError> {
        let dir = self.dir_of(entry.number);
        let stage = Stage::set(&self.root)?;
        check_conf(entry, &dir)?;
        fetch_db(entry, &dir, &stage)?;
        let mut engine = Engine::open(&stage, entry.segment_bytes, &dir)?;
        let piece_at = |index: u32| {
            let piece = engine.run(|db| db.get(index.to_be_bytes()))?;
            Ok(piece.map(Bytes::from_owner))
        };
        read_pieces(entry, &dir, piece_at, f)?;
        engine.close()
    }

    fn remove(&self, number: u64) -> Result<(), StoreError> {
        let dir = self.dir_of(number);
        std::fs::remove_dir_all(&dir).map_err(StoreError::io("remove", &dir))
    }

    fn sweep(&self) -> Result<(), StoreError> {
        stage::sweep(&self.root)
    }
}

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

/// A database that is being filled, on the stage.
struct NewDatabase {
    dir: PathBuf,
    segment_bytes: u32,
    bytes_per_second_max: u64,
    engine: Engine,
    // After the engine, so that sled is put away before its directory goes.
    stage: Stage,
}

impl NewVolume for NewDatabase {
    fn put(&mut self, index: u32, piece: Vec<u8>) -> Result<(), StoreError> {
        self.engine.run(|db| db.insert(index.to_be_bytes(), piece)).map(|_| ())
    }

    /// Copies the finished database off the stage.
    fn finish(self: Box<Self>) -> Result<SealedFiles, StoreError> {
        let Self { dir, segment_bytes, bytes_per_second_max, mut engine, stage } = *self;
        engine.run(|db| db.flush())?;
        engine.close()?;
        refuse_blobs(&stage, &dir)?;
        std::fs::create_dir(&dir).map_err(StoreError::io("create", &dir))?;
        let db = copy_out(&stage, &dir.join(DB), bytes_per_second_max)?;
        let conf_path = stage.dir().join(CONF);
        let conf = std::fs::read(&conf_path).map_err(StoreError::io("read", &conf_path))?;
        let conf = write_small(&conf, &dir.join(CONF))?;
        let synced = File::open(&dir).and_then(|dir| dir.sync_all());
        synced.map_err(StoreError::io("fsync", &dir))?;
        Ok(SealedFiles { segment_bytes, db, conf })
    }
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
