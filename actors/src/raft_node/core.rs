//! RaftNode's decisions: everything between raft and the edges, without I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost::Message as _;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Message, MessageType};
use raft::{Config, RawNode, StateRole, Storage};

use super::catch_up::{FailedSnapshot, Installing, Sent, note_snapshots};
use super::coalesce::coalesce;
use super::guard::{self, Verdict};
use super::leadership::{Called, Stall, Transfer};
use super::log_store::LogStore;
use super::logger::logger;
use super::membership::Membership;
use super::messages::{
    Propose, ProposeMembers, RaftCompletion, RaftInbound, RaftMessage, RaftStatus, ReadReply,
};
use super::proposals::{Proposals, UNCOMMITTED_BYTES_MAX};
use super::reads::{Reads, Respondent};
use super::restraint::Overload;
use super::settings::{Effects, RaftSettings};
use crate::apply_loop::{Committed, CommittedEntry};
use crate::shared::{Planted, is_planted};
use crate::snapshot::Arrived;
use crate::wal_writer::Append;

/// Appends that may be with the WAL at a time.
pub const APPEND_WINDOW: usize = 64;
/// Batches of committed entries that may be on their way through apply.
pub const COMMIT_WINDOW: usize = 64;
/// Bytes of committed entries that raft gives at once.
const COMMITTED_BYTES_MAX: u64 = 16 << 20;
/// Bytes of entries in one message to a follower; a larger entry goes alone.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Messages with entries that a follower has not acknowledged. Its first answer to a
/// heartbeat in a tick lets one more go, since acknowledgements may have been lost.
const INFLIGHT_MAX: usize = 128;
/// Raft with its windows; see the room's text. `S` is what a received snapshot's
/// state is held in.
pub struct RaftCore<S = Arrived> {
    pub(super) node: RawNode<LogStore>,
    pub(super) settings: RaftSettings,
    pub(super) status: RaftStatus,
    /// Ticks so far.
    pub(super) now: u64,
    pub(super) proposals: Proposals,
    pub(super) reads: Reads,
    /// When a leader was seen to come for the last time.
    pub(super) elected: u64,
    /// The election after which lost proposals were looked for, by its time.
    pub(super) lost_looked_for: u64,
    /// How often this member's election timeout has passed.
    pub(super) elections_fired: u64,
    /// The first election was brought forward, or need not be.
    pub(super) hurried: bool,
    /// Members whose links work, with the time since when.
    pub(super) active_since: BTreeMap<u64, u64>,
    pub(super) transfers: Vec<Transfer>,
    pub(super) stall: Stall,
    /// A call to take over that raft could not heed yet.
    pub(super) called: Option<Called>,
    pub(super) membership: Membership,
    /// This member has become the only voter and should lead.
    pub(super) campaign_soon: bool,
    pub(super) installing: Installing<S>,
    pub(super) sent: Sent,
    pub(super) failed_snapshots: BTreeMap<u64, FailedSnapshot>,
    /// Whose answers to heartbeats came in this tick.
    pub(super) answered: BTreeSet<u64>,
    pub(super) overload: Overload,
    /// Appends that the WAL has, in order.
    pub(super) appending: VecDeque<Appending>,
    /// Last indexes of the batches that are being applied, in order.
    pub(super) applying: VecDeque<u64>,
    /// Committed entries for which there was no room yet.
    pub(super) held: Vec<Entry>,
    /// A hard state whose commit index alone changed: it goes with the next append.
    commit_only: Option<HardState>,
    /// Messages that may leave only when a ready is durable.
    after_persist: VecDeque<(u64, Vec<Message>)>,
    /// Messages that leave with the next effects.
    pub(super) outgoing: Vec<Message>,
    pub(super) applied: u64,
}

/// An append that is not durable yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appending {
    number: u64,
    /// When it was sent.
    pub(super) since: u64,
}

