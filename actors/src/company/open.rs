//! From the disk to a state: the checkpoint, and the log behind it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use raft::eraftpb::HardState;

use crate::checkpointer::{
    CheckpointStore, LoadedMeta, Reclaim, RevisionKey, SealJob, SledStore, SledStoreOptions,
    StoreError,
};
use crate::cluster::ClusterState;
use crate::mvcc::{Store, StoreMeta, View};
use crate::raft_node::LogStore;
use crate::wal_writer::{self, Identity, Recovered, Wal, WalError, WalOptions};

/// Why a member cannot start from what is on its disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] StoreError),
    /// The log cannot be used.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// Something that a sealed checkpoint holds makes no sense.
    #[error(
        "the checkpoint in {dir} cannot be read: {reason}; restore a snapshot, or remove this member and add it again with an empty data directory"
    )]
    State {
        /// The checkpoint's directory.
        dir: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Half of the data directory is missing or belongs elsewhere.
    #[error("{0}")]
    Mismatch(String),
}

/// What was found on disk.
pub struct Opened {
    /// Whose data it is.
    pub identity: Identity,
    /// The store as the checkpoint has it; what follows is in the log.
    pub store: Store,
    /// Members, alarms and version at the same point.
    pub cluster: ClusterState,
    /// The raft index the checkpoint covers.
    pub applied: u64,
    /// The term of that index.
    pub applied_term: u64,
    /// raft's log behind it.
    pub log: LogStore,
    /// The log on disk, ready to be written.
    pub wal: Wal,
    /// The checkpoints, ready for the next one.
    pub checkpoints: SledStore,
    /// Leases with the seconds granted and left.
    pub leases: Vec<(i64, i64, i64)>,
}

/// Opens a member's data, or makes it when there is none: then `identity` and
/// `bootstrap` say whose it is and who is in the cluster.
///
/// # Errors
/// When something on disk is damaged, missing, newer, or of another member.
pub fn open(
    wal_options: WalOptions,
    snap_dir: &Path,
    identity: Identity,
    bootstrap: &ClusterState,
) -> Result<Opened, OpenError> {
    let started = Instant::now();
    let mut checkpoints = SledStore::open(snap_dir, SledStoreOptions::default())?;
    let has_wal = wal_writer::exists(&wal_options.dir);
    if checkpoints.sealed().is_none() {
        if has_wal {
            return Err(OpenError::Mismatch(format!(
                "{} holds a log, but {} has no checkpoint to begin from",
                wal_options.dir.display(),
                snap_dir.display()
            )));
        }
        seal_first(&mut checkpoints, identity, bootstrap)?;
    }
    let (store, meta, sealed) = load(&mut checkpoints, snap_dir)?;
    let identity = Identity { cluster_id: meta.cluster_id, member_id: meta.member_id };
    let (wal, recovered) = open_wal(wal_options, has_wal, &sealed, identity)?;
    tracing::info!(
        applied_index = sealed.applied_index,
        revision = meta.revision,
        entries = recovered.as_ref().map_or(0, |recovered| recovered.entries.len()),
        took = ?started.elapsed(),
        "opened data directory"
    );
    Ok(Opened {
        identity,
        store,
        applied: sealed.applied_index,
        applied_term: sealed.applied_term,
        log: log_store(&sealed, &meta.cluster, recovered),
        cluster: meta.cluster,
        wal,
        checkpoints,
        leases: meta.leases,
    })
}

/// A new member's first checkpoint: nothing but who is in the cluster.
fn seal_first(
    checkpoints: &mut SledStore,
    identity: Identity,
    bootstrap: &ClusterState,
) -> Result<(), StoreError> {
    let store = Store::default();
    let meta = StoreMeta {
        cluster_id: identity.cluster_id,
        member_id: identity.member_id,
        revision: store.revision(),
        compact_revision: store.compact_revision(),
        cluster: bootstrap.clone(),
        ..StoreMeta::default()
    };
    let view: View = store.view(0, 0, Arc::new(bootstrap.clone()));
    let job = SealJob {
        applied_index: 0,
        applied_term: 0,
        last: RevisionKey { main: store.revision(), sub: u32::MAX },
        meta: meta.to_bytes(),
        compact_revision: store.compact_revision(),
        reclaim: Reclaim::Paced,
        source: Arc::new(view),
    };
    checkpoints.seal(&job).map(|_| ())
}

fn load(
    checkpoints: &mut SledStore,
    dir: &Path,
) -> Result<(Store, StoreMeta, LoadedMeta), OpenError> {
    let unreadable = |reason: String| OpenError::State { dir: dir.to_path_buf(), reason };
    let sealed = checkpoints.sealed().ok_or_else(|| unreadable("there is none".to_owned()))?;
    let meta = StoreMeta::from_bytes(&sealed.meta).map_err(|e| unreadable(e.to_string()))?;
    let mut store = Store::default();
    let mut damage = None;
    checkpoints.load(&mut |first, _, bytes| {
        if damage.is_none()
            && let Err(error) = store.load_block(&bytes, meta.compact_revision)
        {
            damage = Some(format!("block at revision {first}: {error}"));
        }
        Ok(())
    })?;
    if let Some(reason) = damage {
        return Err(unreadable(reason));
    }
    store.finish_load(&meta, sealed.clean_floor);
    Ok((store, meta, sealed))
}

fn open_wal(
    options: WalOptions,
    exists: bool,
    sealed: &LoadedMeta,
    identity: Identity,
) -> Result<(Wal, Option<Recovered>), OpenError> {
    if exists {
        let dir = options.dir.clone();
        let (wal, recovered) = wal_writer::open(options, sealed.applied_index)?;
        if recovered.identity != identity {
            return Err(OpenError::Mismatch(format!(
                "the log in {} belongs to member {:x} of cluster {:x}, the checkpoint to member {:x} of cluster {:x}",
                dir.display(),
                recovered.identity.member_id,
                recovered.identity.cluster_id,
                identity.member_id,
                identity.cluster_id,
            )));
        }
        if let Some(cut) = &recovered.cut {
            tracing::warn!(
                path = %cut.path.display(), offset = cut.offset, bytes = cut.bytes,
                detail = cut.detail, "cut a torn write that was never acknowledged off the log"
            );
        }
        return Ok((wal, Some(recovered)));
    }
    if sealed.applied_index > 0 {
        return Err(OpenError::Mismatch(format!(
            "the checkpoint covers the log up to index {}, but there is no log in {}",
            sealed.applied_index,
            options.dir.display()
        )));
    }
    Ok((wal_writer::create(options, identity)?, None))
}

fn log_store(
    sealed: &LoadedMeta,
    cluster: &ClusterState,
    recovered: Option<Recovered>,
) -> LogStore {
    let conf_state = cluster.conf_state();
    let (hard_state, entries) = match recovered {
        Some(recovered) => (recovered.hard_state, recovered.entries),
        // Members of a new cluster agree on who they are in term 1, as etcd's do.
        None => (HardState { term: 1, ..HardState::default() }, Vec::new()),
    };
    LogStore::new((sealed.applied_index, sealed.applied_term), hard_state, conf_state, entries)
}
