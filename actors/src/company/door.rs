//! The company's door: everything that the faces can ask of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::ResponseHeader;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::service::Routes;

use super::desk::Desk;
use super::members::{MembershipRules, PromotionMetrics};
use crate::lease_manager::LeaseMessage;
use crate::mvcc::{Answer, Applied, MvccMessage, View};
use crate::peer_transport::{PeerMessage, PeerService, PeerStatus};
use crate::proposer::Proposer;
use crate::raft_node::{RaftMessage, RaftStatus, ReadReply};
use crate::shared::{Error, Inlet, MailboxStats, Published, Refused, Switchboard, ThreadInlet};
use crate::wal_writer::Identity;
use crate::watch_hub::{Chunk, WatchDoor, WatchHandle};

/// Records that one piece of a defragmentation looks at: a millisecond's work,
/// between which writes have their turn.
const DEFRAGMENT_RECORDS: usize = 2000;

/// The door. Cheap to clone; may be used from any thread.
#[derive(Clone, Debug)]
pub struct Company {
    pub(super) identity: Identity,
    pub(super) proposer: Proposer,
    pub(super) raft_requests: Inlet<RaftMessage>,
    /// Where this thread's reads are collected, if it has a desk.
    pub(super) reads: Option<Inlet<oneshot::Sender<Result<(), Error>>>>,
    pub(super) mvcc: ThreadInlet<MvccMessage>,
    pub(super) leases: Inlet<LeaseMessage>,
    pub(super) watches: WatchDoor,
    pub(super) view: Published<View>,
    pub(super) status: Published<RaftStatus>,
    pub(super) board: Switchboard,
    /// Questions to other members go here.
    pub(super) peer_requests: Inlet<PeerMessage>,
    pub(super) peers: Published<PeerStatus>,
    pub(super) rules: MembershipRules,
    /// See [`Opened`](super::Opened).
    pub(super) introduced: Arc<BTreeMap<u64, Vec<String>>>,
    pub(super) promotions: PromotionMetrics,
    pub(super) lease_ttl_min_s: i64,
    /// How long a request may take.
    pub(super) request_timeout: Duration,
    /// Questions that may be with Mvcc at a time: its mailbox must always have
    /// room for RaftNode's whole window.
    pub(super) questions: Arc<Semaphore>,
    /// What other members call; none while it is being made.
    pub(super) peer_service: Option<PeerService>,
}

impl Company {
    /// Whose data this is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The newest applied state.
    pub fn view(&self) -> Arc<View> {
        self.view.get()
    }

    /// What raft knows.
    pub fn raft(&self) -> Arc<RaftStatus> {
        self.status.get()
    }

    /// Whether this member is in the cluster without a vote.
    pub fn is_learner(&self) -> bool {
        let view = self.view.get();
        let own = view.cluster().members.get(&self.identity.member_id);
        own.is_some_and(|member| member.is_learner)
    }

    /// Every mailbox of the company.
    pub fn mailboxes(&self) -> Vec<Arc<MailboxStats>> {
        self.board.all()
    }

    /// A reply's header at `revision`.
    pub fn header(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.identity.cluster_id,
            member_id: self.identity.member_id,
            revision,
            raft_term: self.status.get().term,
        }
    }

    /// Replicates and applies a write.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`] at once when the company is full, otherwise
    /// what the write meets.
    pub async fn propose(&self, op: Op) -> Result<Applied, Error> {
        let op = match op {
            Op::LeaseGrant(mut grant) => {
                grant.ttl = grant.ttl.max(self.lease_ttl_min_s);
                Op::LeaseGrant(grant)
            }
            op => op,
        };
        self.proposer.propose(op).await
    }

    /// Returns when everything that was committed at the time of the call can
    /// be seen in [`Company::view`].
    ///
    /// # Errors
    /// [`Error::TooManyRequests`] at once when too many wait;
    /// [`Error::Stopped`] when the member ends.
    pub async fn read_index(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let sent = match &self.reads {
            Some(desk) => desk.try_send(reply).map_err(|refused| refused.map(|_| ())),
            None => self
                .raft_requests
                .try_send(RaftMessage::ReadIndex(ReadReply(reply)))
                .map_err(|refused| refused.map(|_| ())),
        };
        match sent {
            Ok(()) => answer.await.unwrap_or(Err(Error::Stopped)),
            Err(Refused::Full(())) => Err(Error::TooManyRequests),
            Err(Refused::Closed(())) => Err(Error::Stopped),
        }
    }

    /// A door for the calls of the thread with this number, and the desk behind
    /// it, which must run on that thread.
    pub fn with_desk(&self, thread: usize) -> (Self, Desk) {
        let (desk, courier, reads) = Desk::new(thread, &self.board, self.raft_requests.clone());
        let proposer = self.proposer.clone().with_courier(courier);
        (Self { proposer, reads: Some(reads), ..self.clone() }, desk)
    }

    /// The calls of other members, for requests to `/castdpb.Peer/*`.
    pub fn peer_calls(&self) -> Routes {
        let service = self.peer_service.as_ref().map(PeerService::server);
        service.map_or_else(Routes::default, Routes::new)
    }

    /// Opens a watch stream.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn watch(&self) -> Result<(WatchHandle, mpsc::Receiver<Box<Chunk>>), Error> {
        self.watches.open().await
    }

    /// Packs everything anew that has anything dead in it; reads and writes go on.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`], [`Error::Stopped`].
    pub async fn defragment(&self) -> Result<(), Error> {
        self.ask_mvcc(|begun| MvccMessage::Defragment { begun }).await?;
        let records = DEFRAGMENT_RECORDS;
        while !self.ask_mvcc(|progress| MvccMessage::Scrub { records, progress }).await?.done {}
        Ok(())
    }

    pub(super) async fn ask_mvcc<T>(
        &self,
        question: impl FnOnce(Answer<T>) -> MvccMessage,
    ) -> Result<T, Error> {
        let questions = Arc::clone(&self.questions);
        let permit = questions.acquire_owned().await.map_err(|_| Error::Stopped)?;
        let (reply, answer) = Answer::new(Some(permit));
        match self.mvcc.try_send(question(reply)) {
            Ok(()) => answer.await.map_err(|_| Error::Stopped),
            Err(Refused::Full(_)) => Err(Error::TooManyRequests),
            Err(Refused::Closed(_)) => Err(Error::Stopped),
        }
    }
}
