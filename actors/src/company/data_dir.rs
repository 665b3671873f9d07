//! Where a member's data is kept: its log and its checkpoints.

use std::path::{Path, PathBuf};

use crate::checkpointer::{CheckpointStore, SledStore, SledStoreOptions, StoreError};
use crate::wal_writer::{self, Identity, Recovered, SnapshotMarker, Wal, WalError, WalOptions};

/// A member's data, to be opened or made.
pub(crate) trait DataDir {
    /// The directory of the log, for messages.
    fn wal_dir(&self) -> &Path;
    /// The directory of checkpoints.
    fn snap_dir(&self) -> &Path;
    /// Whether there is a log.
    fn has_wal(&self) -> Result<bool, WalError>;
    /// As [`wal_writer::create`].
    fn create_wal(&self, identity: Identity) -> Result<Wal, WalError>;
    /// As [`wal_writer::open`].
    fn open_wal(&self, after_index: u64) -> Result<(Wal, Recovered), WalError>;
    /// As [`wal_writer::open_behind`].
    fn open_wal_behind(&self, marker: &SnapshotMarker) -> Result<(Wal, Recovered), WalError>;
    /// Opens the checkpoints, and makes room for them where there are none.
    fn open_checkpoints(&self) -> Result<Box<dyn CheckpointStore>, StoreError>;
}

/// Directories of the operating system.
pub(super) struct RealDir {
    pub(super) wal: WalOptions,
    pub(super) snap: PathBuf,
}

impl DataDir for RealDir {
    fn wal_dir(&self) -> &Path {
        &self.wal.dir
    }

    fn snap_dir(&self) -> &Path {
        &self.snap
    }

    fn has_wal(&self) -> Result<bool, WalError> {
        wal_writer::exists(&self.wal.dir)
    }

    fn create_wal(&self, identity: Identity) -> Result<Wal, WalError> {
        wal_writer::create(self.wal.clone(), identity)
    }

    fn open_wal(&self, after_index: u64) -> Result<(Wal, Recovered), WalError> {
        wal_writer::open(self.wal.clone(), after_index)
    }

    fn open_wal_behind(&self, marker: &SnapshotMarker) -> Result<(Wal, Recovered), WalError> {
        wal_writer::open_behind(self.wal.clone(), marker)
    }

    fn open_checkpoints(&self) -> Result<Box<dyn CheckpointStore>, StoreError> {
        Ok(Box::new(SledStore::open(&self.snap, SledStoreOptions::default())?))
    }
}
