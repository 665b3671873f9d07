//! What Mvcc takes and answers.

use std::sync::Arc;

use bytes::Bytes;
use castd_proto::castdpb::LeaseCheckpoint;
use castd_proto::etcdserverpb::{
    AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest,
    PutResponse, TxnRequest, TxnResponse,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::record::Record;
use super::reply::Reply;
use super::scrub::ScrubProgress;
use super::view::View;
use crate::apply_loop::Install;
use crate::checkpointer::Sealed;
use crate::cluster::ClusterState;
use crate::shared::Error;
use crate::snapshot::Export;
use crate::watch_hub::EventBlock;

/// A message to Mvcc.
#[derive(Debug)]
pub enum MvccMessage {
    /// Committed operations, in log order.
    Apply(ApplyBatch),
    /// Do a piece of the work that compaction left, of about this many records.
    Scrub {
        /// Records to look at.
        records: usize,
        /// Where to say how far the work is.
        progress: Answer<ScrubProgress>,
    },
    /// Which keys a lease holds; `None` when there is no such lease.
    LeaseKeys {
        /// The lease's id.
        id: i64,
        /// Where the answer goes.
        reply: Answer<Option<LeaseKeys>>,
    },
    /// Pack everything anew that has anything dead in it, at the next scrubs.
    Defragment {
        /// Told when this is noted.
        begun: Answer<()>,
    },
    /// Go on from a snapshot's state, which replaces everything.
    Install(Install),
    /// The state as it is, to be sent to another member.
    Export {
        /// Where it goes.
        reply: Answer<Export>,
    },
    /// A checkpoint became durable.
    Sealed(Sealed),
    /// End the thread after what was sent before.
    Stop,
}

/// Where a question's answer goes, with the permit to have asked it: it is
/// given back when Mvcc has taken the question off its mailbox, however long
/// the one who asked has been gone.
#[derive(Debug)]
pub struct Answer<T> {
    sender: oneshot::Sender<T>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<T> Answer<T> {
    /// An answer, and the end at which it arrives.
    pub fn new(permit: Option<OwnedSemaphorePermit>) -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender, _permit: permit }, receiver)
    }

    /// Answers; whoever asked may have gone.
    pub fn send(self, value: T) {
        let _ = self.sender.send(value);
    }
}

/// The keys of a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseKeys {
    /// Seconds that were granted.
    pub granted_ttl_s: i64,
    /// The keys, in order.
    pub keys: Vec<Bytes>,
}

/// A batch of committed operations.
#[derive(Debug)]
pub struct ApplyBatch {
    /// Raft index of the last entry in the batch, also when it holds no operation.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Bytes of the batch in the raft log.
    pub log_bytes: u64,
    /// Members and alarms after the batch.
    pub cluster: Arc<ClusterState>,
    /// The operations.
    pub operations: Vec<Operation>,
}

/// One committed operation and whoever waits for its outcome here.
#[derive(Debug)]
pub struct Operation {
    /// What was proposed, also when it is decided already.
    pub name: OperationName,
    /// What to do.
    pub kind: OperationKind,
    /// Who waits, if it was proposed on this member.
    pub reply: Option<Reply>,
}

/// What was proposed, as figures show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are etcd's")]
pub enum OperationName {
    Put,
    DeleteRange,
    Txn,
    Compaction,
    LeaseGrant,
    LeaseRevoke,
    LeaseCheckpoint,
    Alarm,
    ClusterMemberAttrSet,
    ClusterVersionSet,
    Range,
    ClusterMemberAdd,
    ClusterMemberPromote,
    ClusterMemberRemove,
    ClusterMemberUpdate,
}

impl OperationName {
    /// Every name, at its number.
    pub const ALL: [(Self, &'static str); 15] = [
        (Self::Put, "Put"),
        (Self::DeleteRange, "DeleteRange"),
        (Self::Txn, "Txn"),
        (Self::Compaction, "Compaction"),
        (Self::LeaseGrant, "LeaseGrant"),
        (Self::LeaseRevoke, "LeaseRevoke"),
        (Self::LeaseCheckpoint, "LeaseCheckpoint"),
        (Self::Alarm, "Alarm"),
        (Self::ClusterMemberAttrSet, "ClusterMemberAttrSet"),
        (Self::ClusterVersionSet, "ClusterVersionSet"),
        (Self::Range, "Range"),
        (Self::ClusterMemberAdd, "ClusterMemberAdd"),
        (Self::ClusterMemberPromote, "ClusterMemberPromote"),
        (Self::ClusterMemberRemove, "ClusterMemberRemove"),
        (Self::ClusterMemberUpdate, "ClusterMemberUpdate"),
    ];
}

/// What there is to do.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names are etcd's")]
pub enum OperationKind {
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compaction(CompactionRequest),
    LeaseGrant(LeaseGrantRequest),
    LeaseRevoke(LeaseRevokeRequest),
    LeaseCheckpoint(LeaseCheckpoint),
    /// Decided already by ApplyLoop; only its place in the order matters here.
    Decided(Result<Outcome, Error>),
}

/// What an operation did.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The store's revision after it.
    pub revision: i64,
    /// Its answer, without the outer header.
    pub outcome: Outcome,
}

/// An operation's answer.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are etcd's")]
pub enum Outcome {
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compaction(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    Alarm(AlarmResponse),
    /// Done, with nothing to say.
    Done,
}

/// What changed in one batch, for the watch hub.
#[derive(Clone, Debug)]
pub struct EventBatch {
    /// The store after the batch.
    pub view: Arc<View>,
    /// The changes.
    pub block: Arc<EventBlock>,
}

impl EventBatch {
    /// What led to `view`.
    pub fn new(view: Arc<View>, records: Vec<Record>) -> Self {
        Self { view, block: Arc::new(EventBlock::new(records)) }
    }
}

/// A change to the leases, for the lease manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// A lease came to be.
    Granted {
        /// Its id.
        id: i64,
        /// Seconds that were granted.
        ttl_s: i64,
    },
    /// A lease is gone.
    Revoked {
        /// Its id.
        id: i64,
    },
    /// How much a lease has left, as its leader counted it.
    Remaining {
        /// Its id.
        id: i64,
        /// Seconds left.
        remaining_s: i64,
    },
}
