//! The receiver's side: a stream on disk, checked as it comes and again when it
//! is read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::stream::{Decoder, Head, Item, SnapshotError};
use crate::checkpointer::start_write_out;
use crate::mvcc::{Store, StoreMeta};

const NAME_PREFIX: &str = "incoming-";
/// Bytes written between two pushes to the disk: one great sync at the end would
/// hold up the log's.
const WINDOW_BYTES: u64 = 1 << 20;
/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// What the bytes of a stream wait in. Dropping it removes them.
pub(crate) trait SpoolFile: fmt::Debug + Send + Sync {
    /// What errors call it.
    fn path(&self) -> &Path;
    fn append(&mut self, piece: &[u8]) -> io::Result<()>;
    /// Makes all of it durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Reads it from its start.
    fn read(&self) -> io::Result<Box<dyn Read + '_>>;
}

fn failed(file: &dyn SpoolFile, source: io::Error) -> SnapshotError {
    SnapshotError::Io { path: file.path().to_path_buf(), source }
}

/// Puts a stream together on disk. Dropping it removes the file, also when the stream
/// turns out to be of no use.
#[derive(Debug)]
pub struct SpoolWriter {
    file: Box<dyn SpoolFile>,
    decoder: Decoder,
    head: Option<Box<Head>>,
    written: u64,
}

impl SpoolWriter {
    /// Begins a file in the directory of checkpoints.
    ///
    /// # Errors
    /// When the directory takes no file.
    pub fn create(dir: &Path) -> io::Result<Self> {
        Ok(Self::into_file(Box::new(FileOnDisk::create(dir)?)))
    }

    /// Begins an empty file.
    pub(crate) fn into_file(file: Box<dyn SpoolFile>) -> Self {
        Self { file, decoder: Decoder::default(), head: None, written: 0 }
    }

    /// Appends a piece of the stream.
    ///
    /// # Errors
    /// What the disk says, or a [`SnapshotError`] of kind
    /// [`io::ErrorKind::InvalidData`] at the first byte that cannot be right.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let head = &mut self.head;
        let checked = self.decoder.push(piece, &mut |item| {
            if let Item::Head(new) = item {
                *head = Some(new);
            }
            Ok(())
        });
        checked.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.file.append(piece)?;
        self.written += piece.len() as u64;
        Ok(())
    }

    /// Ends the stream and makes the file durable.
    ///
    /// # Errors
    /// When the stream is not whole, or the disk fails.
    pub fn finish(self) -> Result<Spool, SnapshotError> {
        let Self { mut file, decoder, head, written } = self;
        decoder.finish()?;
        let head = head.ok_or(SnapshotError::CutShort { bytes: written })?;
        file.sync().map_err(|source| failed(file.as_ref(), source))?;
        Ok(Spool { file, head })
    }
}

/// A received snapshot, whole and waiting to be installed. The file is removed
/// when this is dropped.
#[derive(Debug)]
pub struct Spool {
    file: Box<dyn SpoolFile>,
    head: Box<Head>,
}

impl Spool {
    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The raft index of the last entry in the state.
    pub fn index(&self) -> u64 {
        self.head.index
    }

    /// The raft term of that entry.
    pub fn term(&self) -> u64 {
        self.head.term
    }

    /// Everything in the state that is not a record. Its member is the sender.
    pub fn meta(&self) -> &StoreMeta {
        &self.head.meta
    }

    /// Reads the state into memory. Blocks for as long as that takes.
    ///
    /// # Errors
    /// When the file is no longer what was received.
    pub fn load(&self) -> Result<(Store, StoreMeta), SnapshotError> {
        let failed = |source| failed(self.file.as_ref(), source);
        let mut file = self.file.read().map_err(failed)?;
        let mut decoder = Decoder::default();
        let mut loading = Loading::default();
        let mut piece = vec![0; READ_BYTES];
        loop {
            let length = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            decoder.push(&piece[..length], &mut |item| loading.take(item))?;
        }
        decoder.finish()?;
        loading.finish().ok_or(SnapshotError::CutShort { bytes: 0 })
    }
}

/// Removes snapshots that an earlier run left behind; what cannot be removed
/// stays, and takes room only.
pub fn remove_leftovers(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(NAME_PREFIX))
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove an old snapshot");
        }
    }
}

/// A file that is removed when this is dropped.
#[derive(Debug)]
struct FileOnDisk {
    path: PathBuf,
    file: File,
    written: u64,
    /// Up to here the disk has it.
    pushed: u64,
}

impl FileOnDisk {
    fn create(dir: &Path) -> io::Result<Self> {
        let (file, path) = create_unused(dir)?;
        Ok(Self { path, file, written: 0, pushed: 0 })
    }
}

impl SpoolFile for FileOnDisk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece)?;
        self.written += piece.len() as u64;
        if self.written - self.pushed >= WINDOW_BYTES {
            start_write_out(&self.file, self.pushed, self.written - self.pushed)?;
            self.pushed = self.written;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn read(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(File::open(&self.path)?))
    }
}

impl Drop for FileOnDisk {
    fn drop(&mut self) {
        // What is left behind is removed at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn create_unused(dir: &Path) -> io::Result<(File, PathBuf)> {
    let mut number = 1u32;
    loop {
        let path = dir.join(format!("{NAME_PREFIX}{number:08x}"));
        match File::create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < u32::MAX => {
                number += 1;
            }
            created => return created.map(|file| (file, path)),
        }
    }
}

/// A store on its way from a stream into memory.
#[derive(Debug, Default)]
pub(super) struct Loading {
    store: Store,
    meta: Option<StoreMeta>,
}

impl Loading {
    pub(super) fn take(&mut self, item: Item) -> Result<(), SnapshotError> {
        match item {
            Item::Head(head) => self.meta = Some(head.meta),
            Item::Block(block) => {
                let compacted = self.meta.as_ref().map_or(-1, |meta| meta.compact_revision);
                self.store.take_block(block, compacted);
            }
        }
        Ok(())
    }

    /// The store, unless the stream had no head. All of it will be written anew,
    /// so no older copy of a deleted key is left anywhere.
    pub(super) fn finish(mut self) -> Option<(Store, StoreMeta)> {
        let meta = self.meta?;
        self.store.finish_load(&meta, meta.compact_revision);
        Some((self.store, meta))
    }
}
