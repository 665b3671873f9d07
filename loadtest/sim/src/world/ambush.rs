//! An ambush on a vote: the leader is killed, and so is whoever gives another one its
//! vote, at the very moment. Who got the vote is cut off, so that those who are left
//! elect somebody in a term in which one of them has voted already. Left to chance, that
//! would come once in many thousand worlds.

use raft::eraftpb::{Message, MessageType};
use rand::Rng;

use super::World;
use super::lives::Ending;
use crate::time::{MS, Nanos};

/// Who lies in wait.
#[derive(Debug, Default)]
pub(super) enum Ambush {
    /// Nobody.
    #[default]
    None,
    /// Somebody, for the first vote.
    Waiting,
    /// It is over; these ways are cut.
    Over(Vec<(u64, u64)>),
}

impl World {
    /// Kills whoever leads, for a time, and waits for a vote.
    pub(super) fn lie_in_wait(&mut self, down: Nanos) {
        let Some(leader) = self.leader() else { return };
        self.disperse();
        self.end_for(leader, Ending::Kill, "process killed", down);
        self.network.ambush = Ambush::Waiting;
    }

    /// Nobody waits any more.
    pub(super) fn disperse(&mut self) {
        if let Ambush::Over(ways) = std::mem::take(&mut self.network.ambush) {
            self.network.cut.take(&ways);
        }
    }

    /// Messages have arrived.
    pub(super) fn spring(&mut self, messages: &[(MessageType, u64, u64)]) {
        let vote = messages.iter().find(|(kind, ..)| *kind == MessageType::MsgRequestVoteResponse);
        let (Some((_, voter, elected)), Ambush::Waiting) = (vote, &self.network.ambush) else {
            return;
        };
        let (voter, elected) = (*voter, *elected);
        let others = self.members.keys().copied().filter(|id| *id != elected);
        let ways: Vec<(u64, u64)> =
            others.flat_map(|other| [(elected, other), (other, elected)]).collect();
        self.network.cut.add(&ways);
        self.network.ambush = Ambush::Over(ways);
        let down = self.chance.random_range(10 * MS..200 * MS);
        self.end_for(voter, Ending::Kill, "voter ambushed", down);
    }
}

/// What a granted vote is known by.
pub(super) fn gist(message: &Message) -> Option<(MessageType, u64, u64)> {
    (!message.reject).then_some((message.msg_type(), message.from, message.to))
}
