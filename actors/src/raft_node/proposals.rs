//! Proposals that have no outcome yet: those that wait for a leader, and those
//! of this member that are on their way through the log.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use raft::StateRole;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::core::RaftCore;
use crate::mvcc::Reply;
use crate::shared::Error;

/// Bytes of entries that go into one proposal message; one entry always fits.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes of other members' proposals that may wait here for a leader.
const FOREIGN_BYTES_MAX: usize = 64 << 20;
/// What an entry takes beside its data, roughly.
const ENTRY_BYTES: usize = 48;

/// Bytes of entries that are proposed but not committed; what comes beyond
/// waits. Requests of clients are far fewer, those of other members are not
/// counted by this one's credits.
pub(super) const UNCOMMITTED_BYTES_MAX: u64 = 512 << 20;

#[derive(Debug)]
struct Waiting {
    reply: Reply,
    since: u64,
    /// There was a leader when it came.
    led: bool,
    stage: Stage,
}

/// How far a proposal of this member has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits for a leader.
    Parked,
    /// It was sent to the leader of this term.
    Forwarded(u64),
    /// It is or was in this member's log.
    Logged,
}

/// A proposal whose time is over.
#[derive(Debug)]
pub(super) struct Expired {
    pub(super) reply: Reply,
    pub(super) since: u64,
    /// Whether there was a leader for it: etcd's raft takes a proposal then, also when the
    /// link to the leader is about to be found broken, and its client hears of a timeout.
    pub(super) proposed: bool,
}

/// An entry that is to be proposed when there is a leader who takes it.
#[derive(Debug)]
struct Parked {
    entry: Entry,
    since: u64,
    /// Whether it came from another member, which has its own account of it.
    foreign: bool,
}

#[derive(Debug)]
pub(super) struct Proposals {
    member_id: u64,
    /// This member's proposals without an outcome, by id.
    waiting: HashMap<u64, Waiting>,
    parked: VecDeque<Parked>,
    /// Changes of the membership; apart, because they go one at a time.
    parked_changes: VecDeque<Parked>,
    foreign_bytes: usize,
    /// Ids of this member's entries that a new leader's have replaced, by index.
    /// They may come back as long as what replaced them is not committed.
    displaced: BTreeMap<u64, Vec<u64>>,
}

impl Proposals {
    pub(super) fn new(member_id: u64) -> Self {
        Self {
            member_id,
            waiting: HashMap::new(),
            parked: VecDeque::new(),
            parked_changes: VecDeque::new(),
            foreign_bytes: 0,
            displaced: BTreeMap::new(),
        }
    }

    /// Takes a proposal of this member; it waits until [`Self::unpark`]. `led` says whether
    /// there is a leader.
    pub(super) fn add(&mut self, id: u64, mut entry: Entry, reply: Reply, (now, led): (u64, bool)) {
        entry.context = self.context(id);
        self.waiting.insert(id, Waiting { reply, since: now, led, stage: Stage::Parked });
        self.park(Parked { entry, since: now, foreign: false });
    }

    /// Takes another member's proposals, unless too many wait already.
    pub(super) fn add_foreign(&mut self, entries: Vec<Entry>, now: u64) {
        for entry in entries {
            let bytes = bytes(&entry);
            if self.foreign_bytes + bytes > FOREIGN_BYTES_MAX {
                tracing::warn!("dropped a forwarded proposal: too many wait for a leader");
                return;
            }
            self.foreign_bytes += bytes;
            self.park(Parked { entry, since: now, foreign: true });
        }
    }

    fn park(&mut self, parked: Parked) {
        match parked.entry.entry_type() {
            EntryType::EntryNormal => self.parked.push_back(parked),
            _ => self.parked_changes.push_back(parked),
        }
    }

    /// Whether something waits to be proposed.
    pub(super) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Whether a change of the membership waits to be proposed.
    pub(super) fn has_parked_change(&self) -> bool {
        !self.parked_changes.is_empty()
    }

    /// The next entries for one message, which brings them to `stage`. `room`
    /// limits the bytes, but for the first entry.
    pub(super) fn unpark(&mut self, room: usize, stage: Stage) -> Vec<Entry> {
        let room = room.min(MESSAGE_BYTES_MAX);
        let mut entries = Vec::new();
        let mut size = 0;
        while let Some(parked) = self.parked.front() {
            size += bytes(&parked.entry);
            if !entries.is_empty() && size > room {
                break;
            }
            if let Some(parked) = self.parked.pop_front() {
                entries.extend(self.release(parked, stage));
            }
        }
        entries
    }

    /// The next change of the membership, which is brought to `stage`.
    pub(super) fn unpark_change(&mut self, stage: Stage) -> Option<Entry> {
        while let Some(parked) = self.parked_changes.pop_front() {
            if let Some(entry) = self.release(parked, stage) {
                return Some(entry);
            }
        }
        None
    }

    /// The entry, unless whoever proposed it was told that it timed out.
    fn release(&mut self, parked: Parked, stage: Stage) -> Option<Entry> {
        if parked.foreign {
            self.foreign_bytes -= bytes(&parked.entry);
            return Some(parked.entry);
        }
        self.waiting_for(&parked.entry)?.stage = stage;
        Some(parked.entry)
    }

    fn waiting_for(&mut self, entry: &Entry) -> Option<&mut Waiting> {
        let id = self.own(entry)?;
        self.waiting.get_mut(&id)
    }

    /// These entries have come into this member's log.
    pub(super) fn logged(&mut self, entries: &[Entry]) {
        if self.waiting.is_empty() {
            return;
        }
        for entry in entries {
            if let Some(waiting) = self.waiting_for(entry) {
                waiting.stage = Stage::Logged;
            }
        }
    }