impl<S> RaftCore<S> {
    /// Raft over what was recovered.
    ///
    /// # Errors
    /// When the settings or what was recovered contradict each other.
    pub fn new(mut settings: RaftSettings, store: LogStore) -> Result<Self, raft::Error> {
        settings.election_ticks = settings.election_ticks.max(2);
        guard::check_recovered(&store, settings.applied)?;
        let config = Config {
            id: settings.member_id,
            election_tick: settings.election_ticks,
            heartbeat_tick: 1,
            applied: settings.applied,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: INFLIGHT_MAX,
            check_quorum: true,
            pre_vote: settings.pre_vote,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            // Messages would grow without bound when many go out together.
            batch_append: false,
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
            status: RaftStatus::default(),
            now: 0,
            proposals: Proposals::new(settings.member_id),
            reads: Reads::new(settings.member_id, settings.run, settings.read_retry_ticks),
            elected: 0,
            lost_looked_for: 0,
            elections_fired: 0,
            hurried: false,
            active_since: BTreeMap::new(),
            transfers: Vec::new(),
            stall: Stall::default(),
            called: None,
            membership: Membership::default(),
            campaign_soon: false,
            installing: Installing::default(),
            sent: Sent::new(),
            failed_snapshots: BTreeMap::new(),
            answered: BTreeSet::new(),
            overload: Overload::default(),
            appending: VecDeque::new(),
            applying: VecDeque::new(),
            held: Vec::new(),
            commit_only: None,
            after_persist: VecDeque::new(),
            outgoing: Vec::new(),
            applied: settings.applied,
            settings,
        })
    }

    /// A configuration without joint consensus.
    pub fn conf_state(voters: Vec<u64>, learners: Vec<u64>) -> ConfState {
        ConfState::from((voters, learners))
    }

    /// Takes what the faces and other actors ask.
    pub fn request(&mut self, batch: Vec<RaftMessage>) {
        for message in batch {
            match message {
                RaftMessage::Propose(proposal) => self.propose([proposal]),
                RaftMessage::ReadIndex(reply) => self.read_index([reply]),
                RaftMessage::ChangeMembers(change) => self.change_members(change),
                RaftMessage::TransferLeader { to, reply } => self.transfer(to, reply),
                RaftMessage::Progress { reply } => self.progress(reply),
            }
        }
    }

    /// Takes proposals, in order.
    pub fn propose(&mut self, proposals: impl IntoIterator<Item = Propose>) {
        for Propose { id, data, reply } in proposals {
            let entry = Entry { data, ..Entry::default() };
            self.proposals.add(id, entry, reply, self.when_proposed());
        }
    }

    /// Takes read requests.
    pub fn read_index(&mut self, replies: impl IntoIterator<Item = ReadReply>) {
        for reply in replies {
            self.reads.add(reply, self.now);
        }
    }

    fn change_members(&mut self, ProposeMembers { id, change, reply }: ProposeMembers) {
        let mut entry = Entry { data: change.encode_to_vec().into(), ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChange);
        self.proposals.add(id, entry, reply, self.when_proposed());
    }

    /// Now, and whether there is a leader now.
    fn when_proposed(&self) -> (u64, bool) {
        (self.now, self.node.raft.leader_id != raft::INVALID_ID)
    }

    /// Takes what comes from other members.
    pub fn inbound(&mut self, batch: Vec<RaftInbound<S>>, effects: &mut Effects<S>) {
        for inbound in batch {
            match inbound {
                RaftInbound::Step(messages) => {
                    messages.into_iter().for_each(|message| self.step(message, effects));
                }
                RaftInbound::Snapshot { message, state, hold } => {
                    self.snapshot_arrived(message, (state, hold), effects);
                }
                RaftInbound::Unreachable(id) => self.node.report_unreachable(id),
                RaftInbound::SnapshotSent { to, arrived } => self.snapshot_sent(to, arrived),
            }
        }
    }

    /// Takes one message of another member.
    pub(super) fn step(&mut self, mut message: Message, effects: &mut Effects<S>) {
        let kind = message.msg_type();
        match guard::judge(&self.node.raft, &message) {
            Verdict::Pass => {}
            Verdict::Drop(reason) => {
                let from = format!("{:x}", message.from);
                tracing::warn!(from, ?kind, reason, "dropped a message of another member");
                return;
            }
            Verdict::Lost(text) => {
                effects.fatal = Some(text);
                return;
            }
        }
        match kind {
            MessageType::MsgPropose => {
                // With those of this member, they make one proposal.
                self.proposals.add_foreign(message.take_entries(), self.now);
            }
            MessageType::MsgReadIndex if self.node.raft.state != StateRole::Leader => {
                // raft would pass it on in the asker's name; the asker asks again.
            }
            MessageType::MsgTimeoutNow if self.must_not_campaign() => {
                tracing::info!("cannot take the leadership over now");
            }
            MessageType::MsgTimeoutNow => self.take_over(message, self.now),
            MessageType::MsgHeartbeatResponse => self.step_heartbeat_response(message),
            MessageType::MsgAppend if self.has_no_room_for(&message) => {}
            // What raft refuses is as good as lost.
            _ => drop(self.node.step(message)),
        }
    }

    /// Takes a completion.
    pub fn complete(&mut self, completion: RaftCompletion, effects: &mut Effects<S>) {
        match completion {
            RaftCompletion::Persisted { ready } => self.persisted(ready),
            RaftCompletion::Applied { index } => self.applied(index),
            RaftCompletion::Sealed { index } => effects.release = Some(index),
            RaftCompletion::Installed { index } => self.installed(index, effects),
            RaftCompletion::ConfChanges(changes) => self.conf_changes(&changes, effects),
        }
        self.heed_call();
    }

    /// Collects everything that is to be done now.
    pub fn process(&mut self, effects: &mut Effects<S>) {
        self.campaign_if_alone();
        loop {
            self.propose_parked();
            self.ask_reads();
            if !self.take_readies(effects) {
                break;
            }
        }
        self.take_urgent_messages();
        self.hand_out_committed(effects);
        let waits = !is_planted(Planted::ReadNotAwaited);
        self.reads.answer(if waits { self.applied } else { u64::MAX });
        self.update_status(effects);
        self.answer_transfers();
        coalesce(&mut self.outgoing);
        note_snapshots(&mut self.sent, &self.outgoing);
        effects.messages.append(&mut self.outgoing);
    }

    fn campaign_if_alone(&mut self) {
        if !self.campaign_soon {
            return;
        }
        let raft = &self.node.raft;
        let log = &raft.raft_log;
        if raft.state == StateRole::Leader || !self.is_only_voter() {
            self.campaign_soon = false;
        } else if log.applied == log.committed && !self.must_not_campaign() {
            self.campaign_soon = false;
            let _ = self.node.campaign();
        }
    }

    fn ask_reads(&mut self) {
        if self.reads.is_idle() {
            return;
        }
        let raft = &self.node.raft;
        let leader = raft.leader_id;
        let ready = leader != raft::INVALID_ID
            && raft.commit_to_current_term()
            && !self.installing.is_busy();
        let respondent = Respondent { leader, term: raft.term, ready };
        if let Some(context) = self.reads.ask(respondent, self.now) {
            if is_planted(Planted::ReadUnconfirmed) && respondent.leader == raft.id {
                return self.reads.confirm(&context, raft.raft_log.committed);
            }
            self.node.read_index(context);
        }
    }

    /// Takes raft's readies as far as the window goes; false if there was none.
    fn take_readies(&mut self, effects: &mut Effects<S>) -> bool {
        let mut taken = false;
        while self.node.has_ready() && self.appending.len() < APPEND_WINDOW {
            self.take_ready(effects);
            taken = true;
        }
        taken
    }

    fn take_ready(&mut self, effects: &mut Effects<S>) {
        let mut ready = self.node.ready();
        let number = ready.number();
        self.outgoing.extend(ready.take_messages());
        for state in ready.take_read_states() {
            self.reads.confirm(&state.request_ctx, state.index);
        }
        if !ready.snapshot().is_empty() {
            self.begin_install(ready.snapshot(), effects);
        }
        self.held.extend(ready.take_committed_entries());
        let entries = ready.take_entries();
        let replaced = self.node.mut_store().append(entries.clone());
        self.proposals.displace(&replaced);
        self.proposals.logged(&entries);
        let older = self.commit_only.take();
        let hard_state = ready.hs().copied().or(older);
        let alone = entries.is_empty() && ready.snapshot().is_empty();
        let vote_alone = alone && is_planted(Planted::HardStateNotWritten);
        let must_sync = ready.must_sync() && !vote_alone;
        let persisted_messages = self.keep_back(ready.take_persisted_messages());
        self.node.advance_append_async(ready);

        if entries.is_empty() && !must_sync {
            // Nothing that a crash may not lose: the commit index is found again.
            self.commit_only = hard_state;
            if self.appending.is_empty() {
                self.node.on_persist_ready(number);
                self.outgoing.extend(persisted_messages);
            } else {
                self.after_persist.push_back((number, persisted_messages));
            }
            return;
        }
        self.after_persist.push_back((number, persisted_messages));
        self.appending.push_back(Appending { number, since: self.now });
        let append = Append { ready_number: number, entries, hard_state, must_sync };
        effects.appends.extend(self.installing.hold(append));
    }

    /// Lets the messages of a follower go that promise nothing about what it has
    /// stored; gives back the others.
    fn keep_back(&mut self, messages: Vec<Message>) -> Vec<Message> {
        let all = is_planted(Planted::PromisedBeforeWritten);
        let (urgent, others) = messages.into_iter().partition(|message| all || is_urgent(message));
        let urgent: Vec<Message> = urgent;
        self.outgoing.extend(urgent);
        others
    }

    /// When the window is full, heartbeats, answers to them and what a leader
    /// sends must not wait for the disk.
    fn take_urgent_messages(&mut self) {
        let messages = std::mem::take(&mut self.node.raft.msgs);
        if self.node.raft.state == StateRole::Leader {
            self.outgoing.extend(messages);
        } else {
            self.node.raft.msgs = self.keep_back(messages);
        }
    }

    fn persisted(&mut self, ready: u64) {
        while self.appending.front().is_some_and(|append| append.number <= ready) {
            self.appending.pop_front();
        }
        // Readies without anything to write that came right behind are durable
        // as well when nothing before them is still on its way.
        let durable = self.appending.front().map_or(u64::MAX, |next| next.number - 1);
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
                self.outgoing.extend(messages);
            }
        }
        self.tell_applied();
    }

    fn hand_out_committed(&mut self, effects: &mut Effects<S>) {
        if self.held.is_empty() || self.applying.len() >= COMMIT_WINDOW {
            return;
        }
        let held = std::mem::take(&mut self.held);
        let last = held.last().map_or(0, |entry| entry.index);
        self.membership.handed_out(&held);
        let entries = held.into_iter().map(|entry| {
            let reply = self.proposals.take(&entry);
            CommittedEntry { entry, reply }
        });
        effects.committed.push(Committed { entries: entries.collect() });
        self.proposals.settle(last);
        self.applying.push_back(last);
    }

    fn applied(&mut self, index: u64) {
        while self.applying.front().is_some_and(|last| *last <= index) {
            self.applying.pop_front();
        }
        self.applied = self.applied.max(index);
        self.tell_applied();
    }
}

/// Whether a follower's message may leave before what it has received is
/// durable. An answer to a heartbeat says that the sender leads in this term as
/// far as this member has heard; a crash forgets that and promises less, not
/// more. What is forwarded speaks for itself.
fn is_urgent(message: &Message) -> bool {
    matches!(
        message.msg_type(),
        MessageType::MsgHeartbeatResponse
            | MessageType::MsgPropose
            | MessageType::MsgReadIndex
            | MessageType::MsgReadIndexResp
    )
}

impl<S> std::fmt::Debug for RaftCore<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftCore").field("status", &self.status).finish_non_exhaustive()
    }
}
