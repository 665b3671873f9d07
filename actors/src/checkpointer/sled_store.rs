//! The checkpoint store of a real directory.

use std::path::Path;
use std::sync::Arc;

use super::StoreError;
use super::core::Limits;
use super::messages::{CheckpointStore, LoadVisitor, LoadedMeta, SealJob, Sealed};
use super::place::Place;
use super::sled_volumes::SledVolumes;
use super::store::VolumeStore;
use crate::shared::disk::RealDisk;

/// How a [`SledStore`] lays out and paces its writes.
#[derive(Clone, Debug)]
pub struct SledStoreOptions {
    /// Blocks' bytes in a full volume. A seal and a load hold about three times this in
    /// memory for a moment, beside the state itself.
    pub volume_bytes: u64,
    /// In a paced seal, at most so many live bytes are rewritten to free dead ones.
    pub rewrite_bytes: u64,
    /// A seal does not write to the disk faster than this, in bytes a second.
    pub bytes_per_second_max: u64,
}

impl Default for SledStoreOptions {
    fn default() -> Self {
        Self { volume_bytes: 16 << 20, rewrite_bytes: 64 << 20, bytes_per_second_max: 64 << 20 }
    }
}

/// A [`CheckpointStore`] on sled 0.34. One process at a time may have a directory open:
/// the caller holds the lock of the data directory.
#[derive(Debug)]
pub struct SledStore(pub(super) VolumeStore);

impl SledStore {
    /// Opens the checkpoint in `dir` (made if it is not there) and sweeps away what a
    /// crash left half done. Reads the manifest, but no volume yet: see
    /// [`load`](CheckpointStore::load).
    ///
    /// # Errors
    /// When the directory cannot be used, or the manifest is damaged or of a newer format.
    pub fn open(dir: &Path, options: SledStoreOptions) -> Result<Self, StoreError> {
        let SledStoreOptions { volume_bytes, rewrite_bytes, .. } = options;
        let place = Place::new(Arc::new(RealDisk { unsafe_no_fsync: false }), dir);
        let volumes = SledVolumes { root: dir.to_owned(), options };
        let limits = Limits { volume_bytes, rewrite_bytes };
        VolumeStore::open(place, Box::new(volumes), limits).map(Self)
    }
}

impl CheckpointStore for SledStore {
    fn sealed(&self) -> Option<LoadedMeta> {
        self.0.sealed()
    }

    fn load(&mut self, visit: LoadVisitor<'_>) -> Result<Option<LoadedMeta>, StoreError> {
        self.0.load(visit)
    }

    fn seal(&mut self, job: &SealJob) -> Result<Sealed, StoreError> {
        self.0.seal(job)
    }

    fn disk_bytes(&self) -> u64 {
        self.0.disk_bytes()
    }
}
