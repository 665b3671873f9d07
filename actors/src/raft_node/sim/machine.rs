//! A member's disk and state machine, as far as raft can tell.

use std::collections::BTreeSet;

use bytes::Bytes;
use castd_proto::castdpb::Request;
use castd_proto::castdpb::request::Op;
use prost::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfState, Entry, EntryType, HardState};

use super::super::{Accepted, LogStore, RaftCompletion, RaftCore};
use super::{Sim, conf_change};
use crate::apply_loop::{Committed, CommittedEntry};
use crate::mvcc::{Applied, Outcome};
use crate::wal_writer::{Append, SnapshotMarker};

/// What the state machine holds: every write in order, and the members.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) conf: ConfState,
    pub(super) writes: BTreeSet<u64>,
}

/// What waits for the disk.
#[derive(Debug)]
pub(super) enum Write {
    Append(Append),
    Marker(SnapshotMarker),
    Release(u64),
}

/// What waits for the state machine.
#[derive(Debug)]
pub(super) enum Work {
    Apply(Committed),
    Install(Accepted<State>),
}

/// What survives a crash.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) checkpoint: State,
    /// The checkpoint came from a snapshot, and the log does not know yet.
    ahead_of_log: bool,
    hard_state: HardState,
    base: (u64, u64),
    entries: Vec<Entry>,
}

impl Disk {
    /// The disk of a new cluster's member: as if entry 1 had made the members.
    pub(super) fn bootstrapped(voters: &[u64]) -> Self {
        let conf = RaftCore::<State>::conf_state(voters.to_vec(), Vec::new());
        let checkpoint = State { index: 1, term: 1, conf, ..State::default() };
        let hard_state = HardState { term: 1, commit: 1, ..HardState::default() };
        Self { checkpoint, hard_state, base: (1, 1), ..Self::default() }
    }

    fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    /// Carries out a write, under the rules of the real log; gives the ready
    /// number that it answers with.
    pub(super) fn write(&mut self, write: Write) -> Option<u64> {
        match write {
            Write::Append(append) => {
                let number = append.ready_number;
                self.append(append);
                return Some(number);
            }
            Write::Marker(marker) => {
                assert!(marker.index >= self.hard_state.commit, "the log would go back");
                self.base = (marker.index, marker.term);
                self.entries.clear();
                self.hard_state.commit = marker.index;
                self.ahead_of_log = false;
                let conf = ConfState::decode(marker.conf_state).unwrap();
                assert_eq!(conf, self.checkpoint.conf);
            }
            Write::Release(index) => {
                assert!(index <= self.checkpoint.index, "the log is still needed");
                let kept = self.entries.iter().position(|entry| entry.index > index);
                let dropped: Vec<Entry> =
                    self.entries.drain(..kept.unwrap_or(self.entries.len())).collect();
                self.base = dropped.last().map_or(self.base, |last| (last.index, last.term));
            }
        }
        None
    }

    fn append(&mut self, append: Append) {
        for entry in append.entries {
            assert!(entry.index <= self.last() + 1, "a gap in the log");
            assert!(entry.index > self.hard_state.commit, "a committed entry is overwritten");
            self.entries.truncate((entry.index - self.base.0 - 1) as usize);
            self.entries.push(entry);
        }
        if let Some(state) = append.hard_state {
            assert!(state.commit <= self.last(), "committed beyond the log");
            assert!(state.commit >= self.hard_state.commit, "the commit index goes back");
            assert!(state.term >= self.hard_state.term, "the term goes back");
            self.hard_state = state;
        }
    }

    pub(super) fn seal(&mut self, state: &State) {
        assert!(!self.ahead_of_log, "the log has to catch up before anything is applied");
        self.checkpoint = state.clone();
    }

    pub(super) fn seal_installed(&mut self, state: &State) {
        self.checkpoint = state.clone();
        self.ahead_of_log = true;
    }

    /// What a start finds.
    pub(super) fn recover(&mut self) -> LogStore {
        let sealed = &self.checkpoint;
        if std::mem::take(&mut self.ahead_of_log) {
            self.entries.clear();
            self.base = (sealed.index, sealed.term);
        }
        self.hard_state.commit = self.hard_state.commit.max(sealed.index);
        let behind = self.entries.iter().filter(|entry| entry.index > sealed.index);
        let entries: Vec<Entry> = behind.cloned().collect();
        LogStore::new((sealed.index, sealed.term), self.hard_state, sealed.conf.clone(), entries)
    }
}

impl Sim {
    /// Applies entries as ApplyLoop and Mvcc do: first raft hears of changes of
    /// the membership, then the batch takes effect and is answered.
    pub(super) fn apply(&mut self, id: u64, entries: Vec<CommittedEntry>) {
        let mut answers = Vec::new();
        let mut changes = Vec::new();
        for CommittedEntry { entry, reply } in entries {
            let seen = self.applied.entry(entry.index).or_insert_with(|| entry.data.clone());
            assert_eq!(*seen, entry.data, "entry {} differs between members", entry.index);
            let state = &mut self.members.get_mut(&id).unwrap().state;
            assert_eq!(entry.index, state.index + 1, "an entry is left out or repeated");
            (state.index, state.term) = (entry.index, entry.term);
            match entry.entry_type() {
                EntryType::EntryNormal => state.writes.extend(write_id(&entry.data)),
                _ => changes.push(state.change(&entry.data)),
            }
            answers.extend(reply.map(|reply| (entry.index, reply)));
        }
        let state = &self.members[&id].state;
        let index = state.index;
        if !changes.is_empty() {
            self.complete(id, RaftCompletion::ConfChanges(changes));
        }
        for (index, reply) in answers {
            let revision = i64::try_from(index).unwrap();
            reply.send(Ok(Applied { revision, outcome: Outcome::Done }));
        }
        self.complete(id, RaftCompletion::Applied { index });
    }
}

impl State {
    /// Changes the members if the change makes sense; what raft is to do.
    fn change(&mut self, data: &Bytes) -> ConfChange {
        let change = ConfChange::decode(data.clone()).unwrap();
        let id = change.node_id;
        let ConfState { voters, learners, .. } = &mut self.conf;
        let fits = match change.change_type() {
            ConfChangeType::AddNode if learners.contains(&id) => {
                learners.retain(|learner| *learner != id);
                voters.push(id);
                true
            }
            ConfChangeType::AddNode if !voters.contains(&id) => {
                voters.push(id);
                true
            }
            ConfChangeType::AddLearnerNode if !voters.contains(&id) && !learners.contains(&id) => {
                learners.push(id);
                true
            }
            ConfChangeType::RemoveNode if voters.contains(&id) || learners.contains(&id) => {
                voters.retain(|voter| *voter != id);
                learners.retain(|learner| *learner != id);
                true
            }
            _ => false,
        };
        voters.sort_unstable();
        learners.sort_unstable();
        if fits { change } else { conf_change(ConfChangeType::AddNode, 0) }
    }
}

/// The id of the write in an entry; none in a new leader's first one.
fn write_id(data: &Bytes) -> Option<u64> {
    match Request::decode(data.clone()).unwrap().op {
        Some(Op::Put(put)) => Some(u64::from_le_bytes(put.key.as_ref().try_into().unwrap())),
        _ => None,
    }
}
