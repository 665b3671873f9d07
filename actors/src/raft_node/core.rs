//! RaftNode's decisions: everything between raft and the edges, without I/O.

use std::collections::{BTreeMap, HashMap, VecDeque};

use raft::eraftpb::{ConfState, Entry, HardState, Message, MessageType};
use raft::{Config, RawNode, StateRole, Storage};

use super::log_store::LogStore;
use super::logger::logger;
use super::messages::{Propose, RaftCompletion, RaftInbound, RaftMessage, RaftStatus, ReadReply};
use crate::apply_loop::{Committed, CommittedEntry, Install};
use crate::mvcc::Reply;
use crate::shared::Error;
use crate::wal_writer::Append;

/// Appends that may be with the WAL at a time.
pub const APPEND_WINDOW: usize = 64;
/// Batches of committed entries that may be on their way through apply.
pub const COMMIT_WINDOW: usize = 64;
/// Bytes of entries in memory from which on applied ones are given up early.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// Bytes of committed entries that raft gives at once.
const COMMITTED_BYTES_MAX: u64 = 16 << 20;

/// How raft is to behave.
#[derive(Clone, Debug)]
pub struct RaftSettings {
    /// This member.
    pub member_id: u64,
    /// Ticks without a leader before an election.
    pub election_ticks: usize,
    /// Whether a candidate asks first whether it could win.
    pub pre_vote: bool,
    /// Whether the only voter makes itself leader at once.
    pub campaign_at_once: bool,
    /// Applied entries kept in memory before the log there is compacted.
    pub snapshot_count: u64,
    /// Applied entries kept when it is.
    pub catchup_entries: u64,
    /// The index that the loaded state covers.
    pub applied: u64,
    /// Distinguishes this run's read contexts from all others'.
    pub run: u64,
}

/// What has to be done after a step.
#[derive(Debug, Default)]
pub struct Effects {
    /// For the WAL, in order.
    pub appends: Vec<Append>,
    /// For ApplyLoop, in order.
    pub committed: Vec<Committed>,
    /// For ApplyLoop, after what is committed.
    pub install: Option<Install>,
    /// For the peers.
    pub messages: Vec<Message>,
    /// The log up to this index is no longer needed on disk.
    pub release: Option<u64>,
    /// The new status, if it changed.
    pub status: Option<RaftStatus>,
}

/// Raft with its windows; see the room's text.
pub struct RaftCore {
    node: RawNode<LogStore>,
    settings: RaftSettings,
    status: RaftStatus,
    /// Proposals of this member, by id.
    waiting: HashMap<u64, Reply>,
    /// Read requests that raft has not been asked about yet.
    reads_new: Vec<ReadReply>,
    /// Read requests by the context raft was asked with.
    reads_asked: HashMap<u64, Vec<ReadReply>>,
    /// Read requests that wait for an index to be applied.
    reads_waiting: BTreeMap<u64, Vec<ReadReply>>,
    read_context: u64,
    /// Readies that the WAL has, in order.
    appending: VecDeque<u64>,
    /// Last indexes of the batches that are being applied, in order.
    applying: VecDeque<u64>,
    /// Committed entries for which there was no room yet.
    held: Vec<Entry>,
    /// A hard state whose commit index alone changed: it goes with the next append.
    commit_only: Option<HardState>,
    /// Messages that may leave only when a ready is durable.
    after_persist: VecDeque<(u64, Vec<Message>)>,
    applied: u64,
}

impl RaftCore {
    /// Raft over what was recovered.
    ///
    /// # Errors
    /// When the settings or what was recovered contradict each other.
    pub fn new(settings: RaftSettings, store: LogStore) -> Result<Self, raft::Error> {
        let config = Config {
            id: settings.member_id,
            election_tick: settings.election_ticks.max(2),
            heartbeat_tick: 1,
            applied: settings.applied,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 512,
            check_quorum: true,
            pre_vote: settings.pre_vote,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            ..Config::default()
        };
        let voters = store.initial_state()?.conf_state.voters;
        let alone = voters == [settings.member_id];
        let mut node = RawNode::new(&config, store, &logger())?;
        if alone && settings.campaign_at_once {
            node.campaign()?;
        }
        Ok(Self {
            node,
            applied: settings.applied,
            settings,
            status: RaftStatus::default(),
            waiting: HashMap::new(),
            reads_new: Vec::new(),
            reads_asked: HashMap::new(),
            reads_waiting: BTreeMap::new(),
            read_context: 0,
            appending: VecDeque::new(),
            applying: VecDeque::new(),
            held: Vec::new(),
            commit_only: None,
            after_persist: VecDeque::new(),
        })
    }

