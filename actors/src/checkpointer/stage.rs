//! The stage: where sled works, away from the sealed files.
//!
//! sled keeps a database in one file, `db`, and writes to it even when it only opens it.
//! On the stage this file lives in memory (a memfd behind a symbolic link), so that sled
//! may do as it likes: what is sealed is a copy of the finished file, written and synced
//! by us, and what is loaded is a copy of the sealed one. Memory for one volume, and no
//! disk traffic that we do not pace. Where there is no memfd the file is a plain one.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::StoreError;

const NAME: &str = "stage";
pub(super) const DB: &str = "db";
pub(super) const CONF: &str = "conf";
const COPY_BYTES: usize = 256 * 1024;

/// A directory in which sled finds or leaves one database. Empty when made, gone when
/// dropped.
pub(super) struct Stage {
    dir: PathBuf,
    db: File,
}

impl Stage {
    /// Sets up a fresh stage below `dir`; a store has one at a time.
    pub(super) fn set(dir: &Path) -> Result<Self, StoreError> {
        sweep(dir)?;
        let dir = dir.join(NAME);
        std::fs::create_dir(&dir).map_err(StoreError::io("create", &dir))?;
        let path = dir.join(DB);
        let db = file_in_memory(&path)
            .or_else(|_| File::options().read(true).write(true).create_new(true).open(&path))
            .map_err(StoreError::io("create", &path))?;
        Ok(Self { dir, db })
    }

    /// The directory to give to sled.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Gives the database file from its start, in pieces.
    pub(super) fn read_db(
        &self,
        mut f: impl FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (mut offset, mut buffer) = (0, vec![0u8; COPY_BYTES]);
        loop {
            let read = self.db.read_at(&mut buffer, offset);
            let read = read.map_err(StoreError::io("read", &self.dir.join(DB)))?;
            if read == 0 {
                return Ok(());
            }
            f(&buffer[..read])?;
            offset += read as u64;
        }
    }

    /// Fills the database file from a sealed one; gives its length and CRC32C.
    pub(super) fn fill_db(&self, from: &mut File, path: &Path) -> Result<(u64, u32), StoreError> {
        let (mut offset, mut crc, mut buffer) = (0, 0, vec![0u8; COPY_BYTES]);
        loop {
            let read = from.read(&mut buffer).map_err(StoreError::io("read", path))?;
            if read == 0 {
                return Ok((offset, crc));
            }
            let bytes = &buffer[..read];
            crc = crc32c::crc32c_append(crc, bytes);
            let written = self.db.write_all_at(bytes, offset);
            written.map_err(StoreError::io("write", &self.dir.join(DB)))?;
            offset += read as u64;
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::debug!(%error, "the stage of the checkpoint stays until the next one");
        }
    }
}

/// Removes what a crash left of a stage.
pub(super) fn sweep(dir: &Path) -> Result<(), StoreError> {
    let dir = dir.join(NAME);
    match std::fs::remove_dir_all(&dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", &dir)(e)),
        _ => Ok(()),
    }
}

#[cfg(target_os = "linux")]
fn file_in_memory(path: &Path) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = File::from(rustix::fs::memfd_create("castd-checkpoint", flags)?);
    std::os::unix::fs::symlink(format!("/proc/self/fd/{}", file.as_raw_fd()), path)?;
    // Without /proc the link leads nowhere: then a plain file takes its place.
    if let Err(error) = File::open(path) {
        std::fs::remove_file(path)?;
        return Err(error);
    }
    Ok(file)
}

#[cfg(not(target_os = "linux"))]
fn file_in_memory(_path: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}
