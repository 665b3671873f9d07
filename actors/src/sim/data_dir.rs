//! A member's data on a simulated disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SimDisk;
use super::volumes::PlainVolumes;
use crate::checkpointer::core::Limits;
use crate::checkpointer::place::Place;
use crate::checkpointer::store::VolumeStore;
use crate::checkpointer::{CheckpointStore, StoreError};
use crate::company::{Begin, DataDir, OpenError, Opened, open_in};
use crate::wal_writer::{
    Identity, Keeper, Pool, Recovered, SnapshotMarker, Spare, Wal, WalError, WalOptions, create_on,
    exists_on, open_behind_on, open_on,
};

const WAL_DIR: &str = "/member/wal";
const SNAP_DIR: &str = "/member/snap";
/// Small, so that a state of a few hundred keys is kept in several volumes.
const LIMITS: Limits = Limits { volume_bytes: 16 << 10, rewrite_bytes: 64 << 10 };

/// Opens a member's data on a disk, or makes it when there is none, as
/// [`company::open`](crate::company::open) does in real directories. `segment_bytes` is the
/// size of the log's segments; the log makes its spares when it needs them, on the thread
/// that writes it.
///
/// # Errors
/// As for [`company::open`](crate::company::open).
pub fn open(
    disk: &SimDisk,
    segment_bytes: u64,
    identity: Identity,
    begin: &Begin,
    force_new: bool,
) -> Result<Opened, OpenError> {
    let wal = WalOptions { segment_bytes, ..WalOptions::new(WAL_DIR) };
    let dir = SimDir { disk: disk.clone(), wal, snap: PathBuf::from(SNAP_DIR) };
    open_in(&dir, identity, begin, force_new)
}

struct SimDir {
    disk: SimDisk,
    wal: WalOptions,
    snap: PathBuf,
}

impl SimDir {
    fn disk(&self) -> Arc<SimDisk> {
        Arc::new(self.disk.clone())
    }
}

impl DataDir for SimDir {
    fn wal_dir(&self) -> &Path {
        &self.wal.dir
    }

    fn snap_dir(&self) -> &Path {
        &self.snap
    }

    fn has_wal(&self) -> Result<bool, WalError> {
        exists_on(&self.disk, &self.wal.dir)
    }

    fn create_wal(&self, identity: Identity) -> Result<Wal, WalError> {
        create_on(self.disk(), self.wal.clone(), identity, at_once)
    }

    fn open_wal(&self, after_index: u64) -> Result<(Wal, Recovered), WalError> {
        open_on(self.disk(), self.wal.clone(), after_index, at_once)
    }

    fn open_wal_behind(&self, marker: &SnapshotMarker) -> Result<(Wal, Recovered), WalError> {
        open_behind_on(self.disk(), self.wal.clone(), marker, at_once)
    }

    fn open_checkpoints(&self) -> Result<Box<dyn CheckpointStore>, StoreError> {
        let place = Place::new(self.disk(), &self.snap);
        let volumes = PlainVolumes(place.clone());
        Ok(Box::new(VolumeStore::open(place, Box::new(volumes), LIMITS)?))
    }
}

fn at_once(pool: Pool) -> Result<Box<dyn Keeper>, WalError> {
    Ok(Box::new(AtOnce(pool)))
}

/// Keeps the spares on the log's own thread, and takes failures as the keeper's thread does:
/// a spare that could not be prepared is tried again when it is needed.
struct AtOnce(Pool);

impl Keeper for AtOnce {
    fn prepare(&mut self) -> Result<(), WalError> {
        if let Err(error) = self.0.prepare() {
            tracing::warn!(%error, "could not prepare a WAL segment");
        }
        Ok(())
    }

    fn take(&mut self, bytes: u64) -> Result<Spare, WalError> {
        self.0.take(bytes)
    }

    fn retire(&mut self, path: PathBuf) -> Result<(), WalError> {
        self.0.retire(path)
    }
}
