//! Histories that are wrong on purpose, and the same ones made right.

use super::*;
use crate::chaos::history::{Input, Key, Kv, NEVER, Operation, Output, Seen, Value};
use crate::chaos::leases::LeaseRecord;
use crate::chaos::watchers::{Habit, Stretch, digest};
use crate::chaos::wire::LEASE_KEYS;
use std::time::Duration;

/// A store of one member that makes a history one operation after the other, each lasting
/// five units of time, and then lets tests falsify it.
#[derive(Default)]
struct Store {
    revision: i64,
    now: Moment,
    calls: u32,
    keys: std::collections::BTreeMap<Key, Kv>,
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
            sightings: Sightings::default(),
            leases: Vec::new(),
            stored: vec![self.events.clone(), self.events.clone()],
            leases_over: NEVER - 1,
        }
    }
}

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

#[test]
fn a_history_of_every_kind_of_call_is_right() {
    let mut store = Store::new();
    store.get(1).put(1, 10).get(1).put(1, 11).swap(1, 3, 12).swap(1, 3, 13).get(1);
    store.delete(1).delete(1).get(1).swap(1, 0, 14).swap(1, 0, 15).get(1).put(2, 20).get(1);
    let evidence = store.evidence();
    assert_eq!(judge(&evidence).problems, []);
    assert_eq!(judge(&evidence).operations, 15);
}

#[test]
fn lost_answers_may_have_taken_effect_or_not() {
    let mut store = Store::new();
    store.put(1, 10).put(1, 11).lose_answer().get(1).delete(1).lose_answer().get(1);
    store.put(1, 12).lose_answer().put(1, 13).lose_answer().get(1).swap(1, 6, 14).lose_answer();
    let mut evidence = store.evidence();
    assert_eq!(promises(&evidence), Vec::<&str>::new());
    assert_eq!(told_only(&mut evidence), Vec::<&str>::new());

    // The write behind the lost answer never happened.
    let mut store = Store::new();
    store.put(1, 10).get(1).lose_answer();
    store.records.operations[1].input = Input::Put(99);
    store.get(1).put(1, 11).get(1);
    let mut evidence = store.evidence();
    assert_eq!(promises(&evidence), Vec::<&str>::new());
    assert_eq!(told_only(&mut evidence), Vec::<&str>::new());
}

#[test]
fn a_lost_write_is_found() {
    let mut store = Store::new();
    store.put(1, 10).put(1, 11).get(1);
    // The second put was acknowledged; the read behind it and the store do not know it.
    let mut evidence = store.evidence();
    let first = evidence.stored[0][0];
    evidence.records.operations[2].output =
        Output::Done { revision: 3, seen: Seen::Kv(first.now), effect: false };
    for events in &mut evidence.stored {
        events.truncate(1);
    }
    let found = promises(&evidence);
    assert!(found.contains(&"an acknowledged write is stored"), "{found:?}");
    assert!(found.contains(&"linearizable"), "{found:?}");
    assert_eq!(told_only(&mut evidence), ["linearizable"]);
}

#[test]
fn a_stale_read_is_found() {
    let mut store = Store::new();
    store.put(1, 10).put(1, 11).get(1);
    let mut evidence = store.evidence();
    let first = evidence.stored[0][0];
    // It tells the state of the revision it names, which is an old one.
    evidence.records.operations[2].output =
        Output::Done { revision: 2, seen: Seen::Kv(first.now), effect: false };
    let of_member = "a member's state never goes back";
    assert_eq!(promises(&evidence), ["revisions grow with time", of_member, "linearizable"]);
    // Asked for as stale, it is right, unless the same process has told a newer state before.
    evidence.records.operations[2].input = Input::GetStale;
    assert_eq!(promises(&evidence), [of_member]);
    evidence.records.operations[2].life = 2;
    assert_eq!(promises(&evidence), Vec::<&str>::new());
}

#[test]
fn a_read_of_another_revision_than_it_names_is_found() {
    let mut store = Store::new();
    store.put(1, 10).put(1, 11).get(1);
    let mut evidence = store.evidence();
    let first = evidence.stored[0][0];
    evidence.records.operations[2].input = Input::GetStale;
    evidence.records.operations[2].output =
        Output::Done { revision: 3, seen: Seen::Kv(first.now), effect: false };
    assert_eq!(promises(&evidence), ["a read tells the state of its revision"]);
}

#[test]
fn a_write_applied_twice_is_found() {
    let mut store = Store::new();
    store.put(1, 10);
    store.write(1, Some(10));
    store.get(1);
    let mut evidence = store.evidence();
    let found = promises(&evidence);
    assert!(found.contains(&"a write takes effect once"), "{found:?}");
    // The version in the answer gives it away even without what is stored.
    assert_eq!(told_only(&mut evidence), ["linearizable"]);
}

