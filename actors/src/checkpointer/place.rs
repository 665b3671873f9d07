//! The directory that the manifest and the volumes are in, on any disk.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StoreError;
use crate::shared::disk::Disk;

/// A directory of a disk; clones are the same one.
#[derive(Clone)]
pub(crate) struct Place {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.dir).finish()
    }
}

impl Place {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self { disk, dir: dir.to_owned() }
    }

    /// Where a file of this name is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes the directory if it is not there.
    pub(super) fn make(&self) -> Result<(), StoreError> {
        self.disk.create_dir(&self.dir).map_err(StoreError::io("create", &self.dir))
    }

    /// The names in it.
    pub(super) fn names(&self) -> Result<Vec<String>, StoreError> {
        self.disk.list(&self.dir).map_err(StoreError::io("list", &self.dir))
    }

    /// Makes the names in it durable.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.disk.sync_dir(&self.dir).map_err(StoreError::io("fsync", &self.dir))
    }

    /// The length of a file in bytes.
    pub(super) fn length(&self, name: &str) -> Result<u64, StoreError> {
        let path = self.path(name);
        let length = self.disk.open_to_read(&path).and_then(|file| file.len());
        length.map_err(StoreError::io("look at", &path))
    }

    /// The content of a file; `None` where there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(name);
        let file = match self.disk.open_to_read(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::io("read", &path)(e)),
        };
        let content = file.len().and_then(|length| {
            let mut content = vec![0; length as usize];
            file.read_at(&mut content, 0).map(|()| content)
        });
        content.map(Some).map_err(StoreError::io("read", &path))
    }

    /// Writes a new file and makes its content durable, not yet its name.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let path = self.path(name);
        let written = self.disk.create(&path).and_then(|mut file| {
            file.write_at(content, 0)?;
            file.sync_data()
        });
        written.map_err(StoreError::io("write", &path))
    }

    /// Gives a file another name, in place of the file that has it.
    pub(super) fn replace(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let path = self.path(to);
        let renamed = self.disk.rename(&self.path(from), &path);
        renamed.map_err(StoreError::io("replace", &path))
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name);
        match self.disk.remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &path)(e))
            }
            _ => Ok(()),
        }
    }
}
