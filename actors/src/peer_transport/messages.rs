//! What PeerTransport takes and shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use castd_proto::castdpb::{Answer, Question};
use raft::eraftpb::Message;
use tokio::sync::oneshot;

use super::wire::Refusal;
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
    /// Ask another member. An answer is certain to come, an error at the latest
    /// after the time that [`PeerSettings::ask_timeout`](super::PeerSettings) grants:
    /// [`Error::NoLeader`] when the member cannot be reached and heard nothing,
    /// [`Error::Timeout`] when what became of the question is unknown.
    Ask {
        /// The member.
        to: u64,
        /// The question.
        question: Question,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Answer, Error>>,
    },
    /// Something that a link or [`PeerService`](super::PeerService) noticed.
    Notice(Notice),
}

/// What a link or [`PeerService`](super::PeerService) noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A link's urgent stream stands.
    Up {
        /// The member at its other end.
        peer: u64,
        /// Which of the links there were to this member.
        link: u64,
    },
    /// A link's urgent stream broke.
    Down {
        /// The member at its other end.
        peer: u64,
        /// Which of the links there were to this member.
        link: u64,
        /// Why.
        error: String,
    },
    /// A member let us in no more.
    Refused {
        /// The member that refused.
        peer: u64,
        /// Why.
        refusal: Refusal,
    },
    /// A member calls this one: it can be reached again. When it is not known here, it
    /// has joined behind what this member has applied, and must be answered all the same.
    Caller {
        /// The member.
        from: u64,
        /// Where it says that it is reached.
        urls: Vec<String>,
    },
    /// A caller was refused.
    Turned {
        /// Who it said it is; 0 when it did not.
        from: u64,
        /// The cluster it said it belongs to; 0 when it did not.
        cluster_id: u64,
        /// Why it was refused.
        refusal: Refusal,
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
