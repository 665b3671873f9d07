//! A received snapshot, waiting on disk to be installed.

use std::path::{Path, PathBuf};

/// The file of a received snapshot. It is removed when this is dropped.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
}

impl Spool {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // What is left behind is removed at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}
