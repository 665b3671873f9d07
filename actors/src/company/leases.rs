//! The door's part for leases: what the leader alone knows is asked of it,
//! wherever it is.

use std::time::Duration;

use bytes::Bytes;
use castd_proto::castdpb::{answer, question};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::door::Company;
use crate::lease_manager::{LIST_PIECE, LeaseMessage};
use crate::mvcc::{LeaseKeys, MvccMessage};
use crate::shared::Error;

/// How soon a leader is looked for again.
const LEADER_LOOK: Duration = Duration::from_millis(50);

/// A lease as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Seconds that were granted.
    pub granted_ttl_s: i64,
    /// Seconds left.
    pub ttl_s: i64,
    /// The keys it holds, in order, if they were asked for.
    pub keys: Vec<Bytes>,
}

impl Company {
    /// Gives a lease its full time again, here or by way of the leader. Answers
    /// with that time in seconds, 0 when there is no such lease.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`] at once when too many wait; after the request
    /// timeout [`Error::NoLeader`] when there is none, else [`Error::Timeout`];
    /// [`Error::Stopped`].
    pub async fn lease_keep_alive(&self, id: i64) -> Result<i64, Error> {
        self.keep_alive(id, false).await?.await.unwrap_or(Err(Error::Stopped))
    }

    /// Answers another member that asks the leader to renew leases: the seconds
    /// of each, in order, 0 for a lease there is not.
    ///
    /// # Errors
    /// [`Error::NotLeader`], else as [`Self::lease_keep_alive`].
    pub async fn keep_alive_as_leader(&self, ids: &[i64]) -> Result<Vec<i64>, Error> {
        let mut answers = Vec::with_capacity(ids.len());
        for id in ids {
            answers.push(self.keep_alive(*id, true).await?);
        }
        let mut ttls_s = Vec::with_capacity(ids.len());
        for answer in answers {
            ttls_s.push(answer.await.unwrap_or(Err(Error::Stopped))?);
        }
        Ok(ttls_s)
    }

    async fn keep_alive(
        &self,
        id: i64,
        from_peer: bool,
    ) -> Result<oneshot::Receiver<Result<i64, Error>>, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask_leases(LeaseMessage::KeepAlive { id, from_peer, reply }).await?;
        Ok(answer)
    }

    /// How long a lease has, and which keys it holds if `keys` says so; `None`
    /// when there is no such lease. The leader is asked, wherever it is.
    ///
    /// # Errors
    /// As [`Self::lease_keep_alive`].
    pub async fn lease_time_to_live(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<Option<LeaseInfo>, Error> {
        let until = Instant::now() + self.request_timeout;
        loop {
            let leader = self.raft().leader;
            let answer = match leader {
                0 => Err(Error::NoLeader),
                own if own == self.identity.member_id => {
                    self.time_to_live_as_leader(id, keys).await
                }
                other => tokio::select! {
                    answer = self.ask_time_to_live(other, id, keys) => answer,
                    () = self.leads_no_more(other) => Err(Error::LeaderChanged),
                    () = tokio::time::sleep_until(until) => Err(Error::Timeout),
                },
            };
            match answer {
                Ok(lease) => return Ok(lease),
                Err(error @ (Error::TooManyRequests | Error::Stopped)) => return Err(error),
                Err(_) if Instant::now() + LEADER_LOOK < until => {
                    tokio::time::sleep(LEADER_LOOK).await;
                }
                Err(_) if leader == 0 => return Err(Error::NoLeader),
                Err(_) => return Err(Error::Timeout),
            }
        }
    }

    /// Returns when this member has seen another leader, or none. Whoever waits
    /// for an answer of the one before it may wait long.
    async fn leads_no_more(&self, leader: u64) {
        while self.raft().leader == leader {
            tokio::time::sleep(LEADER_LOOK).await;
        }
    }

    async fn ask_time_to_live(
        &self,
        leader: u64,
        id: i64,
        keys: bool,
    ) -> Result<Option<LeaseInfo>, Error> {
        let question = question::Question::TimeToLive(question::TimeToLive { id, keys });
        match self.ask(leader, question).await?.answer {
            Some(answer::Answer::TimeToLive(lease)) => Ok(lease.found.then_some(LeaseInfo {
                granted_ttl_s: lease.granted_ttl_s,
                ttl_s: lease.ttl_s,
                keys: lease.keys,
            })),
            _ => Err(Error::NotLeader),
        }
    }

    /// As [`Self::lease_time_to_live`], on this member's own word. For the
    /// question that another member asks a leader.
    ///
    /// # Errors
    /// [`Error::NotLeader`], or what a read index meets.
    pub async fn time_to_live_as_leader(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<Option<LeaseInfo>, Error> {
        // What another member has just granted must be known here, and a leader
        // that was deposed must notice.
        self.read_index().await?;
        let (reply, answer) = oneshot::channel();
        self.ask_leases(LeaseMessage::TimeToLive { id, reply }).await?;
        let Some(left) = answer.await.unwrap_or(Err(Error::Stopped))? else { return Ok(None) };
        let keys = match keys {
            true => self.lease_keys(id).await?.map(|lease| lease.keys).unwrap_or_default(),
            false => Vec::new(),
        };
        // A new leader's grace is not told.
        let ttl_s = left.ttl_s.min(left.granted_ttl_s);
        Ok(Some(LeaseInfo { granted_ttl_s: left.granted_ttl_s, ttl_s, keys }))
    }

    /// All leases, the one that ends first in front, as far as this member knows.
    /// When there are more than [`LIST_PIECE`], those that come and go meanwhile
    /// may be in it or not.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn leases(&self) -> Result<Vec<i64>, Error> {
        let mut leases: Vec<(u64, i64)> = Vec::new();
        loop {
            let after = leases.last().map(|(_, id)| *id);
            let (reply, answer) = oneshot::channel();
            self.ask_leases(LeaseMessage::List { after, reply }).await?;
            let piece = answer.await.map_err(|_| Error::Stopped)?;
            let is_last = piece.len() < LIST_PIECE;
            leases.extend(piece);
            if is_last {
                break;
            }
        }
        leases.sort_unstable();
        Ok(leases.into_iter().map(|(_, id)| id).collect())
    }

    async fn lease_keys(&self, id: i64) -> Result<Option<LeaseKeys>, Error> {
        self.ask_mvcc(|reply| MvccMessage::LeaseKeys { id, reply }).await
    }

    async fn ask_leases(&self, message: LeaseMessage) -> Result<(), Error> {
        self.leases.send(message).await.map_err(|_| Error::Stopped)
    }
}
