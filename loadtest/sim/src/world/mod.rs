//! The world: members, network, clients, and one line of events in virtual time.

mod ambush;
mod calls;
mod events;
mod faults;
mod links;
mod lives;
mod network;
mod recovery;
mod upkeep;
mod watchman;

use std::collections::{BTreeMap, BinaryHeap};

use castd_actors::company::Begin;
use castd_actors::{ClusterState, Identity, MemberInfo};
use rand::Rng;

use self::calls::Calls;
pub(crate) use self::events::Event;
use self::events::Moment;
pub(crate) use self::lives::Ending;
use self::network::Network;
pub(crate) use self::watchman::Watchman;
use crate::chance::Chance;
use crate::clients::Client;
use crate::member::{Member, MemberClock, MemberConfig, Part};
use crate::story::Story;
use crate::time::{MS, Nanos, SECOND, US};
use crate::weather::Weather;

/// The longest that a sluggish actor lets others wait for one turn, if nothing else ails.
const SLUGGISH_MAX: Nanos = 3 * SECOND;
/// The cluster's id.
const CLUSTER: u64 = 0xca57d;

/// Everything there is.
pub(crate) struct World {
    pub(crate) now: Nanos,
    line: BinaryHeap<Moment>,
    sequence: u64,
    /// Decides what takes how long, and what is lost.
    pub(crate) chance: Chance,
    pub(crate) config: MemberConfig,
    pub(crate) members: BTreeMap<u64, Member>,
    pub(crate) network: Network,
    pub(crate) weather: Weather,
    clients: Vec<Option<Box<dyn Client>>>,
    calls: Calls,
    pub(crate) watchman: Watchman,
    pub(crate) story: Story,
    /// Events so far.
    pub(crate) steps: u64,
    /// When the last fault was mended, if all are.
    pub(crate) calm_since: Option<Nanos>,
}

impl World {
    /// A world without members.
    pub(crate) fn new(
        chance: Chance,
        config: MemberConfig,
        weather: Weather,
        story: Story,
    ) -> Self {
        Self {
            now: 0,
            line: BinaryHeap::new(),
            sequence: 0,
            chance,
            config,
            members: BTreeMap::new(),
            network: Network::default(),
            weather,
            clients: Vec::new(),
            calls: Calls::default(),
            watchman: Watchman::default(),
            story,
            steps: 0,
            calm_since: None,
        }
    }

    /// Makes the members of a new cluster, with ids from 1, and starts them.
    pub(crate) fn found(&mut self, members: u64) {
        let cluster = ClusterState {
            members: (1..=members).map(|id| (id, first_member(id))).collect(),
            ..ClusterState::default()
        };
        for id in 1..=members {
            self.add_member(id, Begin::Bootstrap(cluster.clone()));
        }
    }

    /// Makes a member and starts it.
    pub(crate) fn add_member(&mut self, id: u64, begin: Begin) {
        let identity = Identity { cluster_id: CLUSTER, member_id: id };
        let most = self.weather.drift_ppm.max(1);
        let clock = MemberClock {
            drift_ppm: self.chance.random_range(-most..=most),
            jumped_ms: 0,
            counted_ms: 0,
        };
        self.members.insert(id, Member::new(identity, begin, clock));
        let soon = self.chance.random_range(1..50) * MS;
        self.after(soon, Event::Start { member: id });
    }

    /// Adds a client, which begins at once.
    pub(crate) fn add_client(&mut self, client: Box<dyn Client>) {
        self.clients.push(Some(client));
        let number = self.clients.len() - 1;
        self.wake_client(number, 0, 0);
    }

    /// Wakes a client after a time.
    pub(crate) fn wake_client(&mut self, client: usize, after: Nanos, token: u64) {
        self.after(after, Event::Client { client, token });
    }