    /// A configuration of voters only.
    pub fn conf_state(voters: Vec<u64>, learners: Vec<u64>) -> ConfState {
        ConfState::from((voters, learners))
    }

    /// One beat of the clock.
    pub fn tick(&mut self) {
        self.node.tick();
        if self.reads_asked.is_empty() {
            return;
        }
        // A request may be lost with a leader. Asking again takes a new context,
        // since one that is reused can be answered with an old index.
        for (_, replies) in self.reads_asked.drain() {
            self.reads_new.extend(replies);
        }
    }

    /// Takes what the faces and other actors ask.
    pub fn request(&mut self, batch: Vec<RaftMessage>) {
        let mut proposals: Vec<Propose> = Vec::with_capacity(batch.len());
        let mut reads = Vec::new();
        for message in batch {
            match message {
                RaftMessage::Propose(proposal) => proposals.push(proposal),
                RaftMessage::ReadIndex(reply) => reads.push(reply),
                RaftMessage::ChangeMembers(change) => change.reply.send(Err(Error::Stopped)),
                RaftMessage::TransferLeader { reply, .. } => drop(reply),
                RaftMessage::Progress { reply } => drop(reply),
            }
        }
        self.propose(proposals);
        self.read_index(reads);
    }

    /// Takes what comes from other members.
    pub fn inbound(&mut self, batch: Vec<RaftInbound>) {
        for inbound in batch {
            if let RaftInbound::Step(messages) = inbound {
                for message in messages {
                    // What raft refuses is as good as lost.
                    let _ = self.node.step(message);
                }
            }
        }
    }

