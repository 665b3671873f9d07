//! The watchman: looks at everything that happens, and knows what must not.

use std::collections::{BTreeMap, BTreeSet};

use castd_actors::ClusterState;
use castd_actors::mvcc::{Record, Revision};
use castd_check::{Event as Change, Fingerprint, Kv, LEASE_KEYS, Problem};
use raft::eraftpb::{Message, MessageType};

use super::World;
use crate::keys;
use crate::member::Part;
use crate::time::Nanos;

/// A member's state is hashed at every so-manieth index of the log.
const HASHED_EVERY: u64 = 16;

/// What was seen, and what was wrong about it.
#[derive(Debug, Default)]
pub(crate) struct Watchman {
    /// What must not be.
    pub(crate) problems: Vec<Problem>,
    /// Every change of a key that any member has applied, by revision.
    ledger: BTreeMap<i64, Vec<Change>>,
    /// What is behind each key now, for what was before the next change.
    newest: BTreeMap<u32, Kv>,
    /// When the deletion of a key that goes with a lease was first applied.
    pub(crate) lease_ends: BTreeMap<u32, Nanos>,
    /// Who led in each term.
    leaders: BTreeMap<u64, u64>,
    /// Processes that had no room for entries, by member and life.
    overloaded: BTreeSet<(u64, u16)>,
    pub(crate) fingerprints: Vec<Fingerprint>,
    /// How often things of a kind happened.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// Messages of each kind that arrived.
    pub(crate) messages: BTreeMap<&'static str, u64>,
    /// Turns of each actor.
    pub(crate) turns: BTreeMap<Part, u64>,
    /// The highest revision that a member gave up history to.
    pub(crate) compacted: i64,
}

impl Watchman {
    pub(crate) fn problem(&mut self, promise: &'static str, text: impl Into<String>) {
        self.problems.push(Problem::new(promise, text));
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn turns(&mut self, part: Part) {
        *self.turns.entry(part).or_default() += 1;
    }

    pub(super) fn message(&mut self, message: &Message) {
        *self.messages.entry(kind_name(message.msg_type())).or_default() += 1;
    }

    /// All changes so far, in order.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.ledger.values().flatten().copied().collect()
    }

    /// The newest revision that any member has applied.
    pub(crate) fn revision(&self) -> i64 {
        self.ledger.last_key_value().map_or(1, |(revision, _)| *revision)
    }

    /// Whether a key is there, as far as anybody has applied the log.
    pub(crate) fn holds(&self, key: u32) -> bool {
        self.newest.contains_key(&key)
    }

    /// Takes note of records that a member has applied, in order.
    fn note_records(&mut self, now: Nanos, id: u64, records: impl Iterator<Item = Record>) {
        let mut fresh: Vec<Change> = Vec::new();
        for record in records {
            let revision = record.revision.main;
            if let Some(known) = self.ledger.get(&revision) {
                let change = keys::change(&record, None);
                let same = |other: &&Change| other.key == change.key && other.now == change.now;
                if !known.iter().any(|other| same(&other)) {
                    self.problem(
                        "members agree",
                        format!("m{id} has at revision {revision} {change:?}, others {known:?}"),
                    );
                }
                continue;
            }
            if fresh.last().is_some_and(|last| last.revision != revision) {
                self.enter(now, std::mem::take(&mut fresh));
            }
            let key = keys::number(&record.key);
            let change = keys::change(&record, self.newest.get(&key).copied());
            match change.now {
                Some(kv) => self.newest.insert(key, kv),
                None => self.newest.remove(&key),
            };
            fresh.push(change);
        }
        self.enter(now, fresh);
    }

    fn enter(&mut self, now: Nanos, changes: Vec<Change>) {
        let Some(first) = changes.first() else { return };
        for gone in changes.iter().filter(|change| change.now.is_none()) {
            if gone.key >= LEASE_KEYS {
                self.lease_ends.entry(gone.key).or_insert(now);
            }
        }
        let expected = self.revision() + 1;
        if first.revision != expected {
            let found = first.revision;
            self.problem("revisions have no gap", format!("{found} was applied before {expected}"));
        }
        self.ledger.insert(first.revision, changes);
    }
}

impl World {
    /// Looks at what a member has applied.
    pub(super) fn note_state(&mut self, id: u64) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let Some(process) = member.process.as_ref() else { return };
        let view = process.company.view();
        let (life, from) = (process.life, member.noted + 1);
        if view.revision() >= from {
            member.noted = view.revision();
            let records = view.records_from(Revision { main: from, sub: 0 });
            self.watchman.note_records(self.now, id, records);
        }
        if view.revision() < from - 1 {
            let text = format!("m{id} was at revision {}, and is at {}", from - 1, view.revision());
            self.watchman.problem("a member's state never goes back", text);
        }
        if view.compact_revision() > self.watchman.compacted {
            self.watchman.compacted = view.compact_revision();
            self.watchman.count("history compacted");
        }
        if view.applied_index() % HASHED_EVERY == 0 {
            self.take_fingerprint(id, life);
        }
    }

    /// Notes the state of a member as it is.
    pub(crate) fn take_fingerprint(&mut self, id: u64, life: u16) {
        let Some(process) = self.process(id) else { return };
        let view = process.company.view();
        // Before its first snapshot, a member that joins has no state of the log's.
        let Some(Ok(hash)) = (view.applied_index() > 0).then(|| view.hash_kv(0)) else { return };
        let fingerprint = Fingerprint {
            member: u8::try_from(id - 1).unwrap_or(u8::MAX),
            life,
            applied_index: view.applied_index(),
            revision: view.revision(),
            hash: u64::from(hash.hash) << 32 | u64::from(cluster_hash(view.cluster())),
        };
        if self.watchman.fingerprints.last() != Some(&fingerprint) {
            self.watchman.fingerprints.push(fingerprint);
        }
    }

    /// Looks at who leads.
    pub(super) fn note_raft(&mut self, id: u64) {
        let Some(process) = self.process(id) else { return };
        let life = process.life;
        let status = process.company.raft();
        if status.refused_appends > 0 && self.watchman.overloaded.insert((id, life)) {
            self.watchman.count("entries refused");
        }
        if !status.is_leader {
            return;
        }
        let before = self.watchman.leaders.insert(status.term, id);
        match before {
            None => {
                self.watchman.count("leader elected");
                self.story.tell(self.now, || format!("m{id} leads in term {}", status.term));
            }
            Some(other) if other != id => {
                let text = format!("m{other} and m{id} lead in term {}", status.term);
                self.watchman.problem("a term has one leader", text);
            }
            Some(_) => {}
        }
    }
}

/// A hash of members, alarms and the cluster's version.
fn cluster_hash(cluster: &ClusterState) -> u32 {
    crc32c::crc32c(format!("{cluster:?}").as_bytes())
}

fn kind_name(kind: MessageType) -> &'static str {
    kind.as_str_name()
}