    /// Gives up what was forwarded to leaders of terms before `term` and has not
    /// come into the log, in the order of age.
    pub(super) fn lost_before(&mut self, term: u64) -> Vec<Reply> {
        let lost = |waiting: &Waiting| matches!(waiting.stage, Stage::Forwarded(to) if to < term);
        self.take_all(lost).into_iter().map(|expired| expired.reply).collect()
    }

    /// Takes out those that fit, in the order of age.
    fn take_all(&mut self, fits: impl Fn(&Waiting) -> bool) -> Vec<Expired> {
        let fitting = self.waiting.iter().filter(|(_, waiting)| fits(waiting));
        let mut ids: Vec<(u64, u64)> = fitting.map(|(id, waiting)| (waiting.since, *id)).collect();
        ids.sort_unstable();
        let taken = ids.into_iter().filter_map(|(since, id)| {
            let Waiting { reply, stage, led, .. } = self.waiting.remove(&id)?;
            Some(Expired { reply, since, proposed: led || stage != Stage::Parked })
        });
        taken.collect()
    }

    /// Whoever waits for this committed entry here.
    pub(super) fn take(&mut self, entry: &Entry) -> Option<Reply> {
        let id = self.own(entry)?;
        self.waiting.remove(&id).map(|waiting| waiting.reply)
    }

    /// A new leader's entries have replaced these.
    pub(super) fn displace(&mut self, replaced: &[Entry]) {
        for entry in replaced {
            if let Some(id) = self.own(entry).filter(|id| self.waiting.contains_key(id)) {
                self.displaced.entry(entry.index).or_default().push(id);
            }
        }
    }

    /// Everything up to `index` is committed and has been taken: what was
    /// displaced there will never be applied.
    pub(super) fn settle(&mut self, index: u64) {
        while let Some(first) = self.displaced.first_entry()
            && *first.key() <= index
        {
            for id in first.remove() {
                if let Some(waiting) = self.waiting.remove(&id) {
                    waiting.reply.send(Err(Error::LeaderChanged));
                }
            }
        }
    }

    /// A snapshot replaces the log up to `index`: what became of the proposals
    /// there is not known any more.
    pub(super) fn forget_displaced(&mut self, index: u64) {
        self.displaced = self.displaced.split_off(&(index + 1));
    }

    /// Gives up what has waited since before `since`, in the order of age.
    pub(super) fn expire(&mut self, since: u64) -> Vec<Expired> {
        for parked in [&mut self.parked, &mut self.parked_changes] {
            while let Some(first) = parked.pop_front_if(|first| first.since <= since) {
                if first.foreign {
                    self.foreign_bytes -= bytes(&first.entry);
                }
            }
        }
        self.take_all(|waiting| waiting.since <= since)
    }

    /// The mark of this member's proposal `id` in an entry.
    fn context(&self, id: u64) -> Bytes {
        let mut context = Vec::with_capacity(16);
        context.extend_from_slice(&self.member_id.to_le_bytes());
        context.extend_from_slice(&id.to_le_bytes());
        context.into()
    }

    /// The id, if it is this member that proposed the entry.
    fn own(&self, entry: &Entry) -> Option<u64> {
        let (member, id) = entry.context.split_at_checked(8)?;
        let member = u64::from_le_bytes(member.try_into().ok()?);
        let id = u64::from_le_bytes(id.try_into().ok()?);
        (member == self.member_id).then_some(id)
    }
}

impl<S> RaftCore<S> {
    /// Proposes what waits, if there is a leader that takes it.
    pub(super) fn propose_parked(&mut self) {
        while self.proposals.has_parked()
            && let Some(room) = self.room_to_propose()
        {
            let entries = self.proposals.unpark(room, self.stage_of_proposals());
            if entries.is_empty() {
                return;
            }
            self.step_proposal(entries);
        }
        while self.proposals.has_parked_change() && self.takes_membership_changes() {
            let stage = self.stage_of_proposals();
            let Some(entry) = self.proposals.unpark_change(stage) else { return };
            self.step_proposal(vec![entry]);
        }
    }

    /// What becomes of a proposal that is made now.
    fn stage_of_proposals(&self) -> Stage {
        match self.node.raft.state {
            StateRole::Leader => Stage::Logged,
            _ => Stage::Forwarded(self.node.raft.term),
        }
    }

    fn step_proposal(&mut self, entries: Vec<Entry>) {
        let mut message = Message { entries, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        if let Err(error) = self.node.raft.step(message) {
            // Whoever waits for it hears of the timeout.
            tracing::warn!(%error, "raft dropped proposals");
        }
    }

    /// Bytes that may be proposed now; `None` while proposals have to wait.
    fn room_to_propose(&self) -> Option<usize> {
        let raft = &self.node.raft;
        if raft.leader_id == raft::INVALID_ID {
            return None;
        }
        if raft.state != StateRole::Leader {
            // What is sent on a link that does not work would only be lost.
            let linked = self.active_since.contains_key(&raft.leader_id);
            return linked.then_some(usize::MAX);
        }
        let uncommitted = raft.uncommitted_size();
        let room = (UNCOMMITTED_BYTES_MAX as usize).saturating_sub(uncommitted);
        let takes = raft.lead_transferee.is_none() && raft.prs().get(raft.id).is_some();
        (takes && (uncommitted == 0 || room >= MESSAGE_BYTES_MAX)).then_some(room)
    }

    /// A leader turns a second change before the first one is applied into
    /// nothing: it has to wait.
    fn takes_membership_changes(&self) -> bool {
        let raft = &self.node.raft;
        let pending = raft.state == StateRole::Leader && raft.has_pending_conf();
        self.room_to_propose().is_some() && !pending
    }
}

fn bytes(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + ENTRY_BYTES
}
