//! Who leads: election timeouts, handing over, and stepping down when the disk
//! stalls.
//!
//! A leader whose disk does not answer keeps its office in etcd, since its
//! followers can commit without it; clients then wait for whatever needs the
//! leader itself. Here an append that is not durable within an election timeout
//! makes the leader hand over to the voter that is furthest, and step down after
//! another one if that fails. It does not campaign until the disk answers.

use raft::StateRole;
use raft::eraftpb::{Message, MessageType};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

use super::core::RaftCore;
use super::proposals::Expired;
use crate::shared::Error;

/// A transfer that somebody waits for.
#[derive(Debug)]
pub(super) struct Transfer {
    /// The member; 0 for any other.
    to: u64,
    deadline: u64,
    reply: oneshot::Sender<Result<(), Error>>,
}

/// How far a stalled disk has brought this leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stall {
    #[default]
    None,
    /// It tries to hand over.
    HandingOver,
    /// It has stepped down or never led.
    SteppedDown,
}

/// A leader's call to take over from it.
#[derive(Debug)]
pub(super) struct Called {
    call: Message,
    since: u64,
}

impl<S> RaftCore<S> {
    /// One beat of the clock.
    pub fn tick(&mut self) {
        self.now += 1;
        self.answered.clear();
        self.watch_disk();
        self.report_failed_snapshots();
        self.hurry_first_election();
        let is_leader = self.node.raft.state == StateRole::Leader;
        if is_leader {
            self.node.tick();
        } else if self.must_not_campaign() {
            // The clock goes on, so that others may have this member's vote.
            self.node.raft.election_elapsed += 1;
        } else {
            let timeout = self.election_timeout();
            self.node.raft.set_randomized_election_timeout(timeout);
            self.node.tick();
            let raft = &self.node.raft;
            let fired = raft.promotable() && raft.election_elapsed == 0;
            self.elections_fired += u64::from(fired);
        }
        self.expire_requests();
    }

    /// The election timeout in ticks, from one to two of the configured ones. A
    /// function of this member's history alone: raft's own draw is not used,
    /// because it comes from the process's random numbers.
    ///
    /// Those who lose a leader take turns, so that they neither wait for long nor
    /// get into each other's way; whoever has tried in vain leaves it to chance.
    fn election_timeout(&self) -> usize {
        let ticks = self.settings.election_ticks;
        let raft = &self.node.raft;
        if raft.leader_id != raft::INVALID_ID || self.elections_fired == 0 {
            return ticks + self.turn();
        }
        let seed = [self.settings.seed, self.settings.member_id, raft.term]
            .into_iter()
            .fold(self.elections_fired, |seed, part| seed.rotate_left(17) ^ part);
        ticks + StdRng::seed_from_u64(seed).random_range(0..ticks)
    }

    /// Ticks that this member lets pass for others to go first; the order is
    /// another one in every term. One tick at least: until then some may still
    /// feel bound to the leader, having heard of it a little later.
    fn turn(&self) -> usize {
        let raft = &self.node.raft;
        let mut others = raft.prs().conf().to_conf_state().voters;
        others.retain(|id| *id != raft.leader_id);
        others.sort_unstable();
        let rank = others.iter().position(|id| *id == raft.id).unwrap_or(0) as u64;
        let voters = others.len().max(1);
        let turn = ((rank + raft.term) % voters as u64) as usize;
        let last = self.settings.election_ticks - 1;
        (1 + turn * (last / voters).max(1)).min(last)
    }

    /// Whether an election would be pointless or, to raft, an inconsistency.
    pub(super) fn must_not_campaign(&self) -> bool {
        let log = &self.node.raft.raft_log;
        // The only voter wins at once, and raft insists that it has stored all it has.
        let unsaved = self.is_only_voter() && log.persisted < log.last_index();
        unsaved || self.installing.is_busy() || self.disk_lag() >= self.election_ticks()
    }

    /// Ticks since the oldest append that is not durable yet was sent. What waits for a
    /// snapshot does not wait for the disk.
    fn disk_lag(&self) -> u64 {
        if self.installing.holds_appends() {
            return 0;
        }
        self.appending.front().map_or(0, |append| self.now - append.since)
    }