    /// Takes proposals, in order.
    pub fn propose(&mut self, proposals: Vec<Propose>) {
        if proposals.is_empty() {
            return;
        }
        let ids: Vec<u64> = proposals.iter().map(|proposal| proposal.id).collect();
        let entries = proposals.into_iter().map(|Propose { id, data, reply }| {
            self.waiting.insert(id, reply);
            Entry { data, context: id.to_le_bytes().to_vec().into(), ..Entry::default() }
        });
        let mut message = Message { entries: entries.collect(), ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        if self.node.raft.leader_id == raft::INVALID_ID {
            self.refuse(&ids, Error::NoLeader);
        } else if self.node.step(message).is_err() {
            self.refuse(&ids, Error::LeaderChanged);
        }
    }

    /// Takes read requests.
    pub fn read_index(&mut self, replies: impl IntoIterator<Item = ReadReply>) {
        self.reads_new.extend(replies);
    }

    /// Takes a completion.
    pub fn complete(&mut self, completion: RaftCompletion, effects: &mut Effects) {
        match completion {
            RaftCompletion::Persisted { ready } => self.persisted(ready, effects),
            RaftCompletion::Applied { index } => self.applied(index),
            RaftCompletion::Sealed { index } => effects.release = Some(index),
            RaftCompletion::Installed { .. } | RaftCompletion::ConfChanges(_) => {}
        }
    }

    /// Collects everything that is to be done now.
    pub fn process(&mut self, effects: &mut Effects) {
        self.ask_reads();
        while self.node.has_ready() && self.appending.len() < APPEND_WINDOW {
            self.take_ready(effects);
        }
        self.hand_out_committed(effects);
        self.answer_reads();
        self.update_status(effects);
    }

    fn take_ready(&mut self, effects: &mut Effects) {
        let mut ready = self.node.ready();
        let number = ready.number();
        effects.messages.extend(ready.take_messages());
        for state in ready.take_read_states() {
            self.read_state(&state.request_ctx, state.index);
        }
        self.held.extend(ready.take_committed_entries());
        let entries = ready.take_entries();
        self.node.mut_store().append(entries.clone());
        let hard_state = ready.hs().cloned().or_else(|| self.commit_only.take());
        let must_sync = ready.must_sync();
        let persisted_messages = ready.take_persisted_messages();
        self.node.advance_append_async(ready);

        if entries.is_empty() && !must_sync {
            // Nothing that a crash may not lose: the commit index is found again.
            self.commit_only = hard_state;
            if self.appending.is_empty() {
                self.node.on_persist_ready(number);
                effects.messages.extend(persisted_messages);
            } else {
                self.after_persist.push_back((number, persisted_messages));
            }
            return;
        }
        self.after_persist.push_back((number, persisted_messages));
        self.appending.push_back(number);
        effects.appends.push(Append { ready_number: number, entries, hard_state, must_sync });
    }

    fn persisted(&mut self, ready: u64, effects: &mut Effects) {
        while self.appending.front().is_some_and(|number| *number <= ready) {
            self.appending.pop_front();
        }
        // Readies without anything to write that came right behind are durable
        // as well when nothing before them is still on its way.
        let durable = self.appending.front().map_or(u64::MAX, |next| next - 1);
        let durable = self
            .after_persist
            .iter()
            .map(|(number, _)| *number)
            .take_while(|number| *number <= durable)
            .last()
            .map_or(ready, |last| last.max(ready));
        self.node.on_persist_ready(durable);
        while self.after_persist.front().is_some_and(|(number, _)| *number <= durable) {
            if let Some((_, messages)) = self.after_persist.pop_front() {
                effects.messages.extend(messages);
            }
        }
    }

    fn hand_out_committed(&mut self, effects: &mut Effects) {
        if self.held.is_empty() || self.applying.len() >= COMMIT_WINDOW {
            return;
        }
        let held = std::mem::take(&mut self.held);
        let last = held.last().map_or(0, |entry| entry.index);
        let entries = held.into_iter().map(|entry| {
            let reply = proposal_id(&entry).and_then(|id| self.waiting.remove(&id));
            CommittedEntry { entry, reply }
        });
        effects.committed.push(Committed { entries: entries.collect() });
        self.applying.push_back(last);
    }

    fn applied(&mut self, index: u64) {
        while self.applying.front().is_some_and(|last| *last <= index) {
            self.applying.pop_front();
        }
        self.applied = self.applied.max(index);
        self.node.advance_apply_to(self.applied);
        self.compact_log();
    }

    /// Gives up old entries in memory, now and then many at once.
    fn compact_log(&mut self) {
        let store = self.node.store();
        let kept = self.applied.saturating_sub(store.first());
        let many = kept > self.settings.snapshot_count + self.settings.catchup_entries;
        let large = store.bytes() > LOG_BYTES_MAX;
        if many {
            let upto = self.applied.saturating_sub(self.settings.catchup_entries);
            self.node.mut_store().compact(upto);
        } else if large {
            let upto = store.first() + kept / 2;
            self.node.mut_store().compact(upto);
        }
    }

    fn ask_reads(&mut self) {
        let raft = &self.node.raft;
        let can_ask = match raft.state {
            StateRole::Leader => raft.commit_to_current_term(),
            _ => raft.leader_id != raft::INVALID_ID,
        };
        if self.reads_new.is_empty() || !can_ask {
            return;
        }
        self.read_context += 1;
        let replies = std::mem::take(&mut self.reads_new);
        self.reads_asked.insert(self.read_context, replies);
        let mut context = self.settings.member_id.to_le_bytes().to_vec();
        context.extend_from_slice(&self.settings.run.to_le_bytes());
        context.extend_from_slice(&self.read_context.to_le_bytes());
        self.node.read_index(context);
    }

    fn read_state(&mut self, context: &[u8], index: u64) {
        let Some(number) = context.get(16..24).and_then(|bytes| bytes.try_into().ok()) else {
            return;
        };
        if let Some(replies) = self.reads_asked.remove(&u64::from_le_bytes(number)) {
            self.reads_waiting.entry(index).or_default().extend(replies);
        }
    }

    fn answer_reads(&mut self) {
        while let Some(first) = self.reads_waiting.first_entry()
            && *first.key() <= self.applied
        {
            first.remove().into_iter().for_each(|reply| reply.send(Ok(())));
        }
    }

    fn refuse(&mut self, ids: &[u64], error: Error) {
        for reply in ids.iter().filter_map(|id| self.waiting.remove(id)) {
            reply.send(Err(error));
        }
    }

    fn update_status(&mut self, effects: &mut Effects) {
        let raft = &self.node.raft;
        let mut next = RaftStatus {
            leader: raft.leader_id,
            is_leader: raft.state == StateRole::Leader,
            is_learner: !raft.promotable(),
            term: raft.term,
            committed: raft.raft_log.committed,
            applied: self.applied,
            ..self.status
        };
        if next.leader != self.status.leader && next.leader != raft::INVALID_ID {
            next.leader_changes += 1;
        }
        if self.status.is_leader && !next.is_leader {
            // What a deposed leader proposed may or may not come to be.
            let lost: Vec<u64> = self.waiting.keys().copied().collect();
            self.refuse(&lost, Error::LeaderChanged);
        }
        if next != self.status {
            self.status = next.clone();
            effects.status = Some(next);
        }
    }

    /// Entries held in memory.
    #[cfg(test)]
    pub(super) fn log_entries(&self) -> u64 {
        self.node.raft.raft_log.last_index() + 1 - self.node.store().first()
    }
}

fn proposal_id(entry: &Entry) -> Option<u64> {
    entry.context.as_ref().try_into().ok().map(u64::from_le_bytes)
}

impl std::fmt::Debug for RaftCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftCore").field("status", &self.status).finish_non_exhaustive()
    }
}
