//! What PeerTransport takes and shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use castd_proto::castdpb::{Answer, Question};
use raft::eraftpb::Message;
use tokio::sync::oneshot;

use crate::cluster::ClusterState;
use crate::shared::Error;

/// What PeerTransport takes.
#[derive(Debug)]
pub enum PeerMessage {
    /// Take these to the members they are for, in order. Any may be lost. A
    /// `MsgSnapshot` names an index; the state that goes with it is asked of
    /// Mvcc and may be newer.
    Send(Vec<Message>),
    /// Who is in the cluster from now on, and who was removed.
    Members(Arc<ClusterState>),
    /// Ask another member.
    Ask {
        /// The member.
        to: u64,
        /// The question.
        question: Question,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Answer, Error>>,
    },
}

/// Which members can be reached, for everyone to see.
#[derive(Clone, Debug, Default)]
pub struct PeerStatus {
    /// The members whose links work, with the time since when.
    pub active_since: BTreeMap<u64, Instant>,
    /// Another member said that this one was removed from the cluster.
    pub removed: bool,
}
