//! The door for writes: admission, encoding, and the wait for the outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use castd_proto::castdpb::{MemberChange, Request, request::Op};
use prost::Message;

use crate::apply_loop::conf_change;
use crate::mvcc::{Applied, Courier, Reply};
use crate::raft_node::{Propose, ProposeMembers, RaftMessage};
use crate::shared::{Credits, Error, Inlet, Refused};

/// Proposes on behalf of clients or of other actors. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Proposer {
    raft: Inlet<RaftMessage>,
    credits: Credits,
    next_id: Arc<AtomicU64>,
    /// Takes the answers, if the calls are of a thread with a desk.
    courier: Option<Courier>,
}

impl Proposer {
    /// A door with the company's credits. `first_id` must be above every id
    /// that an earlier run of this member can have used.
    pub fn new(raft: Inlet<RaftMessage>, credits: Credits, first_id: u64) -> Self {
        Self { raft, credits, next_id: Arc::new(AtomicU64::new(first_id)), courier: None }
    }

    /// The same door, with answers by way of `courier`.
    pub fn with_courier(self, courier: Courier) -> Self {
        Self { courier: Some(courier), ..self }
    }

    /// Proposes `op` and waits until it is applied here.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`] at once when the company is full; what the
    /// operation meets when it is applied; [`Error::Stopped`] when the member
    /// ends meanwhile.
    pub async fn propose(&self, op: Op) -> Result<Applied, Error> {
        self.request(Request { op: Some(op), ..Request::default() }).await
    }

    /// Proposes what only the leader of `term` may decide.
    ///
    /// # Errors
    /// As [`Self::propose`]; [`Error::LeaderChanged`] when another leader put it
    /// in the log, where it does nothing.
    pub async fn propose_in_term(&self, term: u64, op: Op) -> Result<Applied, Error> {
        self.request(Request { only_in_term: term, op: Some(op), ..Request::default() }).await
    }

    async fn request(&self, request: Request) -> Result<Applied, Error> {
        let data = request.encode_to_vec();
        self.send(data.len(), |id, reply| {
            RaftMessage::Propose(Propose { id, data: data.into(), reply })
        })
        .await
    }

    /// Proposes a change of the membership and waits until it is applied here.
    ///
    /// # Errors
    /// As [`Self::propose`]; [`Error::NotCapable`] at once for a kind of change that
    /// this version does not know.
    pub async fn change_members(&self, change: &MemberChange) -> Result<Applied, Error> {
        let change = conf_change(change)?;
        self.send(change.encoded_len(), |id, reply| {
            RaftMessage::ChangeMembers(ProposeMembers { id, change, reply })
        })
        .await
    }

    async fn send(
        &self,
        bytes: usize,
        message: impl FnOnce(u64, Reply) -> RaftMessage,
    ) -> Result<Applied, Error> {
        let permit = self.credits.take(bytes).ok_or(Error::TooManyRequests)?;
        let (reply, outcome) = Reply::new(Some(permit), self.courier.clone());
        let id = self.next_id.fetch_add(1, Relaxed);
        match self.raft.try_send(message(id, reply)) {
            Ok(()) => outcome.await.unwrap_or(Err(Error::Stopped)),
            Err(Refused::Full(_)) => Err(Error::TooManyRequests),
            Err(Refused::Closed(_)) => Err(Error::Stopped),
        }
    }
}