#[test]
fn a_swap_that_two_clients_won_is_found() {
    let mut store = Store::new();
    store.put(1, 10).swap(1, 2, 11).swap(1, 3, 12);
    store.records.operations[2].input = Input::Swap(2, 12);
    assert_eq!(told_only(&mut store.evidence()), ["linearizable"]);
}

#[test]
fn a_write_that_was_refused_or_never_asked_for_is_found() {
    let mut store = Store::new();
    store.put(1, 10).put(1, 11);
    let refused = store.records.operations.pop().unwrap();
    store.records.refused.push((1, refused.input.written().unwrap()));
    let found = promises(&store.evidence());
    assert!(found.contains(&"a refused write takes no effect"), "{found:?}");
    assert!(found.contains(&"what is stored was asked for"), "{found:?}");

    let mut store = Store::new();
    store.put(1, 10).delete(1);
    store.records.operations.pop();
    assert_eq!(promises(&store.evidence()), ["what is stored was asked for"]);
}

#[test]
fn a_revision_made_twice_is_found() {
    let mut store = Store::new();
    store.put(1, 10).put(2, 20);
    let operation = &mut store.records.operations[1];
    operation.called = 0;
    operation.output = Output::Done { revision: 2, seen: Seen::Kv(None), effect: true };
    let found = told_only(&mut store.evidence());
    assert_eq!(found, ["a revision has one maker"]);
}

#[test]
fn members_that_differ_are_found() {
    let mut store = Store::new();
    store.put(1, 10).put(1, 11);
    let mut evidence = store.evidence();
    evidence.stored[1].pop();
    assert_eq!(promises(&evidence), ["members agree"]);
}

#[test]
fn a_broken_chain_of_events_is_found() {
    let mut store = Store::new();
    store.put(1, 10).put(1, 11);
    let mut evidence = store.evidence();
    for events in &mut evidence.stored {
        events[1].before = None;
    }
    let found = promises(&evidence);
    assert!(found.contains(&"each event follows from the one before"), "{found:?}");
}

fn stretch(events: &[Event], first: i64, reached: i64) -> Stretch {
    let kept = events.iter().filter(|event| (first..=reached).contains(&event.revision));
    let events = kept.map(|event| (event.revision, digest(event))).collect();
    Stretch { member: 0, habit: Habit::Follow, first, reached, events }
}

#[test]
fn watchers_see_all_of_their_stretch_and_nothing_else() {
    let mut store = Store::new();
    store.put(1, 10).put(2, 20).delete(1).put(1, 11);
    let mut evidence = store.evidence();
    let events = evidence.stored[0].clone();
    let with = |evidence: &mut Evidence, change: &dyn Fn(&mut Stretch)| {
        let mut seen = stretch(&events, 2, 5);
        change(&mut seen);
        evidence.sightings.stretches = vec![stretch(&events, 3, 4), seen];
        promises(evidence)
    };
    assert_eq!(with(&mut evidence, &|_| {}), Vec::<&str>::new());
    let falsified: [&dyn Fn(&mut Stretch); 5] = [
        &|seen| seen.events.truncate(1),
        &|seen| seen.events = seen.events.split_off(1),
        &|seen| seen.events.swap(1, 2),
        &|seen| seen.events[1].1 += 1,
        &|seen| seen.events.push(seen.events[0]),
    ];
    for change in falsified {
        assert_eq!(with(&mut evidence, change), ["watch"]);
    }
}

#[test]
fn leases_live_their_time_and_no_longer() {
    let second = 1_000_000_000;
    let lease = LeaseRecord {
        id: 7,
        key: LEASE_KEYS + 1,
        ttl: Duration::from_secs(5),
        renewed: vec![(0, 1), (10 * second, 10 * second + 1)],
        left: Some(11 * second),
        revoked: None,
        denied: None,
    };
    let mut store = Store::new();
    store.write(LEASE_KEYS + 1, Some(1));
    store.write(LEASE_KEYS + 1, None);
    let mut evidence = store.evidence();
    let mut ended_at = |moment: Moment, revoked: Option<Moment>| {
        evidence.leases = vec![LeaseRecord { revoked, ..lease.clone() }];
        evidence.sightings.lease_ends = [(LEASE_KEYS + 1, moment)].into();
        promises(&evidence)
    };
    assert_eq!(ended_at(15 * second, None), Vec::<&str>::new());
    assert_eq!(ended_at(14 * second, None), ["a lease lives its time"]);
    assert_eq!(ended_at(12 * second, Some(11 * second)), Vec::<&str>::new());
    for events in &mut evidence.stored {
        events.pop();
    }
    evidence.sightings.lease_ends.clear();
    assert_eq!(promises(&evidence), ["a lease that is left alone ends"]);
}
