//! From the disk to a state: the checkpoint, and the log behind it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use castd_proto::castdpb::Request;
use castd_proto::castdpb::request::Op;
use prost::Message as _;
use raft::eraftpb::{Entry, EntryType, HardState};

use super::data_dir::{DataDir, RealDir};
use super::force_new::force_new_cluster;
use crate::checkpointer::{CheckpointStore, LoadedMeta, Reclaim, RevisionKey, SealJob, StoreError};
use crate::cluster::ClusterState;
use crate::mvcc::{Origin, Store, StoreMeta};
use crate::raft_node::LogStore;
use crate::wal_writer::{Identity, Recovered, SnapshotMarker, Wal, WalError, WalOptions};

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

/// How a member begins that has no data yet.
#[derive(Clone, Debug)]
pub enum Begin {
    /// With the others of a new cluster, who all decide on the same members.
    Bootstrap(ClusterState),
    /// In a cluster that runs, whose members are these as far as is known. Its
    /// leader sends everything else.
    Join(ClusterState),
}

impl Begin {
    /// The members.
    pub fn cluster(&self) -> &ClusterState {
        match self {
            Self::Bootstrap(cluster) | Self::Join(cluster) => cluster,
        }
    }

    /// Index and term of the state that a member begins with. That of a new
    /// cluster counts as an entry of the log, so that who joins later and has no
    /// such entry is sent a snapshot.
    fn position(&self) -> (u64, u64) {
        match self {
            Self::Bootstrap(_) => (1, 1),
            Self::Join(_) => (0, 0),
        }
    }
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
    pub checkpoints: Box<dyn CheckpointStore>,
    /// Leases with the seconds granted and left.
    pub leases: Vec<(i64, i64, i64)>,
    /// Members that the checkpoint knows by their peer URLs alone, and who have introduced
    /// themselves in the log behind it, with their client URLs. Whether that is committed
    /// is not known yet.
    pub introduced: BTreeMap<u64, Vec<String>>,
}

/// raft's log as it was found or made.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) hard_state: HardState,
    /// What follows the checkpoint, without a gap.
    pub(super) entries: Vec<Entry>,
}

/// Opens a member's data, or makes it when there is none: then `identity` and
/// `begin` say whose it is and how it begins. With `force_new` the member is the
/// only one of its cluster from then on.
///
/// # Errors
/// When something on disk is damaged, missing, newer, or of another member, or
/// when there is no cluster yet that could be made a new one.
pub fn open(
    wal_options: WalOptions,
    snap_dir: &Path,
    identity: Identity,
    begin: &Begin,
    force_new: bool,
) -> Result<Opened, OpenError> {
    let dir = RealDir { wal: wal_options, snap: snap_dir.to_path_buf() };
    open_in(&dir, identity, begin, force_new)
}

/// [`open`] wherever the data is.
pub(crate) fn open_in(
    dir: &dyn DataDir,
    identity: Identity,
    begin: &Begin,
    force_new: bool,
) -> Result<Opened, OpenError> {
    let started = Instant::now();
    let snap_dir = dir.snap_dir();
    let mut checkpoints = dir.open_checkpoints()?;
    if checkpoints.sealed().is_none() {
        if dir.has_wal()? {
            return Err(OpenError::Mismatch(format!(
                "{} holds a log, but {} has no checkpoint to begin from",
                dir.wal_dir().display(),
                snap_dir.display()
            )));
        }
        seal_first(checkpoints.as_mut(), identity, begin)?;
    }
    let (store, meta, sealed) = load(checkpoints.as_mut(), snap_dir)?;
    let identity = Identity { cluster_id: meta.cluster_id, member_id: meta.member_id };
    let (mut wal, mut log) = open_wal(dir, &sealed, &meta, identity)?;
    if meta.origin == Origin::Begun {
        // From now on a log that is missing was lost.
        seal_begun(checkpoints.as_mut(), &store, &meta, &sealed)?;
    }
    if force_new {
        force_new_cluster(&mut wal, &mut log, &sealed, &meta, begin.cluster())?;
    }
    tracing::info!(
        applied_index = sealed.applied_index,
        revision = meta.revision,
        entries = log.entries.len(),
        took = ?started.elapsed(),
        "opened data directory"
    );
    let introduced = introductions(&log.entries, &meta.cluster);
    Ok(Opened {
        identity,
        store,
        applied: sealed.applied_index,
        applied_term: sealed.applied_term,
        log: log_store(&sealed, &meta.cluster, log),
        cluster: meta.cluster,
        wal,
        checkpoints,
        leases: meta.leases,
        introduced,
    })
}

