//! What is stored at the end, from the first revision on, against what clients were told.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Problems;
use crate::chaos::history::{Input, Key, Kv, Operation, Output, Records, Seen, Value};
use crate::chaos::wire::{Event, LEASE_KEYS};

/// All members tell the same events.
pub(super) fn compare_members(stored: &[Vec<Event>], problems: &mut Problems) {
    let Some((first, others)) = stored.split_first() else { return };
    for (other, events) in others.iter().enumerate() {
        if events == first {
            continue;
        }
        let apart = first.iter().zip(events).position(|(one, other)| one != other);
        let place = apart.unwrap_or(first.len().min(events.len()));
        let text = format!(
            "m1 and m{} tell different events ({} and {}), first:\n    {:?}\n    {:?}",
            other + 2,
            first.len(),
            events.len(),
            first.get(place),
            events.get(place)
        );
        problems.add("members agree", text);
    }
}

/// The stored events, to be asked about keys, revisions and values.
#[derive(Debug)]
pub(super) struct Ledger<'a> {
    events: &'a [Event],
    /// Per key, its events in order.
    keys: HashMap<Key, Vec<&'a Event>>,
    /// Per value, the event that wrote it.
    values: HashMap<Value, &'a Event>,
}

impl<'a> Ledger<'a> {
    /// Reads the events; notes where they contradict each other.
    pub(super) fn read(events: &'a [Event], problems: &mut Problems) -> Self {
        let mut ledger = Self { events, keys: HashMap::new(), values: HashMap::new() };
        let mut reached = 0;
        for event in events {
            if event.revision < reached {
                problems.add("stored in order", format!("after revision {reached}: {event:?}"));
            }
            reached = event.revision;
            let past = ledger.keys.entry(event.key).or_default();
            let before = past.last().and_then(|last| last.now);
            if event.before != before {
                let text = format!("before should be {before:?}: {event:?}");
                problems.add("each event follows from the one before", text);
            }
            let created = before.map_or(event.revision, |kv| kv.create);
            let version = before.map_or(1, |kv| kv.version + 1);
            let follows = event.now.map_or(before.is_some(), |now| {
                (now.create, now.version, now.modified) == (created, version, event.revision)
            });
            if !follows {
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

    /// The revision at which a value was written.
    pub(super) fn revision_of(&self, value: Value) -> Option<i64> {
        self.values.get(&value).map(|event| event.revision)
    }

    /// Nothing acknowledged is missing, nothing refused is there, nothing is from nowhere.
    pub(super) fn check_writes(&self, records: &Records, problems: &mut Problems) {
        let mut explained: HashMap<(Key, i64), &Operation> = HashMap::new();
        let mut lost_deletes: HashMap<Key, usize> = HashMap::new();
        let mut written: HashMap<Value, Key> = HashMap::new();
        for operation in &records.operations {
            written.extend(operation.input.written().map(|value| (value, operation.key)));
            if let Some(revision) = operation.made() {
                explained.insert((operation.key, revision), operation);
                if !self.holds(operation, revision) {
                    problems.add("an acknowledged write is stored", format!("\n    {operation}"));
                }
            }
            if (operation.input, operation.output) == (Input::Delete, Output::Unknown) {
                *lost_deletes.entry(operation.key).or_default() += 1;
            }
        }
        for (key, value) in &records.refused {
            if let Some(event) = self.values.get(value) {
                let text = format!("a write of v{value} to key {key} was refused: {event:?}");
                problems.add("a refused write takes no effect", text);
            }
        }
        for event in self.events.iter().filter(|event| event.key < LEASE_KEYS) {
            let known = match event.now {
                Some(now) => written.get(&now.value) == Some(&event.key),
                None => {
                    explained.contains_key(&(event.key, event.revision))
                        || lost_deletes
                            .get_mut(&event.key)
                            .and_then(|left| left.checked_sub(1).map(|less| *left = less))
                            .is_some()
                }
            };
            if !known {
                problems.add("what is stored was asked for", format!("{event:?}"));
            }
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
            let stored = self.at(operation.key, revision);
            if stored != seen {
                let text = format!("\n    {operation}\n    stored there: {stored:?}");
                problems.add("a read tells the state of its revision", text);
            }
        }
    }

    fn holds(&self, operation: &Operation, revision: i64) -> bool {
        let Some(now) = self.event_at(operation.key, revision).map(|event| event.now) else {
            return false;
        };
        now.map(|kv| kv.value) == operation.input.written()
    }

    fn event_at(&self, key: Key, revision: i64) -> Option<&'a Event> {
        let past = self.keys.get(&key)?;
        let place = past.binary_search_by_key(&revision, |event| event.revision).ok()?;
        Some(past[place])
    }

    fn at(&self, key: Key, revision: i64) -> Option<Kv> {
        let past = self.keys.get(&key)?;
        let count = past.partition_point(|event| event.revision <= revision);
        past[..count].last()?.now
    }
}
