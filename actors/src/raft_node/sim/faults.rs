//! Clusters to which everything happens at once, as a seed has it.

use proptest::prelude::*;
use raft::eraftpb::{ConfChangeType, Entry, Message, MessageType};
use rand::Rng;

use super::super::RaftInbound;
use super::machine::State;
use super::{ELECTION_TICKS, Sim};

/// How bad it gets, in tenths of a percent of what happens.
#[derive(Clone, Copy, Debug)]
struct Weather {
    lost: u32,
    reordered: u32,
    cut: u32,
    crash: u32,
    stall: u32,
    change: u32,
    transfer: u32,
}

impl Sim {
    /// One thing happens, somewhere.
    fn happening(&mut self, weather: Weather) {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        let id = ids[self.rng.random_range(0..ids.len())];
        self.misfortune(id, weather);
        match self.rng.random_range(0..100) {
            0..40 => self.some_message(weather),
            40..60 => drop(self.write_next(id)),
            60..75 => drop(self.is_running(id) && self.apply_next(id)),
            75..83 => self.tick(id),
            83..90 if self.is_running(id) => drop(self.write(id)),
            90..95 if self.is_running(id) => self.read(id),
            95 => self.seal(id),
            _ => {}
        }
        self.hear_clients();
    }

    fn some_message(&mut self, weather: Weather) {
        if self.network.is_empty() {
            return;
        }
        let reordered = self.rng.random_range(0..1000) < weather.reordered;
        let at = if reordered { self.rng.random_range(0..self.network.len()) } else { 0 };
        let message = self.network.remove(at).unwrap();
        let lost = self.rng.random_range(0..1000) < weather.lost;
        self.deliver(message, lost);
    }

    fn misfortune(&mut self, id: u64, weather: Weather) {
        let happens = |sim: &mut Self, odds| sim.rng.random_range(0..1000) < odds;
        if happens(self, weather.cut) {
            self.cut_or_heal(id);
        }
        if happens(self, weather.crash) {
            self.crash_or_start(id);
        }
        if happens(self, weather.stall) {
            let member = self.members.get_mut(&id).unwrap();
            member.stalled = !member.stalled;
        }
        if happens(self, weather.change) && self.is_running(id) {
            self.some_change(id);
        }
        if happens(self, weather.transfer) && self.is_running(id) {
            drop(self.transfer(id, 0));
        }
    }

    fn cut_or_heal(&mut self, id: u64) {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        let other = ids[self.rng.random_range(0..ids.len())];
        match self.rng.random_range(0..4) {
            0 => self.isolate(id),
            1 => drop(self.cut.insert((id, other))),
            _ => self.heal(),
        }
    }

    fn crash_or_start(&mut self, id: u64) {
        if self.is_running(id) {
            let writes = self.members[&id].writes.len();
            let survivors = self.rng.random_range(0..=writes);
            self.crash(id, survivors);
        } else {
            self.start(id);
        }
    }

    /// The fourth and fifth members come and go; the first three stay.
    fn some_change(&mut self, through: u64) {
        let node = self.rng.random_range(4..6);
        let kind = match self.rng.random_range(0..3) {
            0 => ConfChangeType::AddLearnerNode,
            1 => ConfChangeType::AddNode,
            _ => ConfChangeType::RemoveNode,
        };
        if kind != ConfChangeType::RemoveNode && !self.members.contains_key(&node) {
            self.start_joiner(node);
        }
        // An id is never used again once it was removed.
        if kind != ConfChangeType::RemoveNode || self.members.contains_key(&node) {
            self.change(through, kind, node);
        }
    }

    /// Everything that was broken is repaired, and everyone agrees.
    fn recover(&mut self) {
        self.heal();
        let ids: Vec<u64> = self.members.keys().copied().collect();
        for id in ids {
            let member = self.members.get_mut(&id).unwrap();
            assert_eq!(member.fatal, None, "seed {}", self.seed);
            member.stalled = false;
            if member.core.is_none() {
                self.start(id);
            }
        }
        self.rounds(30 * ELECTION_TICKS);
        let leader = self.leader().expect("a leader when all is well");
        let conf = self.members[&leader].state.conf.clone();
        let write = self.write(leader);
        self.read(leader);
        self.rounds(2);
        assert!(self.clients.is_acknowledged(write), "seed {}: it serves again", self.seed);
        let members: Vec<u64> = conf.voters.iter().chain(&conf.learners).copied().collect();
        for id in &members {
            let (index, other) = (self.members[id].state.index, self.members[&leader].state.index);
            assert_eq!(index, other, "seed {}: member {id} has caught up", self.seed);
        }
        self.check_nothing_is_lost(&members);
    }
}

