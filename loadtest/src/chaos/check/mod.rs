//! The judge: what clients, watchers and lease holders were told, against what must hold.
//!
//! Receives: the history of the clients, what the watchers saw, what the leases were promised,
//! and what every member holds at the end.
//! Answers: problems, in words.
//! Never does: talk to a server. Everything here is a function of what was recorded.
//!
//! | file | what must hold |
//! |---|---|
//! | `linear`, `register`, `keys` | each key: there is an order of all operations that explains all answers and agrees with the times |
//! | `revisions` | all keys together: revisions grow with time, and no two writes share one |
//! | `ledger` | what is stored at the end is what was acknowledged: nothing lost, doubled, or from nowhere; every read told the state of its revision |
//! | `promises` | watchers saw exactly the stored events of their stretch; leases lived as long as promised, and no longer for ever |

mod keys;
mod ledger;
mod linear;
mod promises;
mod register;
mod revisions;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

use super::history::{Moment, Records};
use super::leases::LeaseRecord;
use super::watchers::Sightings;
use super::wire::Event;

/// Problems of one kind that are told; the others are counted.
const TOLD_MAX: usize = 5;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// Which promise was broken.
    pub(crate) promise: &'static str,
    /// How, with the part of the history that shows it.
    pub(crate) text: String,
}

impl Problem {
    /// A broken promise.
    pub(crate) fn new(promise: &'static str, text: impl Into<String>) -> Self {
        Self { promise, text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.promise, self.text)
    }
}

/// Everything there is to be judged.
#[derive(Debug)]
pub(crate) struct Evidence {
    /// What the clients were told.
    pub(crate) records: Records,
    /// What the watchers saw.
    pub(crate) sightings: Sightings,
    /// What the leases were promised.
    pub(crate) leases: Vec<LeaseRecord>,
    /// All events, as each member tells them at the end.
    pub(crate) stored: Vec<Vec<Event>>,
    /// When the lease holders had stopped and all leases had had their time.
    pub(crate) leases_over: Moment,
}

/// The judgement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Judgement {
    /// What must not be. Empty: everything held.
    pub(crate) problems: Vec<Problem>,
    /// Keys whose search for a linearization was given up.
    pub(crate) undecided: u64,
    /// Operations searched.
    pub(crate) operations: u64,
    /// Keys searched.
    pub(crate) keys: u64,
    /// Events stored.
    pub(crate) events: u64,
    /// Events the watchers saw, all together.
    pub(crate) watched: u64,
    /// Leases held.
    pub(crate) leases: u64,
}

/// Judges a round.
pub(crate) fn judge(evidence: &Evidence) -> Judgement {
    let Evidence { records, sightings, leases, stored, leases_over } = evidence;
    let mut problems = Problems::default();
    for text in &records.wrong {
        problems.add("answers make sense", text.clone());
    }
    for text in &sightings.problems {
        problems.add("watch", text.clone());
    }
    revisions::check(&records.operations, &mut problems);
    let events = stored.first().map_or(&[][..], Vec::as_slice);
    let mut hints = None;
    if !stored.is_empty() {
        ledger::compare_members(stored, &mut problems);
        let ledger = ledger::Ledger::read(events, &mut problems);
        ledger.check_writes(records, &mut problems);
        ledger.check_reads(&records.operations, &mut problems);
        promises::check_watches(&sightings.stretches, events, &mut problems);
        promises::check_leases(leases, sightings, events, *leases_over, &mut problems);
        hints = Some(ledger);
    }
    let searched = keys::check(&records.operations, hints.as_ref(), &mut problems);
    Judgement {
        problems: problems.into_told(),
        undecided: searched.undecided,
        operations: searched.operations,
        keys: searched.keys,
        events: events.len() as u64,
        watched: sightings.stretches.iter().map(|stretch| stretch.events.len() as u64).sum(),
        leases: leases.len() as u64,
    }
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
