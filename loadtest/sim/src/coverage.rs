//! What can happen in a world, by name, and how often it did. What never did was not
//! tested, however many seeds there were.

use std::collections::BTreeMap;

use crate::member::Part;
use crate::run::Outcome;

/// What breaks, as it is counted.
const FAULTS: [&str; 19] = [
    "actor sluggish",
    "bit turned",
    "clients cut off",
    "clock jumped",
    "disk failed",
    "disk full",
    "disk lost",
    "disk slow",
    "disk stalled",
    "leader deposed",
    "message cut off",
    "message doubled",
    "message lost",
    "message reordered",
    "network cut",
    "power cut",
    "process killed",
    "process paused",
    "voter ambushed",
];

/// What members come to because of it, and what clients do and see, as it is counted. There
/// may be more.
const STATES: [&str; 33] = [
    "alarm lowered",
    "alarm raised",
    "compaction",
    "damage found",
    "defragmentation",
    "entries refused",
    "history compacted",
    "lead transferred",
    "leader elected",
    "learner promoted",
    "lease held",
    "lock held",
    "mailbox full",
    "member added",
    "member joined",
    "member published",
    "member removed",
    "past read",
    "past refused",
    "process ended by itself",
    "process started",
    "removed member stopped",
    "snapshot received",
    "start failed",
    "store waited for room",
    "watch cancelled",
    "watch compacted",
    "watch created",
    "watch events",
    "watch fragment",
    "watch judged",
    "watch progress",
    "write under alarm",
];

/// The kinds of messages that go from member to member.
const MESSAGES: [&str; 13] = [
    "Append",
    "AppendResponse",
    "Heartbeat",
    "HeartbeatResponse",
    "Propose",
    "ReadIndex",
    "ReadIndexResp",
    "RequestPreVote",
    "RequestPreVoteResponse",
    "RequestVote",
    "RequestVoteResponse",
    "Snapshot",
    "TimeoutNow",
];

/// Things of one sort by name, and how often each was seen.
pub type Counts = BTreeMap<&'static str, u64>;

/// What was seen in some worlds. Whatever can be is in it, with 0 as long as it was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Faults that happened.
    pub faults: Counts,
    /// What members came to.
    pub states: Counts,
    /// Messages that arrived from other members.
    pub messages: Counts,
    /// Turns of the actors.
    pub turns: Counts,
}

impl Default for Coverage {
    fn default() -> Self {
        let none = |names: &[&'static str]| names.iter().map(|name| (*name, 0)).collect();
        Self {
            faults: none(&FAULTS),
            states: none(&STATES),
            messages: none(&MESSAGES),
            turns: none(&Part::ALL.map(Part::name)),
        }
    }
}

impl Coverage {
    /// Adds what was seen in a world.
    pub fn add(&mut self, outcome: &Outcome) {
        for (name, times) in &outcome.counts {
            let counts =
                if self.faults.contains_key(name) { &mut self.faults } else { &mut self.states };
            *counts.entry(name).or_default() += times;
        }
        for (kind, times) in &outcome.messages {
            *self.messages.entry(kind.trim_start_matches("Msg")).or_default() += times;
        }
        // The network takes a snapshot and its message apart.
        let snapshots = outcome.counts.get("snapshot received").copied().unwrap_or(0);
        *self.messages.entry("Snapshot").or_default() += snapshots;
        for (part, times) in &outcome.turns {
            *self.turns.entry(part.name()).or_default() += times;
        }
    }

    /// What can be and was not seen: the sort, and the name.
    pub fn missing(&self) -> Vec<(&'static str, &'static str)> {
        let sorts = [
            ("fault", &self.faults),
            ("state", &self.states),
            ("message", &self.messages),
            ("actor", &self.turns),
        ];
        let unseen = sorts.into_iter().flat_map(|(sort, counts)| {
            counts.iter().filter(|(_, times)| **times == 0).map(move |(name, _)| (sort, *name))
        });
        unseen.collect()
    }
}
