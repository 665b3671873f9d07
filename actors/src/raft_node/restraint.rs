//! What is not sent twice, and not taken when there is no room for it.

use raft::eraftpb::{Message, MessageType};
use raft::{ProgressState, StateRole};

use super::core::RaftCore;

/// Entries that were not taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overload {
    /// Messages of them, so far.
    pub(super) refused: u64,
    /// When the last one came.
    last: Option<u64>,
}

impl<S> RaftCore<S> {
    /// Whether a message brings entries for which there is no room. Losing it costs a probe
    /// when there is room again.
    pub(super) fn has_no_room_for(&mut self, message: &Message) -> bool {
        let brings = message.msg_type() == MessageType::MsgAppend && !message.entries.is_empty();
        if !brings || self.waiting_bytes() <= self.settings.backlog_bytes_max {
            return false;
        }
        let pause = self.settings.election_ticks as u64;
        self.overload.refused += 1;
        if self.overload.last.replace(self.now).is_none_or(|last| self.now - last > pause) {
            tracing::warn!("cannot keep up with the leader: entries are not taken for now");
        }
        true
    }

    /// Bytes of entries that wait for this member's disk or store. Those that are durable
    /// and not committed wait for the leader: only what it sends can make an end of them.
    fn waiting_bytes(&self) -> u64 {
        let log = &self.node.raft.raft_log;
        let for_store = log.store.bytes_between(self.applied, log.committed);
        let durable = log.persisted.max(log.committed).max(self.applied);
        let for_disk = log.store.bytes_between(durable, log.store.last());
        for_store + for_disk + log.unstable.entries_size as u64
    }

    /// Takes an answer to a heartbeat. raft sends what a member lacks with every answer of
    /// it, also when the same is on its way. Rounds of reads ask for many answers in a tick,
    /// as does a member that stood still: only the first one in a tick may have that effect.
    pub(super) fn step_heartbeat_response(&mut self, message: Message) {
        let from = message.from;
        let raft = &self.node.raft;
        let has_effect = raft.state == StateRole::Leader
            && raft.term == message.term
            && raft.prs().get(from).is_some();
        let again = has_effect && !self.answered.insert(from);
        let before = if again { self.hold_progress(from) } else { None };
        // What raft refuses is as good as lost.
        let _ = self.node.step(message);
        if let Some((state, paused)) = before
            && let Some(progress) = self.node.raft.mut_prs().get_mut(from)
            && progress.state == ProgressState::Snapshot
        {
            progress.state = state;
            progress.paused = paused;
        }
    }

    /// Sees to it that raft sends nothing to a member: it does not while a snapshot is on
    /// its way there. What its progress was, unless that is so already.
    fn hold_progress(&mut self, id: u64) -> Option<(ProgressState, bool)> {
        let progress = self.node.raft.mut_prs().get_mut(id)?;
        let before = (progress.state, progress.paused);
        if progress.state == ProgressState::Snapshot {
            return None;
        }
        progress.state = ProgressState::Snapshot;
        Some(before)
    }
}