fn weather() -> impl Strategy<Value = Weather> {
    (0..300u32, 0..300u32, 0..8u32, 0..8u32, 0..5u32, 0..6u32, 0..5u32).prop_map(
        |(lost, reordered, cut, crash, stall, change, transfer)| Weather {
            lost,
            reordered,
            cut,
            crash,
            stall,
            change,
            transfer,
        },
    )
}

fn storm(seed: u64, weather: Weather, happenings: usize, pre_vote: bool) -> Sim {
    let mut sim = Sim::short_logs(seed, &[1, 2, 3]);
    sim.pre_vote = pre_vote;
    for _ in 0..happenings {
        sim.happening(weather);
    }
    sim.recover();
    sim
}

/// A message as only a broken or hostile member could send it.
fn any_message() -> impl Strategy<Value = Message> {
    let numbers = (0..4u64, 0..4u64, 0..6u64, 0..9u64, 0..6u64, 0..12u64);
    let entries = prop::collection::vec((0..9u64, 0..6u64, 0..4i32, 0..3usize), 0..4);
    let snapshot = (0..9u64, 0..6u64, prop::collection::vec(0..5u64, 0..4));
    (0..20i32, numbers, entries, any::<bool>(), prop::option::of(snapshot)).prop_map(
        |(msg_type, (from, to, term, index, log_term, commit), entries, reject, snapshot)| {
            let entry = |(index, term, entry_type, size): (u64, u64, i32, usize)| Entry {
                index,
                term,
                entry_type,
                data: vec![8; size].into(),
                ..Entry::default()
            };
            let mut message = Message {
                msg_type,
                from,
                to,
                term,
                index,
                log_term,
                commit,
                reject,
                reject_hint: index,
                commit_term: log_term,
                entries: entries.into_iter().map(entry).collect(),
                ..Message::default()
            };
            if let Some((index, term, voters)) = snapshot {
                let metadata = message.mut_snapshot().mut_metadata();
                (metadata.index, metadata.term) = (index, term);
                metadata.mut_conf_state().voters = voters;
            }
            message
        },
    )
}

/// A few, or as many as PROPTEST_CASES says.
fn cases() -> ProptestConfig {
    let default = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let cases = std::env::var("PROPTEST_CASES").map_or(48, |_| default.cases);
    ProptestConfig { cases, ..default }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn nothing_acknowledged_is_lost(seed: u64, weather in weather(), pre_vote: bool) {
        storm(seed, weather, 4000, pre_vote);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases().cases * 8, ..cases() })]

    /// What they do to the contents of the log is not the question: raft trusts
    /// its members. But no message may end a process with a panic.
    #[test]
    fn no_message_makes_raft_panic(
        seed in 0..100u64,
        messages in prop::collection::vec(any_message(), 1..60),
    ) {
        let mut sim = Sim::new(seed, &[1, 2, 3]);
        let leader = sim.elect();
        sim.write(leader);
        sim.rounds(1);
        for message in messages {
            let to = message.to;
            sim.act(to, |core, effects| match message.msg_type() {
                MessageType::MsgSnapshot => {
                    let state = State::default();
                    let (hold, _sender) = crate::raft_node::SnapshotHold::new();
                    core.inbound(vec![RaftInbound::Snapshot { message, state, hold }], effects);
                }
                _ => core.inbound(vec![RaftInbound::Step(vec![message])], effects),
            });
            sim.tick(to);
            if sim.is_running(to) {
                sim.write_next(to);
            }
        }
    }
}

#[test]
fn storms_repeat_themselves_under_their_seed() {
    let weather =
        Weather { lost: 50, reordered: 100, cut: 4, crash: 4, stall: 3, change: 3, transfer: 3 };
    let run = || storm(77, weather, 4000, true);
    let (first, second) = (run(), run());
    assert_eq!(first.trace, second.trace);
    assert!(first.clients.acknowledged.len() > 20, "something was going on");
}
