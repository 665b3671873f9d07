//! The judge: what clients, watchers and lease holders were told, against what must hold.
//!
//! Receives: the history of the clients, what the watchers saw, what the leases were promised,
//! what the members hold, and looks at their state machines, of real processes or simulated
//! ones.
//! Answers: problems, in words. The same evidence gives the same words.
//! Never does: talk to a server. Everything here is a function of what was recorded.
//!
//! | file | what it is for |
//! |---|---|
//! | `history`, `sightings`, `leases` | what is recorded of clients, watchers and lease holders |
//! | `linear`, `register`, `keys` | each key: there is an order of all operations that explains all answers and agrees with the times |
//! | `revisions` | all keys together: revisions grow with time, and no two calls share one |
//! | `outcomes` | lost answers, settled by what is stored; transactions took effect as a whole |
//! | `ledger`, `ranges` | what is stored is what was acknowledged: nothing lost, doubled, or from nowhere; every read told the state of its revision |
//! | `watches` | each watch told exactly the stored events it asked for, whole and in order, and the truth about its progress |
//! | `leases` | leases lived as long as promised, and no longer; all keys of one went at once |
//! | `holds` | a lock has one holder at a time |
//! | `members` | all members hold the same |

mod history;
mod holds;
mod keys;
mod leases;
mod ledger;
mod linear;
mod members;
mod outcomes;
mod ranges;
mod register;
mod revisions;
mod sightings;
#[cfg(test)]
mod tests;
mod watches;

use std::fmt;

use serde::Serialize;

pub use history::{
    Event, Input, Key, Kv, LEASE_KEYS, Moment, NEVER, Operation, Output, RangeRead, Records, Seen,
    Tally, Value,
};
pub use holds::Hold;
pub use leases::LeaseRecord;
pub use members::Fingerprint;
pub use sightings::{Asked, Response, Sightings, Stretch};

/// Problems of one kind that are told; the others are counted.
const TOLD_MAX: usize = 5;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Which promise was broken.
    pub promise: &'static str,
    /// How, with the part of the history that shows it.
    pub text: String,
}

impl Problem {
    /// A broken promise.
    pub fn new(promise: &'static str, text: impl Into<String>) -> Self {
        Self { promise, text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.promise, self.text)
    }
}

/// Everything there is to be judged. What is left empty is not judged.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// What the clients were told.
    pub records: Records,
    /// What the watchers saw.
    pub sightings: Sightings,
    /// What the leases were promised.
    pub leases: Vec<LeaseRecord>,
    /// When clients held locks.
    pub holds: Vec<Hold>,
    /// All events from the first revision on, in order, as each member tells them at the end,
    /// or once, as somebody knows who saw them all. The first list is what everything else is
    /// held against.
    pub stored: Vec<Vec<Event>>,
    /// Looks at members' state machines.
    pub fingerprints: Vec<Fingerprint>,
    /// The highest revision a compaction was asked for; 0 for none. Watchers may lack the keys
    /// before events up to there, and may be cancelled for it.
    pub compacted: i64,
    /// When the lease holders had stopped and all leases had had their time; `None` where that
    /// did not come.
    pub leases_over: Option<Moment>,
    /// So much earlier than promised may a lease end: members' clocks that drift and jump.
    pub early_tolerance: Moment,
    /// So much later than its time may a lease end that is left alone; `None`: at any time
    /// before [`Evidence::leases_over`].
    pub late_bound: Option<Moment>,
    /// No fault was active since then. No lease is late before it has had its time from here.
    pub calm_since: Moment,
}

/// The judgement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// What must not be. Empty: everything held.
    pub problems: Vec<Problem>,
    /// Keys whose search for a linearization was given up.
    pub undecided: u64,
    /// Operations searched.
    pub operations: u64,
    /// Keys searched.
    pub keys: u64,
    /// Reads of ranges held against what is stored.
    pub range_reads: u64,
    /// Events stored.
    pub events: u64,
    /// Events the watchers saw, all together.
    pub watched: u64,
    /// Leases held.
    pub leases: u64,
}

/// Judges a history.
pub fn judge(evidence: &Evidence) -> Judgement {
    let Evidence { records, sightings, stored, .. } = evidence;
    let mut problems = Problems::default();
    for text in &records.wrong {
        problems.add("answers make sense", text.clone());
    }
    for text in &sightings.problems {
        problems.add("watch", text.clone());
    }
    members::check_fingerprints(&evidence.fingerprints, &mut problems);
    let searched = match stored.first() {
        Some(events) => judge_stored(evidence, events, &mut problems),
        None => {
            revisions::check(records, &records.operations, &mut problems);
            keys::check(&records.operations, None, &mut problems)
        }
    };
    Judgement {
        problems: problems.into_told(),
        undecided: searched.undecided,
        operations: searched.operations,
        keys: searched.keys,
        range_reads: records.range_reads.len() as u64,
        events: stored.first().map_or(0, |events| events.len() as u64),
        watched: sightings.stretches.iter().map(|stretch| stretch.events().count() as u64).sum(),
        leases: evidence.leases.len() as u64,
    }
}

/// Judges a history of which is known what is stored.
fn judge_stored(evidence: &Evidence, events: &[Event], problems: &mut Problems) -> keys::Searched {
    let records = &evidence.records;
    members::compare_events(&evidence.stored, problems);
    let ledger = ledger::Ledger::read(events, problems);
    ledger.check_writes(records, problems);
    ledger.check_reads(&records.operations, problems);
    ranges::check(&records.range_reads, &ledger, problems);
    let known = outcomes::settle(&records.operations, &ledger, problems);
    revisions::check(records, &known, problems);
    watches::check(&evidence.sightings, events, evidence.compacted, problems);
    leases::check(evidence, &ledger, problems);
    holds::check(&evidence.holds, evidence.early_tolerance, problems);
    keys::check(&known, Some(&ledger), problems)
}

/// Problems as they are found: the first few of each kind in words, the rest as a number.
#[derive(Debug, Default)]
struct Problems {
    told: Vec<Problem>,
    counts: Vec<(&'static str, usize)>,
}

impl Problems {
    fn add(&mut self, promise: &'static str, text: String) {
        let known = self.counts.iter_mut().find(|(other, _)| *other == promise);
        let count = match known {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                self.counts.push((promise, 1));
                1
            }
        };
        if count <= TOLD_MAX {
            self.told.push(Problem { promise, text });
        }
    }

    fn into_told(mut self) -> Vec<Problem> {
        for (promise, count) in self.counts {
            if count > TOLD_MAX {
                let text = format!("and {} more of this kind", count - TOLD_MAX);
                self.told.push(Problem { promise, text });
            }
        }
        self.told
    }
}
