//! Lost answers: what is stored settles them. A write whose value is there took effect at that
//! revision, one whose value is not there never did; deletions that nobody was told of belong
//! to the deletes whose answers were lost. On the way: the parts of a call took effect all
//! together or not at all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Problems;
use super::ledger::Ledger;
use crate::history::{Event, Input, Key, LEASE_KEYS, Operation, Output, Seen};

/// The operations with all outcomes known. Those of lost answers that took no effect are left
/// out.
pub(super) fn settle(
    operations: &[Operation],
    ledger: &Ledger<'_>,
    problems: &mut Problems,
) -> Vec<Operation> {
    let mut calls: BTreeMap<u32, Vec<&Operation>> = BTreeMap::new();
    let mut known = Vec::with_capacity(operations.len());
    for operation in operations {
        if operation.input.is_write() {
            calls.entry(operation.call_number).or_default().push(operation);
        } else {
            known.push(*operation);
        }
    }
    // Lost deletes, by key, that may have been at work at any time.
    let mut open: BTreeMap<Key, Vec<&Operation>> = BTreeMap::new();
    for parts in calls.values() {
        if parts.iter().all(|part| part.output != Output::Unknown) {
            check_answered(parts, problems);
            known.extend(parts.iter().copied());
        } else if parts.iter().all(|part| part.input == Input::Delete) {
            for part in parts {
                open.entry(part.key).or_default().push(part);
            }
        } else {
            known.extend(settle_lost(parts, ledger, problems));
        }
    }
    settle_deletes(open, ledger, &mut known, problems);
    known
}

/// The writes of an answered call share their revision, or none took effect.
fn check_answered(parts: &[&Operation], problems: &mut Problems) {
    // A delete of a key that is not there makes no event.
    let writes =
        || parts.iter().filter(|part| part.made().is_some() || part.input.written().is_some());
    let mut revisions = writes().map(|part| part.made());
    let first = revisions.next();
    if first.is_some_and(|first| revisions.any(|other| other != first)) {
        problems.add("a transaction takes effect as a whole", list(parts));
    }
}

/// What a call did whose answer was lost and that wrote values.
fn settle_lost(
    parts: &[&Operation],
    ledger: &Ledger<'_>,
    problems: &mut Problems,
) -> Vec<Operation> {
    let mut values = parts.iter().filter_map(|part| part.input.written());
    let Some(event) = values.find_map(|value| ledger.writer(value)) else { return Vec::new() };
    let revision = event.revision;
    let mut known = Vec::with_capacity(parts.len());
    for part in parts {
        let made = match part.input.written() {
            Some(value) => ledger.writer(value).filter(|event| event.revision == revision),
            None => ledger.event_at(part.key, revision).filter(|event| event.now.is_none()),
        };
        if made.is_some() {
            known.push(done(part, revision));
        } else if part.input.written().is_some() || ledger.key_at(part.key, revision).is_some() {
            let text = format!("{}\n    at revision {revision}: {event:?}", list(parts));
            problems.add("a transaction takes effect as a whole", text);
        }
    }
    known
}

/// Gives the deletions nobody was told of to the deletes whose answers were lost, in order: as
/// these may take effect at any time behind their call, the first called is as good as any.
fn settle_deletes(
    open: BTreeMap<Key, Vec<&Operation>>,
    ledger: &Ledger<'_>,
    known: &mut Vec<Operation>,
    problems: &mut Problems,
) {
    let deletes = known.iter().filter(|operation| operation.input == Input::Delete);
    let explained: BTreeSet<(Key, i64)> =
        deletes.filter_map(|operation| Some((operation.key, operation.made()?))).collect();
    let mut open: BTreeMap<Key, VecDeque<&Operation>> = open
        .into_iter()
        .map(|(key, mut deletes)| {
            deletes.sort_by_key(|delete| delete.called);
            (key, deletes.into())
        })
        .collect();
    let unexplained = |event: &&Event| {
        event.key < LEASE_KEYS
            && event.now.is_none()
            && !explained.contains(&(event.key, event.revision))
    };
    for event in ledger.events().iter().filter(unexplained) {
        match open.get_mut(&event.key).and_then(VecDeque::pop_front) {
            Some(delete) => known.push(done(delete, event.revision)),
            None => problems.add("what is stored was asked for", format!("{event:?}")),
        }
    }
}

/// The operation, known to have taken effect.
fn done(operation: &Operation, revision: i64) -> Operation {
    let output = Output::Done { revision, seen: Seen::NotAsked, effect: true };
    Operation { output, ..*operation }
}

fn list(parts: &[&Operation]) -> String {
    parts.iter().map(|part| format!("\n    {part}")).collect()
}