fn introductions(entries: &[Entry], cluster: &ClusterState) -> BTreeMap<u64, Vec<String>> {
    if cluster.members.values().all(|member| !member.client_urls.is_empty()) {
        return BTreeMap::new();
    }
    let requests = entries
        .iter()
        .filter(|entry| entry.get_entry_type() == EntryType::EntryNormal)
        .filter_map(|entry| Request::decode(entry.data.clone()).ok());
    requests
        .filter_map(|request| match request.op? {
            Op::MemberAttributes(attributes) => {
                Some((attributes.member_id, attributes.client_urls))
            }
            _ => None,
        })
        .collect()
}

/// A new member's first checkpoint: nothing but who is in the cluster.
pub(super) fn seal_first(
    checkpoints: &mut dyn CheckpointStore,
    identity: Identity,
    begin: &Begin,
) -> Result<(), StoreError> {
    let store = Store::default();
    let meta = StoreMeta {
        cluster_id: identity.cluster_id,
        member_id: identity.member_id,
        revision: store.revision(),
        compact_revision: store.compact_revision(),
        cluster: begin.cluster().clone(),
        leases: Vec::new(),
        origin: Origin::Begun,
    };
    seal_empty(checkpoints, &store, &meta, begin.position())
}

/// The same again, when there is a log to go with it.
fn seal_begun(
    checkpoints: &mut dyn CheckpointStore,
    store: &Store,
    meta: &StoreMeta,
    sealed: &LoadedMeta,
) -> Result<(), StoreError> {
    let meta = StoreMeta { origin: Origin::Log, ..meta.clone() };
    seal_empty(checkpoints, store, &meta, (sealed.applied_index, sealed.applied_term))
}

fn seal_empty(
    checkpoints: &mut dyn CheckpointStore,
    store: &Store,
    meta: &StoreMeta,
    (applied_index, applied_term): (u64, u64),
) -> Result<(), StoreError> {
    let view = store.view(applied_index, applied_term, Arc::new(meta.cluster.clone()));
    let job = SealJob {
        applied_index,
        applied_term,
        last: RevisionKey { main: meta.revision, sub: u32::MAX },
        meta: meta.to_bytes(),
        compact_revision: meta.compact_revision,
        reclaim: Reclaim::Paced,
        source: Arc::new(view),
    };
    checkpoints.seal(&job).map(|_| ())
}

fn load(
    checkpoints: &mut dyn CheckpointStore,
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
    dir: &dyn DataDir,
    sealed: &LoadedMeta,
    meta: &StoreMeta,
    identity: Identity,
) -> Result<(Wal, Log), OpenError> {
    let (index, term) = (sealed.applied_index, sealed.applied_term);
    // Nothing but the index and the term counts: the members are in the checkpoint.
    let marker = SnapshotMarker { index, term, ..SnapshotMarker::default() };
    if !dir.has_wal()? {
        return match meta.origin {
            Origin::Begun => begin_wal(dir, &marker, identity),
            Origin::Log | Origin::Installed => Err(OpenError::Mismatch(format!(
                "the checkpoint covers the log up to index {index}, but there is no log in {}",
                dir.wal_dir().display()
            ))),
        };
    }
    let (wal, recovered) = match meta.origin {
        Origin::Log => dir.open_wal(index)?,
        Origin::Begun | Origin::Installed => dir.open_wal_behind(&marker)?,
    };
    check_log(dir.wal_dir(), &recovered, &marker, identity)?;
    Ok((wal, Log { hard_state: recovered.hard_state, entries: recovered.entries }))
}

fn begin_wal(
    dir: &dyn DataDir,
    marker: &SnapshotMarker,
    identity: Identity,
) -> Result<(Wal, Log), OpenError> {
    let mut wal = dir.create_wal(identity)?;
    let mut log = Log::default();
    if marker.index > 0 {
        log.hard_state = wal.restart_durably(marker)?;
    }
    Ok((wal, log))
}

/// Whether the log belongs to the checkpoint.
fn check_log(
    dir: &Path,
    recovered: &Recovered,
    sealed: &SnapshotMarker,
    identity: Identity,
) -> Result<(), OpenError> {
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
    if let Some(term) = recovered.after_term.filter(|term| *term != sealed.term) {
        return Err(OpenError::Mismatch(format!(
            "entry {} is of term {term} in the log in {}, and of term {} in the checkpoint",
            sealed.index,
            dir.display(),
            sealed.term,
        )));
    }
    if let Some(cut) = &recovered.cut {
        tracing::warn!(
            path = %cut.path.display(), offset = cut.offset, bytes = cut.bytes,
            detail = cut.detail, "cut a torn write that was never acknowledged off the log"
        );
    }
    Ok(())
}

fn log_store(sealed: &LoadedMeta, cluster: &ClusterState, log: Log) -> LogStore {
    let base = (sealed.applied_index, sealed.applied_term);
    // Before its first snapshot, a member that joins knows of others, but is not
    // one of them.
    let conf_state = match base.0 {
        0 => Default::default(),
        _ => cluster.conf_state(),
    };
    LogStore::new(base, log.hard_state, conf_state, log.entries)
}