    /// Has something happen later.
    pub(crate) fn after(&mut self, span: Nanos, event: Event) {
        self.sequence += 1;
        let (at, sequence) = (self.now + span, self.sequence);
        self.line.push(Moment { at, sequence, event });
    }

    /// Lets the next thing happen, unless it is later than `until`; false when nothing
    /// is left by then.
    pub(crate) fn step(&mut self, until: Nanos) -> bool {
        if self.line.peek().is_none_or(|next| next.at > until) {
            self.now = until;
            return false;
        }
        let Some(Moment { at, event, .. }) = self.line.pop() else { return false };
        self.now = at;
        self.steps += 1;
        self.happens(event);
        true
    }

    /// Lets everything happen up to a time, as long as nothing went wrong.
    pub(crate) fn run_until(&mut self, until: Nanos) {
        while self.watchman.problems.is_empty() && self.step(until) {}
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Start { member } => self.start(member),
            Event::Turn { member, life, part } => self.turn(member, life, part),
            Event::Beat { member, life, beat } => self.beat(member, life, beat),
            Event::Pause { member, life, part, pause } => {
                self.pause_over(member, life, part, pause);
            }
            Event::Connect { from, life, to } => self.connect(from, life, to),
            Event::Break { from, life, to } => self.break_link(from, life, to),
            Event::Arrive(parcel) => self.arrive(*parcel),
            Event::SnapshotSent { from, life, to, arrived } => {
                self.snapshot_sent(from, life, to, arrived);
            }
            Event::SnapshotHeld(held) => self.snapshot_held(held),
            Event::Unanswered { member, question } => self.unanswered(member, question),
            Event::Request { call, member, request } => self.request(call, member, *request),
            Event::Answer { call, outcome } => self.answer(call, *outcome),
            Event::Client { client, token } => self.with_client(client, |client, world, number| {
                client.wake(world, number, token);
            }),
            Event::Fault(fault) => self.fault(fault),
        }
    }

    /// Lends the world to a client.
    fn with_client(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut Box<dyn Client>, &mut Self, usize),
    ) {
        let Some(mut client) = self.clients.get_mut(number).and_then(Option::take) else { return };
        act(&mut client, self, number);
        self.clients[number] = Some(client);
    }

    /// Members that a client may try: those that were not removed.
    pub(crate) fn reachable(&self) -> Vec<u64> {
        self.members.iter().filter(|(_, member)| !member.removed).map(|(id, _)| *id).collect()
    }

    /// Takes all clients out, for what they have recorded.
    pub(crate) fn take_clients(&mut self) -> Vec<Box<dyn Client>> {
        self.clients.iter_mut().filter_map(Option::take).collect()
    }

    /// How long it takes until a part has its turn.
    pub(crate) fn latency(&mut self, id: u64, part: Part) -> Nanos {
        let member = &self.members[&id];
        let chance = &mut self.chance;
        let stalled = member.stalled_until.saturating_sub(self.now);
        let latency = match part {
            Part::Wal => stalled + chance.random_range(200 * US..2 * MS) * member.slowness,
            Part::Sealer => stalled + chance.random_range(5 * MS..100 * MS) * member.slowness,
            Part::Mvcc => chance.random_range(20 * US..300 * US),
            _ => chance.random_range(5 * US..60 * US),
        };
        match member.sluggish {
            // A turn is arranged once: what it was given outlives what made it sluggish.
            (sluggish, times) if sluggish == part => {
                latency.max(latency.saturating_mul(times).min(SLUGGISH_MAX))
            }
            _ => latency,
        }
    }
}

fn first_member(id: u64) -> MemberInfo {
    MemberInfo { name: format!("m{id}"), ..later_member(id, false) }
}

/// A member as the list of members has it before it has started.
pub(crate) fn later_member(id: u64, is_learner: bool) -> MemberInfo {
    MemberInfo {
        id,
        peer_urls: vec![format!("http://m{id}:2380")],
        is_learner,
        ..MemberInfo::default()
    }
}
