//! Received snapshots that wait in memory.

use std::io::{self, Read};
use std::path::Path;

use crate::snapshot::{SpoolFile, SpoolWriter};

impl SpoolWriter {
    /// Begins a snapshot whose bytes stay in memory. Checks are those of
    /// [`create`](Self::create).
    #[must_use]
    pub fn in_memory() -> Self {
        Self::into_file(Box::new(FileInMemory(Vec::new())))
    }
}

#[derive(Debug)]
struct FileInMemory(Vec<u8>);

impl SpoolFile for FileInMemory {
    fn path(&self) -> &Path {
        Path::new("in memory")
    }

    fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(piece);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn read(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(&self.0[..]))
    }
}
