//! A store that keeps all promises, and clients that use it all at once, under a seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use castd_check::{
    Asked, Event, Evidence, Input, Key, Kv, Moment, NEVER, Operation, Output, RangeRead, Records,
    Response, Seen, Stretch, Value,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const MEMBERS: usize = 3;
const WATCHERS: u32 = 12;

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Calls.
    pub calls: u32,
    /// Clients, each with one call at a time.
    pub clients: u16,
    /// Keys.
    pub keys: Key,
}

/// A call under way.
#[derive(Debug, Clone)]
struct Call {
    number: u32,
    client: u16,
    member: usize,
    called: Moment,
    parts: Vec<(Key, Input)>,
    /// It reads all keys, from the member's own state or not.
    range: Option<bool>,
    lost: bool,
}

/// The world.
pub struct World {
    random: SmallRng,
    scale: Scale,
    revision: i64,
    state: BTreeMap<Key, Kv>,
    past: BTreeMap<Key, Vec<Event>>,
    events: Vec<Event>,
    /// How far each member is.
    members: [i64; MEMBERS],
    records: Records,
    calls: u32,
    values: Value,
    /// What comes next: a call that takes effect, or a client that makes its next call.
    queue: BinaryHeap<Reverse<(Moment, u64)>>,
    waiting: BTreeMap<u64, Result<Call, u16>>,
}

impl World {
    /// Lets all calls be made, and takes the evidence.
    pub fn run(seed: u64, scale: Scale) -> Evidence {
        let mut world = Self {
            random: SmallRng::seed_from_u64(seed),
            scale,
            revision: 1,
            state: BTreeMap::new(),
            past: BTreeMap::new(),
            events: Vec::new(),
            members: [1; MEMBERS],
            records: Records::default(),
            calls: 0,
            values: 0,
            queue: BinaryHeap::new(),
            waiting: BTreeMap::new(),
        };
        for client in 0..scale.clients {
            world.later(u64::from(client), Err(client));
        }
        while let Some(Reverse((now, number))) = world.queue.pop() {
            match world.waiting.remove(&number) {
                Some(Ok(call)) => world.take_effect(now, &call),
                Some(Err(client)) => world.call(now, client),
                None => {}
            }
        }
        world.evidence()
    }

    fn later(&mut self, moment: Moment, what: Result<Call, u16>) {
        let number = self.waiting.last_key_value().map_or(0, |(last, _)| last + 1);
        self.waiting.insert(number, what);
        self.queue.push(Reverse((moment, number)));
    }

    fn call(&mut self, now: Moment, client: u16) {
        if self.calls == self.scale.calls {
            return;
        }
        self.calls += 1;
        let (parts, range) = self.choose();
        let member = self.random.random_range(0..MEMBERS);
        let lost = self.random.random_ratio(1, 20);
        let number = self.calls;
        let call = Call { number, client, member, called: now, parts, range, lost };
        if !lost {
            let latency = self.random.random_range(1..1000);
            return self.later(now + latency, Ok(call));
        }
        if call.parts[0].1.is_write() {
            self.record(&call, NEVER, &vec![Output::Unknown; call.parts.len()]);
        }
        if self.random.random() {
            let delay = self.random.random_range(1..50_000);
            self.later(now + delay, Ok(call));
        }
        self.later(now + 2000, Err(client));
    }

    fn choose(&mut self) -> (Vec<(Key, Input)>, Option<bool>) {
        let key = self.random.random_range(0..self.scale.keys);
        let other = (key + 1) % self.scale.keys;
        let expected = self.state.get(&key).map_or(0, |kv| kv.modified);
        let parts = match self.random.random_range(0..100) {
            0..30 => vec![(key, Input::Put(self.value()))],
            30..50 => vec![(key, Input::Get)],
            50..60 => vec![(key, Input::GetStale)],
            60..70 => vec![(key, Input::Delete)],
            70..80 => vec![(key, Input::Swap(expected, self.value()))],
            80..85 => vec![(key, Input::Put(self.value())), (other, Input::Put(self.value()))],
            85..90 => vec![(key, Input::Put(self.value())), (other, Input::Delete)],
            90..95 => {
                let swap = Input::Swap(expected, self.value());
                vec![(key, swap), (other, Input::Join(self.value()))]
            }
            _ => return (vec![(key, Input::Get)], Some(self.random.random())),
        };
        (parts, None)
    }

    fn value(&mut self) -> Value {
        self.values += 1;
        self.values
    }

    fn take_effect(&mut self, now: Moment, call: &Call) {
        // Members follow at their own pace.
        let behind = self.random.random_range(0..5);
        let at = &mut self.members[call.member];
        *at = (*at).max(self.revision - behind);
        let own = *at;
        let outputs: Vec<Output> = match call.parts[0].1 {
            _ if call.range.is_some() => Vec::new(),
            Input::GetStale => vec![self.read(call.parts[0].0, own)],
            Input::Get => {
                self.members[call.member] = self.revision;
                vec![self.read(call.parts[0].0, self.revision)]
            }
            _ => self.write(call),
        };
        if call.lost {
            return;
        }
        let returned = now + self.random.random_range(1..1000);
        match call.range {
            Some(serializable) => self.read_range(call, returned, serializable, own),
            None => self.record(call, returned, &outputs),
        }
        self.later(returned + 1, Err(call.client));
    }

