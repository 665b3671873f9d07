//! Changes of the membership on their way from the log to raft.

use std::collections::VecDeque;

use raft::StateRole;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfState, Entry, EntryType};

use super::core::RaftCore;
use super::settings::Effects;
use crate::shared::{Planted, is_planted};

/// Which changes were handed out, and who was in the cluster after each.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// Indexes of the changes that ApplyLoop has not judged yet.
    judging: VecDeque<u64>,
    /// The configurations that took effect since the last applied one.
    effective: VecDeque<(u64, ConfState)>,
}

impl Membership {
    /// Committed entries go to ApplyLoop.
    pub(super) fn handed_out(&mut self, entries: &[Entry]) {
        let changes = entries.iter().filter(|e| e.entry_type() != EntryType::EntryNormal);
        self.judging.extend(changes.map(|entry| entry.index));
    }

    /// A snapshot has another account of all this.
    pub(super) fn forget(&mut self) {
        self.judging.clear();
        self.effective.clear();
    }

    /// Who is in the cluster at `applied`, if that changed since the last call.
    pub(super) fn conf_state_at(&mut self, applied: u64) -> Option<ConfState> {
        let mut newest = None;
        while self.effective.front().is_some_and(|(index, _)| *index <= applied) {
            newest = self.effective.pop_front().map(|(_, conf_state)| conf_state);
        }
        newest
    }
}

impl<S> RaftCore<S> {
    /// Carries out the changes that ApplyLoop accepted.
    pub(super) fn conf_changes(&mut self, changes: &[ConfChange], effects: &mut Effects<S>) {
        if self.installing.is_busy() {
            // They are older than the snapshot, whose members raft knows already.
            return;
        }
        for change in changes {
            let index = self.membership.judging.pop_front().unwrap_or(self.applied);
            let removes = change.change_type() == ConfChangeType::RemoveNode;
            let stays = removes && is_planted(Planted::RemovedCounts);
            if change.node_id == raft::INVALID_ID || stays {
                continue;
            }
            match self.node.apply_conf_change(change) {
                Ok(mut conf_state) => {
                    conf_state.voters.sort_unstable();
                    conf_state.learners.sort_unstable();
                    self.membership.effective.push_back((index, conf_state));
                }
                Err(error) => {
                    effects.fatal = Some(format!(
                        "raft refuses the membership change at {index}, which the cluster has accepted: {error}"
                    ));
                    return;
                }
            }
        }
        self.leave_office_if_removed();
        self.campaign_soon |= self.is_only_voter();
    }

    /// A leader without a vote must not lead on: raft itself leaves that to us.
    fn leave_office_if_removed(&mut self) {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || raft.promotable() {
            return;
        }
        tracing::info!("this member leads no longer: it was removed or has no vote any more");
        let successor = self.best_successor();
        let raft = &mut self.node.raft;
        if let Some(successor) = successor {
            raft.send_timeout_now(successor);
        }
        let messages = std::mem::take(&mut raft.msgs);
        self.outgoing.extend(messages);
        let raft = &mut self.node.raft;
        let term = raft.term;
        raft.become_follower(term, raft::INVALID_ID);
    }

    /// Whether no one else has a vote.
    pub(super) fn is_only_voter(&self) -> bool {
        let raft = &self.node.raft;
        raft.promotable() && raft.prs().is_singleton()
    }
}
