//! What is stored at the end, from the first revision on, against what clients were told.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use super::Problems;
use crate::history::{Event, Key, Kv, LEASE_KEYS, Operation, Output, Records, Seen, Value};

/// The stored events, to be asked about keys, revisions and values.
#[derive(Debug)]
pub(super) struct Ledger<'a> {
    events: &'a [Event],
    /// Per key, its events in order.
    keys: BTreeMap<Key, Vec<&'a Event>>,
    /// Per value, the event that wrote it.
    values: BTreeMap<Value, &'a Event>,
}

impl<'a> Ledger<'a> {
    /// Reads the events; notes where they contradict each other.
    pub(super) fn read(events: &'a [Event], problems: &mut Problems) -> Self {
        let mut ledger = Self { events, keys: BTreeMap::new(), values: BTreeMap::new() };
        let mut reached = 0;
        for event in events {
            if event.revision < reached {
                problems.add("stored in order", format!("after revision {reached}: {event:?}"));
            }
            reached = event.revision;
            let past = ledger.keys.entry(event.key).or_default();
            let before = past.last().copied();
            if !follows(event, before) {
                let text = format!("after {before:?}: {event:?}");
                problems.add("each event follows from the one before", text);
            }
            past.push(event);
            let Some(now) = event.now else { continue };
            match ledger.values.entry(now.value) {
                Entry::Vacant(place) => {
                    place.insert(event);
                }
                Entry::Occupied(place) => {
                    let text = format!("\n    {:?}\n    {event:?}", place.get());
                    problems.add("a write takes effect once", text);
                }
            }
        }
        ledger
    }

    /// All events, in order.
    pub(super) fn events(&self) -> &'a [Event] {
        self.events
    }

    /// The event that wrote a value.
    pub(super) fn writer(&self, value: Value) -> Option<&'a Event> {
        self.values.get(&value).copied()
    }

    /// A key's events, in order.
    pub(super) fn of_key(&self, key: Key) -> &[&'a Event] {
        self.keys.get(&key).map_or(&[], Vec::as_slice)
    }

    /// A key's deletions, in order.
    pub(super) fn deletions(&self, key: Key) -> impl Iterator<Item = &'a Event> {
        self.of_key(key).iter().copied().filter(|event| event.now.is_none())
    }

    /// A key's last state.
    pub(super) fn last(&self, key: Key) -> Option<Kv> {
        self.of_key(key).last()?.now
    }

    /// The keys of a range that were there at a revision, in ascending order.
    pub(super) fn state(
        &self,
        keys: RangeInclusive<Key>,
        revision: i64,
    ) -> impl Iterator<Item = (Key, Kv)> {
        let past = (!keys.is_empty()).then(|| self.keys.range(keys)).into_iter().flatten();
        past.filter_map(move |(key, past)| Some((*key, state_at(past, revision)?)))
    }

    /// Nothing acknowledged is missing, nothing refused is there, nothing is from nowhere.
    pub(super) fn check_writes(&self, records: &Records, problems: &mut Problems) {
        let mut written: HashMap<Value, &Operation> = HashMap::new();
        for operation in &records.operations {
            written.extend(operation.input.written().map(|value| (value, operation)));
            let Some(revision) = operation.made() else { continue };
            if !self.holds(operation, revision) {
                problems.add("an acknowledged write is stored", format!("\n    {operation}"));
            }
        }
        for (key, value) in &records.refused {
            if let Some(event) = self.writer(*value) {
                let text = format!("a write of v{value} to key {key} was refused: {event:?}");
                problems.add("a refused write takes no effect", text);
            }
        }
        for operation in &records.operations {
            self.check_not_done(operation, problems);
        }
        for event in self.events.iter().filter(|event| event.key < LEASE_KEYS) {
            let Some(now) = event.now else { continue };
            if written.get(&now.value).is_none_or(|operation| operation.key != event.key) {
                problems.add("what is stored was asked for", format!("{event:?}"));
            }
        }
    }

    /// A write that was answered with "not done" is not stored.
    fn check_not_done(&self, operation: &Operation, problems: &mut Problems) {
        let Output::Done { effect: false, .. } = operation.output else { return };
        if let Some(event) = operation.input.written().and_then(|value| self.writer(value)) {
            let text = format!("\n    {operation}\n    {event:?}");
            problems.add("a refused write takes no effect", text);
        }
    }

    /// Every answer told the state of its revision: stale reads too, whose revision is old.
    pub(super) fn check_reads(&self, operations: &[Operation], problems: &mut Problems) {
        for operation in operations {
            let Output::Done { revision, seen: Seen::Kv(seen), effect } = operation.output else {
                continue;
            };
            // A write tells the key before it.
            let revision = if effect { revision - 1 } else { revision };
            let stored = self.key_at(operation.key, revision);
            if stored != seen {
                let text = format!("\n    {operation}\n    stored there: {stored:?}");
                problems.add("a read tells the state of its revision", text);
            }
        }
    }

    /// A key at a revision.
    pub(super) fn key_at(&self, key: Key, revision: i64) -> Option<Kv> {
        state_at(self.of_key(key), revision)
    }

    fn holds(&self, operation: &Operation, revision: i64) -> bool {
        let Some(now) = self.event_at(operation.key, revision).map(|event| event.now) else {
            return false;
        };
        now.map(|kv| kv.value) == operation.input.written()
    }

    /// What happened to a key at a revision.
    pub(super) fn event_at(&self, key: Key, revision: i64) -> Option<&'a Event> {
        let past = self.of_key(key);
        let place = past.binary_search_by_key(&revision, |event| event.revision).ok()?;
        Some(past[place])
    }
}

fn state_at(past: &[&Event], revision: i64) -> Option<Kv> {
    let count = past.partition_point(|event| event.revision <= revision);
    past[..count].last()?.now
}

/// Whether an event can be what happened to its key next.
fn follows(event: &Event, last: Option<&Event>) -> bool {
    let before = last.and_then(|last| last.now);
    let created = before.map_or(event.revision, |kv| kv.create);
    let version = before.map_or(1, |kv| kv.version + 1);
    let possible = event.now.map_or(before.is_some(), |now| {
        (now.create, now.version, now.modified) == (created, version, event.revision)
    });
    let later = last.is_none_or(|last| last.revision < event.revision);
    event.before == before && possible && later
}