    fn read(&self, key: Key, revision: i64) -> Output {
        Output::Done { revision, seen: Seen::Kv(self.at(key, revision)), effect: false }
    }

    fn at(&self, key: Key, revision: i64) -> Option<Kv> {
        let past = self.past.get(&key)?;
        past.iter().rfind(|event| event.revision <= revision)?.now
    }

    fn write(&mut self, call: &Call) -> Vec<Output> {
        let swap = |(key, input): &(Key, Input)| match input {
            Input::Swap(expected, _) => {
                self.state.get(key).map_or(0, |kv| kv.modified) == *expected
            }
            _ => true,
        };
        let holds = call.parts.iter().all(swap);
        let acts = |(key, input): &(Key, Input)| match input {
            Input::Delete => self.state.contains_key(key),
            _ => holds,
        };
        let effects: Vec<bool> = call.parts.iter().map(acts).collect();
        if effects.contains(&true) {
            self.revision += 1;
        }
        let revision = self.revision;
        self.members[call.member] = revision;
        let mut outputs = Vec::with_capacity(effects.len());
        for ((key, input), effect) in call.parts.iter().zip(effects) {
            let before = self.state.get(key).copied();
            if effect {
                self.change(*key, input.written(), before);
            }
            outputs.push(Output::Done { revision, seen: Seen::Kv(before), effect });
        }
        outputs
    }

    fn change(&mut self, key: Key, value: Option<Value>, before: Option<Kv>) {
        let revision = self.revision;
        let now = value.map(|value| Kv {
            value,
            create: before.map_or(revision, |kv| kv.create),
            modified: revision,
            version: before.map_or(1, |kv| kv.version + 1),
        });
        match now {
            Some(kv) => self.state.insert(key, kv),
            None => self.state.remove(&key),
        };
        let event = Event { revision, key, now, before };
        self.events.push(event);
        self.past.entry(key).or_default().push(event);
    }

    fn record(&mut self, call: &Call, returned: Moment, outputs: &[Output]) {
        for ((key, input), output) in call.parts.iter().zip(outputs) {
            self.records.operations.push(Operation {
                call_number: call.number,
                client: call.client,
                member: call.member as u8,
                life: 1,
                key: *key,
                called: call.called,
                returned,
                input: *input,
                output: *output,
            });
        }
    }

    fn read_range(&mut self, call: &Call, returned: Moment, serializable: bool, own: i64) {
        let revision = if serializable { own } else { self.revision };
        self.members[call.member] = revision;
        let keys = 0..=self.scale.keys;
        let pairs = keys.clone().filter_map(|key| Some((key, self.at(key, revision)?)));
        let pairs: Vec<(Key, Kv)> = pairs.collect();
        self.records.range_reads.push(RangeRead {
            call_number: call.number,
            client: call.client,
            member: call.member as u8,
            life: 1,
            called: call.called,
            returned,
            keys,
            serializable,
            asked: 0,
            limit: 0,
            revision,
            count: pairs.len() as u64,
            pairs,
        });
    }

    fn evidence(mut self) -> Evidence {
        let mut evidence = Evidence::default();
        for watcher in 0..WATCHERS {
            let stretch = self.watch(watcher);
            evidence.sightings.stretches.push(stretch);
        }
        evidence.records = self.records;
        evidence.stored = vec![self.events];
        evidence
    }

    fn watch(&mut self, number: u32) -> Stretch {
        let key = self.random.random_range(0..self.scale.keys);
        let keys = if self.random.random() { key..=key } else { 0..=Key::MAX };
        let first = self.random.random_range(1..=self.revision);
        let asked = Asked {
            no_put: number % 5 == 4,
            no_delete: number % 5 == 3,
            prev_kv: number.is_multiple_of(2),
            ..Asked::all(keys, first)
        };
        let prev_kv = asked.prev_kv;
        let mut stretch = Stretch::new(number, "watcher", 0, asked);
        stretch.must_be_complete_to = Some(self.revision);
        stretch.responses.push(Response::Created { revision: self.revision });
        let wanted = |event: &&Event| event.revision >= first && stretch.asked.wants(event);
        let wanted = self.events.iter().filter(wanted).copied();
        let told: Vec<Event> = wanted
            .map(|event| Event { before: event.before.filter(|_| prev_kv), ..event })
            .collect();
        for events in told.chunk_by(|one, other| one.revision == other.revision) {
            let (revision, fragment) = (self.revision, false);
            let reached = events[0].revision;
            stretch.responses.push(Response::Events { revision, events: events.into(), fragment });
            if self.random.random_ratio(1, 10) {
                stretch.responses.push(Response::Progress { revision: reached });
            }
        }
        stretch
    }
}
