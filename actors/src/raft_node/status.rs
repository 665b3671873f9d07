//! What others may know of raft's state.

use raft::StateRole;
use tokio::sync::oneshot;

use super::core::RaftCore;
use super::messages::RaftStatus;
use super::settings::Effects;
use crate::shared::Error;

impl<S> RaftCore<S> {
    /// How far the others are, if this member knows.
    pub(super) fn progress(&self, reply: oneshot::Sender<Result<Vec<(u64, u64)>, Error>>) {
        let raft = &self.node.raft;
        let others = raft.prs().iter().filter(|(id, _)| **id != self.settings.member_id);
        let answer = match raft.state {
            StateRole::Leader => Ok(others.map(|(id, pr)| (*id, pr.matched)).collect()),
            _ => Err(Error::NotLeader),
        };
        let _ = reply.send(answer);
    }

    /// Shows what has changed.
    pub(super) fn update_status(&mut self, effects: &mut Effects<S>) {
        let raft = &self.node.raft;
        let members = raft.prs().conf();
        let mut next = RaftStatus {
            leader: raft.leader_id,
            is_leader: raft.state == StateRole::Leader,
            is_learner: !raft.promotable(),
            term: raft.term,
            committed: raft.raft_log.committed,
            applied: self.applied,
            voters: members.voters().ids().len() as u64,
            learners: members.learners().len() as u64,
            slow_read_indexes: self.reads.slow(),
            refused_appends: self.overload.refused,
            ..self.status
        };
        if next.leader != self.status.leader {
            log_leader(self.settings.member_id, self.status.leader, next.leader, next.term);
        }
        if next.leader != self.status.leader && next.leader != raft::INVALID_ID {
            next.leader_changes += 1;
            self.elected = self.now;
        }
        if next != self.status {
            self.status = next.clone();
            effects.status = Some(next);
        }
    }

    /// Index and term of every entry of the log that is not compacted.
    #[cfg(feature = "sim")]
    pub(super) fn log_terms(&self) -> Vec<(u64, u64)> {
        let log = &self.node.raft.raft_log;
        let entries = log.first_index()..=log.last_index();
        entries.filter_map(|index| Some((index, log.term(index).ok()?))).collect()
    }

    /// Entries held in memory.
    #[cfg(test)]
    pub(super) fn log_entries(&self) -> u64 {
        self.node.raft.raft_log.last_index() + 1 - self.node.store().first()
    }

    /// Bytes of entries in memory, those included that the log does not have yet.
    #[cfg(test)]
    pub(super) fn log_bytes(&self) -> u64 {
        let log = &self.node.raft.raft_log;
        log.store.bytes() + log.unstable.entries_size as u64
    }
}

fn log_leader(own: u64, before: u64, leader: u64, term: u64) {
    match leader {
        raft::INVALID_ID => tracing::info!("{own:x} lost leader {before:x} at term {term}"),
        leader => tracing::info!("{own:x} elected leader {leader:x} at term {term}"),
    }
}