    pub(super) fn election_ticks(&self) -> u64 {
        self.settings.election_ticks as u64
    }

    fn watch_disk(&mut self) {
        let (lag, limit) = (self.disk_lag(), self.election_ticks());
        if lag < limit {
            if self.stall != Stall::None {
                tracing::info!("the disk answers again");
            }
            self.stall = Stall::None;
            return;
        }
        if self.stall == Stall::None {
            tracing::warn!(
                ticks = lag,
                "the disk has not stored an append for a whole election timeout"
            );
        }
        let leads = self.node.raft.state == StateRole::Leader && !self.is_only_voter();
        match self.stall {
            Stall::None if leads => {
                self.stall = Stall::HandingOver;
                let successor = self.best_successor();
                tracing::warn!(
                    to = successor.map(|id| format!("{id:x}")),
                    "the disk stalls: handing the leadership over"
                );
                successor.into_iter().for_each(|id| self.node.transfer_leader(id));
            }
            Stall::None => self.stall = Stall::SteppedDown,
            Stall::HandingOver if leads && lag >= 2 * limit => {
                self.stall = Stall::SteppedDown;
                tracing::warn!("the disk stalls and nobody took over: stepping down");
                let raft = &mut self.node.raft;
                let term = raft.term;
                raft.become_follower(term, raft::INVALID_ID);
            }
            Stall::HandingOver | Stall::SteppedDown => {}
        }
    }

    /// The other voter that could lead soonest.
    pub(super) fn best_successor(&self) -> Option<u64> {
        let prs = self.node.raft.prs();
        let voters = prs.conf().to_conf_state().voters;
        let candidates = voters.into_iter().filter(|id| *id != self.settings.member_id);
        let reachable = candidates.filter_map(|id| {
            let progress = prs.get(id)?;
            let linked = self.active_since.contains_key(&id);
            (progress.recent_active || linked).then_some((
                progress.recent_active,
                progress.matched,
                std::cmp::Reverse(id),
            ))
        });
        reachable.max().map(|(_, _, id)| id.0)
    }

    /// Hands the leadership over.
    pub(super) fn transfer(&mut self, to: u64, reply: oneshot::Sender<Result<(), Error>>) {
        let target = match self.transfer_target(to) {
            Ok(Some(target)) => target,
            refused => {
                let _ = reply.send(refused.map(|_| ()));
                return;
            }
        };
        self.node.transfer_leader(target);
        let deadline = self.now + 2 * self.election_ticks();
        self.transfers.push(Transfer { to, deadline, reply });
    }

    /// A leader calls this member to take over. raft does not campaign while a change of
    /// the members is committed and not applied, and a leader that was removed calls
    /// together with the news of its removal: the call is kept until that is applied.
    pub(super) fn take_over(&mut self, call: Message, since: u64) {
        // What raft refuses is as good as lost.
        let _ = self.node.step(call.clone());
        let raft = &self.node.raft;
        let waits = raft.state == StateRole::Follower && raft.promotable();
        self.called = (waits && raft.term == call.term).then_some(Called { call, since });
    }

    /// Perhaps more was applied, and a call can be heeded now, unless it is too old.
    pub(super) fn heed_call(&mut self) {
        let Some(Called { call, since }) = self.called.take() else { return };
        let young = self.now < since + self.election_ticks();
        if young && call.term == self.node.raft.term && !self.must_not_campaign() {
            self.take_over(call, since);
        }
    }

