//! Histories that are wrong on purpose, and the same ones made right.

use std::collections::BTreeMap;

use super::*;

mod holds;
mod leases;
mod operations;
mod others;
mod reads;
mod watches;

const NONE: [&str; 0] = [];

/// A store of one member that makes a history one operation after the other, each lasting
/// five units of time, and then lets tests falsify it.
#[derive(Default)]
struct Store {
    revision: i64,
    now: Moment,
    calls: u32,
    keys: BTreeMap<Key, Kv>,
    records: Records,
    events: Vec<Event>,
}

impl Store {
    fn new() -> Self {
        Self { revision: 1, ..Self::default() }
    }

    fn put(&mut self, key: Key, value: Value) -> &mut Self {
        let before = self.write(key, Some(value));
        self.record(key, Input::Put(value), Seen::Kv(before), true)
    }

    fn delete(&mut self, key: Key) -> &mut Self {
        let there = self.keys.contains_key(&key);
        let before = if there { self.write(key, None) } else { None };
        self.record(key, Input::Delete, Seen::Kv(before), there)
    }

    fn get(&mut self, key: Key) -> &mut Self {
        let kv = self.keys.get(&key).copied();
        self.record(key, Input::Get, Seen::Kv(kv), false)
    }

    fn swap(&mut self, key: Key, expected: i64, value: Value) -> &mut Self {
        let kv = self.keys.get(&key).copied();
        if kv.map_or(0, |kv| kv.modified) == expected {
            self.write(key, Some(value));
            return self.record(key, Input::Swap(expected, value), Seen::NotAsked, true);
        }
        self.record(key, Input::Swap(expected, value), Seen::Kv(kv), false)
    }

    /// Two puts in one transaction.
    fn put_both(&mut self, puts: [(Key, Value); 2]) -> &mut Self {
        let inputs = puts.map(|(key, value)| (key, Input::Put(value)));
        self.write_together(puts);
        self.record_together(inputs, true)
    }

    /// A swap of one key, and a put of another that joins it.
    fn join(&mut self, key: Key, expected: i64, value: Value, other: (Key, Value)) -> &mut Self {
        let holds = self.keys.get(&key).map_or(0, |kv| kv.modified) == expected;
        if holds {
            self.write_together([(key, value), other]);
        }
        let inputs = [(key, Input::Swap(expected, value)), (other.0, Input::Join(other.1))];
        self.record_together(inputs, holds)
    }

    fn write_together(&mut self, puts: [(Key, Value); 2]) {
        let [(one, first), (other, second)] = puts;
        self.write(one, Some(first));
        self.revision -= 1;
        self.write(other, Some(second));
    }

    fn record_together(&mut self, inputs: [(Key, Input); 2], effect: bool) -> &mut Self {
        let [(one, first), (other, second)] = inputs;
        self.record(one, first, Seen::NotAsked, effect);
        (self.calls, self.now) = (self.calls - 1, self.now - 10);
        self.record(other, second, Seen::NotAsked, effect)
    }

    /// Reads all keys at a revision, or now (0).
    fn range(&mut self, asked: i64) -> &mut Self {
        self.calls += 1;
        self.now += 10;
        let revision = self.revision;
        let at = if asked > 0 { asked } else { revision };
        let mut state = BTreeMap::new();
        for event in self.events.iter().filter(|event| event.revision <= at) {
            match event.now {
                Some(kv) => state.insert(event.key, kv),
                None => state.remove(&event.key),
            };
        }
        self.records.range_reads.push(RangeRead {
            call_number: self.calls,
            client: 0,
            member: 0,
            life: 1,
            called: self.now,
            returned: self.now + 5,
            keys: 0..=9,
            serializable: false,
            asked,
            limit: 0,
            revision,
            count: state.len() as u64,
            pairs: state.into_iter().collect(),
        });
        self
    }

    /// The latest operation's answer is lost.
    fn lose_answer(&mut self) -> &mut Self {
        let last = self.records.operations.last_mut().unwrap();
        (last.output, last.returned) = (Output::Unknown, NEVER);
        self
    }

    /// Changes the state as if nobody had asked for it to be told.
    fn write(&mut self, key: Key, value: Option<Value>) -> Option<Kv> {
        let before = self.keys.get(&key).copied();
        self.revision += 1;
        let now = value.map(|value| Kv {
            value,
            create: before.map_or(self.revision, |kv| kv.create),
            modified: self.revision,
            version: before.map_or(1, |kv| kv.version + 1),
        });
        match now {
            Some(kv) => self.keys.insert(key, kv),
            None => self.keys.remove(&key),
        };
        self.events.push(Event { revision: self.revision, key, now, before });
        before
    }

    fn record(&mut self, key: Key, input: Input, seen: Seen, effect: bool) -> &mut Self {
        self.calls += 1;
        self.now += 10;
        self.records.operations.push(Operation {
            call_number: self.calls,
            client: 0,
            member: 0,
            life: 1,
            key,
            called: self.now,
            returned: self.now + 5,
            input,
            output: Output::Done { revision: self.revision, seen, effect },
        });
        self
    }

    fn evidence(&mut self) -> Evidence {
        Evidence {
            records: std::mem::take(&mut self.records),
            stored: vec![self.events.clone(), self.events.clone()],
            leases_over: Some(NEVER - 1),
            ..Evidence::default()
        }
    }
}

/// The promises broken, each once in a row.
fn promises(evidence: &Evidence) -> Vec<&'static str> {
    let mut promises: Vec<_> =
        judge(evidence).problems.iter().map(|problem| problem.promise).collect();
    promises.dedup();
    promises
}

/// The same without what is stored at the end: only what the clients were told counts.
fn told_only(evidence: &mut Evidence) -> Vec<&'static str> {
    evidence.stored.clear();
    promises(evidence)
}
