//! Clients, and what they may hold the cluster to.

use std::collections::BTreeSet;

use castd_proto::castdpb::Request;
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::PutRequest;
use prost::Message;
use raft::eraftpb::{ConfChange, ConfChangeType};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::super::{Propose, ProposeMembers, RaftMessage, ReadReply};
use super::{Sim, conf_change};
use crate::mvcc::{Applied, Reply};
use crate::shared::Error;

type Answer<T> = oneshot::Receiver<Result<T, Error>>;

struct Write {
    id: u64,
    member: u64,
    answer: Answer<Applied>,
}

struct Read {
    member: u64,
    answer: Answer<()>,
    /// How many writes had been acknowledged when it was asked.
    must_see: usize,
}

/// Requests on their way and what became of others.
#[derive(Default)]
pub(super) struct Clients {
    last_id: u64,
    /// Ids that belong to changes of the membership.
    changes: BTreeSet<u64>,
    writes: Vec<Write>,
    reads: Vec<Read>,
    /// Writes in the order of their acknowledgement.
    pub(super) acknowledged: Vec<u64>,
    /// Writes that were said never to take place.
    pub(super) refused: BTreeSet<u64>,
    /// Outcomes of writes, by id, other than an acknowledgement.
    pub(super) failures: Vec<(u64, Error)>,
    pub(super) reads_done: usize,
    pub(super) read_failures: Vec<Error>,
}

impl Clients {
    /// A member is gone, and with it the requests it had.
    pub(super) fn forget(&mut self, member: u64) {
        self.writes.retain(|write| write.member != member);
        self.reads.retain(|read| read.member != member);
    }

    pub(super) fn pending(&self) -> usize {
        self.writes.len() + self.reads.len()
    }

    pub(super) fn is_acknowledged(&self, id: u64) -> bool {
        self.acknowledged.contains(&id)
    }

    pub(super) fn failure(&self, id: u64) -> Option<Error> {
        self.failures.iter().find(|(failed, _)| *failed == id).map(|(_, error)| *error)
    }
}

impl Sim {
    fn ask(&mut self, member: u64, message: RaftMessage) {
        self.act(member, |core, _| core.request(vec![message]));
    }

    /// A client writes through a member; gives the write's id.
    pub(super) fn write(&mut self, member: u64) -> u64 {
        self.write_padded(member, 0)
    }

    /// As [`Self::write`], with an id that makes the entry as large as asked.
    pub(super) fn write_padded(&mut self, member: u64, padding: usize) -> u64 {
        self.clients.last_id += 1;
        let id = self.clients.last_id;
        let (reply, answer) = Reply::new(None, None);
        let (key, value) = (id.to_le_bytes().to_vec().into(), vec![0; padding].into());
        let op = Some(Op::Put(PutRequest { key, value, ..PutRequest::default() }));
        let data = Request { op, ..Request::default() }.encode_to_vec();
        self.clients.writes.push(Write { id, member, answer });
        self.ask(member, RaftMessage::Propose(Propose { id, data: data.into(), reply }));
        id
    }

    /// A client changes the membership through a member.
    pub(super) fn change(&mut self, member: u64, kind: ConfChangeType, node: u64) -> u64 {
        self.clients.last_id += 1;
        let id = self.clients.last_id;
        let (reply, answer) = Reply::new(None, None);
        let change: ConfChange = conf_change(kind, node);
        self.clients.changes.insert(id);
        self.clients.writes.push(Write { id, member, answer });
        self.ask(member, RaftMessage::ChangeMembers(ProposeMembers { id, change, reply }));
        id
    }

    /// A client reads through a member.
    pub(super) fn read(&mut self, member: u64) {
        let (reply, answer) = oneshot::channel();
        let must_see = self.clients.acknowledged.len();
        self.clients.reads.push(Read { member, answer, must_see });
        self.ask(member, RaftMessage::ReadIndex(ReadReply(reply)));
    }

    /// Asks a member to hand its leadership over.
    pub(super) fn transfer(&mut self, member: u64, to: u64) -> Answer<()> {
        let (reply, answer) = oneshot::channel();
        self.ask(member, RaftMessage::TransferLeader { to, reply });
        answer
    }

    /// Clients take their answers and check what they were promised.
    pub(super) fn hear_clients(&mut self) {
        for mut write in std::mem::take(&mut self.clients.writes) {
            match write.answer.try_recv() {
                Ok(Ok(_)) => self.clients.acknowledged.push(write.id),
                Ok(Err(error)) => {
                    if error == Error::LeaderChanged {
                        self.clients.refused.insert(write.id);
                    }
                    self.clients.failures.push((write.id, error));
                }
                Err(TryRecvError::Empty) => self.clients.writes.push(write),
                Err(TryRecvError::Closed) => panic!("write {} was forgotten", write.id),
            }
        }
        for mut read in std::mem::take(&mut self.clients.reads) {
            match read.answer.try_recv() {
                Ok(Ok(())) => self.check_read(&read),
                Ok(Err(error)) => self.clients.read_failures.push(error),
                Err(TryRecvError::Empty) => self.clients.reads.push(read),
                Err(TryRecvError::Closed) => panic!("a read was forgotten"),
            }
        }
    }

    fn check_read(&mut self, read: &Read) {
        self.clients.reads_done += 1;
        let seen = &self.members[&read.member].state.writes;
        for id in &self.clients.acknowledged[..read.must_see] {
            assert!(
                self.clients_change(*id) || seen.contains(id),
                "seed {}: a read through {} does not see write {id}",
                self.seed,
                read.member
            );
        }
    }

    /// Changes of the membership leave no write behind.
    fn clients_change(&self, id: u64) -> bool {
        self.clients.changes.contains(&id)
    }

    /// Every member that runs and has caught up holds every acknowledged write,
    /// and none that was refused.
    pub(super) fn check_nothing_is_lost(&self, members: &[u64]) {
        for member in members {
            let writes = &self.members[member].state.writes;
            for id in &self.clients.acknowledged {
                assert!(
                    self.clients_change(*id) || writes.contains(id),
                    "seed {}: member {member} has lost write {id}",
                    self.seed
                );
            }
            let refused = self.clients.refused.intersection(writes).next();
            assert_eq!(refused, None, "seed {}: a refused write took place", self.seed);
        }
    }
}