    /// Whom to ask; nobody when this member is meant.
    fn transfer_target(&self, to: u64) -> Result<Option<u64>, Error> {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return Err(Error::NotLeader);
        }
        if to == self.settings.member_id {
            return Ok(None);
        }
        if to == raft::INVALID_ID {
            return self.best_successor().map(Some).ok_or(Error::Unhealthy);
        }
        let votes = raft.prs().conf().to_conf_state().voters.contains(&to);
        votes.then_some(Some(to)).ok_or(Error::BadLeaderTransferee)
    }

    /// Answers transfers that are over.
    pub(super) fn answer_transfers(&mut self) {
        if self.transfers.is_empty() {
            return;
        }
        let raft = &self.node.raft;
        let (leader, me) = (raft.leader_id, self.settings.member_id);
        let given_up = raft.state == StateRole::Leader && raft.lead_transferee.is_none();
        for transfer in std::mem::take(&mut self.transfers) {
            let other = leader != raft::INVALID_ID && leader != me;
            let outcome = if leader == transfer.to || (transfer.to == 0 && other) {
                Ok(())
            } else if given_up || self.now >= transfer.deadline {
                Err(Error::TimeoutLeaderTransfer)
            } else {
                self.transfers.push(transfer);
                continue;
            };
            let _ = transfer.reply.send(outcome);
        }
    }

    /// The members whose links work now.
    pub fn set_active(&mut self, active: impl IntoIterator<Item = u64>) {
        let before = std::mem::take(&mut self.active_since);
        let since = |id| (id, before.get(&id).copied().unwrap_or(self.now));
        self.active_since = active.into_iter().map(since).collect();
    }

    /// A cluster that starts need not wait for a whole election timeout once a
    /// majority sees each other; two ticks are left for a leader to be heard.
    fn hurry_first_election(&mut self) {
        let raft = &self.node.raft;
        let heard = raft.leader_id != raft::INVALID_ID || self.elections_fired > 0;
        if self.hurried || heard || !self.settings.campaign_at_once {
            self.hurried |= heard;
            return;
        }
        let voters = raft.prs().conf().to_conf_state().voters;
        let reached = voters.iter().filter(|id| self.active_since.contains_key(id)).count();
        if reached > 0 && 2 * (reached + 1) > voters.len() {
            self.hurried = true;
            let elapsed = self.settings.election_ticks.saturating_sub(2);
            let raft = &mut self.node.raft;
            raft.election_elapsed = raft.election_elapsed.max(elapsed);
        }
    }

    /// Messages that could not even be handed to PeerTransport.
    pub fn lost(&mut self, messages: &[Message]) {
        let mut unreachable = std::collections::BTreeSet::new();
        for message in messages {
            unreachable.insert(message.to);
            if message.msg_type() == MessageType::MsgSnapshot {
                self.snapshot_sent(message.to, false);
            }
        }
        unreachable.into_iter().for_each(|id| self.node.report_unreachable(id));
    }

    fn expire_requests(&mut self) {
        self.give_up_lost_proposals();
        let Some(since) = self.now.checked_sub(self.settings.request_timeout_ticks) else { return };
        for Expired { reply, since, proposed } in self.proposals.expire(since) {
            let error = if proposed { self.timeout_since(since) } else { Error::NeverProposed };
            reply.send(Err(error));
        }
        for (since, reply) in self.reads.expire(since) {
            reply.send(Err(self.timeout_since(since)));
        }
    }

    /// What was on its way to a leader that is gone, and did not come back in the
    /// log of the next one, will hardly come any more. Another election timeout is
    /// left for what the old leader passes on; etcd lets its clients wait for the
    /// whole request timeout.
    fn give_up_lost_proposals(&mut self) {
        let raft = &self.node.raft;
        let settled = raft.leader_id != raft::INVALID_ID && raft.commit_to_current_term();
        let late = self.now >= self.elected + self.election_ticks();
        if settled && late && self.lost_looked_for != self.elected {
            self.lost_looked_for = self.elected;
            for reply in self.proposals.lost_before(raft.term) {
                reply.send(Err(Error::TimeoutLeaderFailed));
            }
        }
    }

    /// What to tell who has waited since `since`, as etcd tells it.
    fn timeout_since(&self, since: u64) -> Error {
        let leader_lost = self.elected.saturating_sub(2 * self.election_ticks());
        if (leader_lost..self.elected).contains(&since) {
            return Error::TimeoutLeaderFailed;
        }
        let raft = &self.node.raft;
        let linked = |id: u64| self.active_since.get(&id).is_some_and(|active| *active <= since);
        let connected = match raft.leader_id {
            raft::INVALID_ID => true,
            leader if leader == self.settings.member_id => {
                let voters = raft.prs().conf().to_conf_state().voters;
                let reached = voters.iter().filter(|id| **id == leader || linked(**id)).count();
                2 * reached > voters.len()
            }
            leader => linked(leader),
        };
        if connected { Error::Timeout } else { Error::TimeoutConnectionLost }
    }
}
