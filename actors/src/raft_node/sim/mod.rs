//! A cluster of RaftCores in one thread: the network, the disks, the state
//! machines and the clients are played, and everything that happens follows from
//! a seed. It checks as it goes that members apply the same entries, that there
//! is one leader a term, and that reads see what was acknowledged before them.

mod clients;
mod crowds;
mod faults;
mod machine;
mod scenarios;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use castd_proto::castdpb::MemberChange;
use castd_proto::castdpb::member_change::Kind;
use raft::eraftpb::{ConfChange, ConfChangeType, Message, MessageType};
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::clients::Clients;
use self::machine::{Disk, State, Work, Write};
use super::messages::SnapshotHold;
use super::{Effects, LogStore, RaftCompletion, RaftCore, RaftInbound, RaftSettings, RaftStatus};

pub(super) const ELECTION_TICKS: usize = 10;
const REQUEST_TIMEOUT_TICKS: u64 = 70;
const BACKLOG_BYTES_MAX: u64 = 64 << 10;

/// A member: its core while it runs, and what it has beside it.
#[derive(Default)]
struct Member {
    core: Option<RaftCore<State>>,
    /// Counts the starts.
    run: u64,
    disk: Disk,
    /// The disk answers nothing.
    stalled: bool,
    /// The state machine does nothing.
    busy: bool,
    writes: VecDeque<Write>,
    work: VecDeque<Work>,
    state: State,
    status: RaftStatus,
    fatal: Option<String>,
}

struct Sim {
    rng: StdRng,
    seed: u64,
    members: BTreeMap<u64, Member>,
    network: VecDeque<Message>,
    /// Pairs between which nothing arrives, from and to.
    cut: BTreeSet<(u64, u64)>,
    /// What was applied anywhere, by index: everyone must agree.
    applied: BTreeMap<u64, Bytes>,
    leaders: BTreeMap<u64, u64>,
    clients: Clients,
    snapshots_installed: u64,
    snapshot_count: u64,
    pre_vote: bool,
    /// Everything that was sent, condensed.
    trace: u64,
}

impl Sim {
    /// A new cluster, all of whose members have a vote and run.
    fn new(seed: u64, voters: &[u64]) -> Self {
        Self::with_log(seed, voters, 1000)
    }

    /// A new cluster whose members keep little of the log in memory.
    fn short_logs(seed: u64, voters: &[u64]) -> Self {
        Self::with_log(seed, voters, 10)
    }

    fn with_log(seed: u64, voters: &[u64], snapshot_count: u64) -> Self {
        let mut sim = Self {
            rng: StdRng::seed_from_u64(seed),
            seed,
            members: BTreeMap::new(),
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            applied: BTreeMap::new(),
            leaders: BTreeMap::new(),
            clients: Clients::default(),
            snapshots_installed: 0,
            snapshot_count,
            pre_vote: true,
            trace: 0,
        };
        for id in voters {
            let member = Member { disk: Disk::bootstrapped(voters), ..Member::default() };
            sim.members.insert(*id, member);
            sim.start(*id);
        }
        sim
    }

    /// A member that is about to join: it knows nothing.
    fn start_joiner(&mut self, id: u64) {
        self.members.insert(id, Member::default());
        self.start(id);
    }

    /// Starts a member over what its disk holds.
    fn start(&mut self, id: u64) {
        let settings = self.settings(id);
        let member = self.members.get_mut(&id).unwrap();
        member.run += 1;
        member.state = member.disk.checkpoint.clone();
        let store: LogStore = member.disk.recover();
        let settings = RaftSettings { applied: member.state.index, run: member.run, ..settings };
        member.core = Some(RaftCore::new(settings, store).unwrap());
        self.act(id, |_, _| {});
    }

    fn settings(&self, id: u64) -> RaftSettings {
        RaftSettings {
            member_id: id,
            election_ticks: ELECTION_TICKS,
            pre_vote: self.pre_vote,
            campaign_at_once: true,
            snapshot_count: self.snapshot_count,
            catchup_entries: self.snapshot_count / 2,
            applied: 0,
            run: 0,
            request_timeout_ticks: REQUEST_TIMEOUT_TICKS,
            backlog_bytes_max: BACKLOG_BYTES_MAX,
            read_retry_ticks: 5,
            seed: self.seed,
        }
    }

    fn is_running(&self, id: u64) -> bool {
        self.members.get(&id).is_some_and(|member| member.core.is_some())
    }

    fn running(&self) -> Vec<u64> {
        self.members.keys().copied().filter(|id| self.is_running(*id)).collect()
    }

    fn status(&self, id: u64) -> &RaftStatus {
        &self.members[&id].status
    }

    /// Runs `input` on a core and carries out what follows.
    fn act(&mut self, id: u64, input: impl FnOnce(&mut RaftCore<State>, &mut Effects<State>)) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let Some(core) = &mut member.core else { return };
        let mut effects = Effects::default();
        input(core, &mut effects);
        core.process(&mut effects);
        self.carry_out(id, effects);
    }

    fn carry_out(&mut self, id: u64, effects: Effects<State>) {
        let member = self.members.get_mut(&id).unwrap();
        if let Some(status) = effects.status {
            if status.is_leader {
                let leader = *self.leaders.entry(status.term).or_insert(id);
                assert_eq!(leader, id, "term {} has two leaders", status.term);
            }
            member.status = status;
        }
        member.writes.extend(effects.marker.map(Write::Marker));
        member.writes.extend(effects.appends.into_iter().map(Write::Append));
        member.writes.extend(effects.release.map(Write::Release));
        member.work.extend(effects.committed.into_iter().map(Work::Apply));
        member.work.extend(effects.install.map(Work::Install));
        for message in &effects.messages {
            assert_eq!(message.from, id);
            self.trace = fold(self.trace, message);
        }
        self.network.extend(effects.messages);
        if let Some(fatal) = effects.fatal {
            member.fatal = Some(fatal);
            self.crash(id, 0);
        }
    }

    /// The process ends; of what the disk was writing, `survivors` writes made it.
    fn crash(&mut self, id: u64, survivors: usize) {
        let member = self.members.get_mut(&id).unwrap();
        for write in member.writes.drain(..).take(survivors) {
            member.disk.write(write);
        }
        member.writes.clear();
        member.work.clear();
        member.core = None;
        member.status = RaftStatus::default();
        self.clients.forget(id);
    }

    /// Hands over a message, or loses it.
    fn deliver(&mut self, message: Message, lose: bool) {
        let (from, to) = (message.from, message.to);
        let arrives = !lose && !self.cut.contains(&(from, to)) && self.is_running(to);
        if message.msg_type() == MessageType::MsgSnapshot {
            self.deliver_snapshot(message, arrives);
        } else if arrives {
            self.act(to, |core, effects| {
                core.inbound(vec![RaftInbound::Step(vec![message])], effects);
            });
        } else {
            self.act(from, |core, effects| {
                core.inbound(vec![RaftInbound::Unreachable(to)], effects);
            });
        }
    }

    /// The state goes with the message and may be newer than it says.
    fn deliver_snapshot(&mut self, mut message: Message, arrives: bool) {
        let (from, to) = (message.from, message.to);
        let state = self.members[&from].state.clone();
        let metadata = message.mut_snapshot().mut_metadata();
        let arrives = arrives && self.is_running(from) && state.index >= metadata.index;
        if arrives {
            (metadata.index, metadata.term) = (state.index, state.term);
            metadata.set_conf_state(state.conf.clone());
            let (hold, _sender) = SnapshotHold::new();
            let inbound = RaftInbound::Snapshot { message, state, hold };
            self.act(to, |core, effects| core.inbound(vec![inbound], effects));
        }
        let sent = RaftInbound::SnapshotSent { to, arrived: arrives };
        self.act(from, |core, effects| core.inbound(vec![sent], effects));
    }

    /// The disk carries out its next write. False if there is none.
    fn write_next(&mut self, id: u64) -> bool {
        let member = self.members.get_mut(&id).unwrap();
        if member.stalled {
            return false;
        }
        let Some(write) = member.writes.pop_front() else { return false };
        let ready = member.disk.write(write);
        if let Some(ready) = ready {
            self.complete(id, RaftCompletion::Persisted { ready });
        }
        true
    }

    fn complete(&mut self, id: u64, completion: RaftCompletion) {
        self.act(id, |core, effects| core.complete(completion, effects));
    }

    /// The state machine does what is next for it. False if there is nothing.
    fn apply_next(&mut self, id: u64) -> bool {
        let member = self.members.get_mut(&id).unwrap();
        if member.busy {
            return false;
        }
        let Some(work) = member.work.pop_front() else { return false };
        match work {
            Work::Apply(committed) => self.apply(id, committed.entries),
            Work::Install(accepted) => {
                assert_eq!(accepted.index, accepted.state.index);
                self.snapshots_installed += 1;
                member.state = accepted.state;
                member.disk.seal_installed(&member.state);
                self.complete(id, RaftCompletion::Installed { index: accepted.index });
            }
        }
        true
    }

    /// Keeps a copy of the state on disk, so that the log before it can go.
    fn seal(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        if member.core.is_none() || member.state.index <= member.disk.checkpoint.index {
            return;
        }
        member.disk.seal(&member.state);
        let index = member.state.index;
        self.complete(id, RaftCompletion::Sealed { index });
    }

    fn tick(&mut self, id: u64) {
        let running = self.running();
        let links = running.into_iter().filter(|other| {
            *other != id && !self.cut.contains(&(id, *other)) && !self.cut.contains(&(*other, id))
        });
        let links: Vec<u64> = links.collect();
        self.act(id, |core, _| {
            core.set_active(links);
            core.tick();
        });
    }

    /// Everything that can happen without the clock, happens.
    fn rest(&mut self) {
        self.rest_but(|_| false);
    }

    /// As [`Self::rest`], with some messages lost.
    fn rest_but(&mut self, mut lost: impl FnMut(&Message) -> bool) {
        for _ in 0..100_000 {
            let mut busy = false;
            if let Some(message) = self.network.pop_front() {
                let lose = lost(&message);
                self.deliver(message, lose);
                busy = true;
            }
            for id in self.running() {
                busy |= self.write_next(id);
                if self.is_running(id) {
                    busy |= self.apply_next(id);
                }
            }
            self.hear_clients();
            if !busy {
                return;
            }
        }
        panic!("the cluster never comes to rest");
    }

    /// One tick for everyone, and all that follows.
    fn round(&mut self) {
        self.round_but(|_| false);
    }

    /// As [`Self::round`], with some messages lost.
    fn round_but(&mut self, lost: impl FnMut(&Message) -> bool) {
        for id in self.running() {
            self.tick(id);
        }
        self.rest_but(lost);
    }

    fn rounds(&mut self, count: usize) {
        (0..count).for_each(|_| self.round());
    }

    /// Rounds until `done`, but not for ever.
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..40 * ELECTION_TICKS {
            if done(self) {
                return;
            }
            self.round();
        }
        panic!("seed {}: waited in vain for {what}", self.seed);
    }

    /// The member that leads in the highest term of those that run.
    fn leader(&self) -> Option<u64> {
        let running = self.members.iter().filter(|(_, member)| member.core.is_some());
        let leaders = running.filter(|(_, member)| member.status.is_leader);
        leaders.max_by_key(|(_, member)| member.status.term).map(|(id, _)| *id)
    }

    /// Waits until all that run follow one leader, and tells which.
    fn elect(&mut self) -> u64 {
        let agreed = |sim: &Self| {
            let leader = sim.leader();
            leader.is_some()
                && sim.running().iter().all(|id| Some(sim.status(*id).leader) == leader)
        };
        self.until("a leader that all follow", agreed);
        self.leader().unwrap()
    }

    /// A member other than these.
    fn other_than(&self, not: &[u64]) -> u64 {
        self.running().into_iter().find(|id| !not.contains(id)).unwrap()
    }

    fn isolate(&mut self, id: u64) {
        for other in self.members.keys().copied().filter(|other| *other != id) {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
    }
}

fn fold(trace: u64, message: &Message) -> u64 {
    let parts = [
        message.from,
        message.to,
        message.term,
        message.index,
        message.commit,
        message.msg_type as u64,
        message.entries.len() as u64,
    ];
    parts.into_iter().fold(trace, |trace, part| {
        (trace.rotate_left(5) ^ part).wrapping_mul(0x517c_c1b7_2722_0a95)
    })
}

fn conf_change(kind: ConfChangeType, member_id: u64) -> ConfChange {
    let is_learner = kind == ConfChangeType::AddLearnerNode;
    let kind = match kind {
        ConfChangeType::RemoveNode => Kind::Remove,
        ConfChangeType::AddNode | ConfChangeType::AddLearnerNode => Kind::Add,
    };
    let change =
        MemberChange { kind: kind.into(), member_id, is_learner, ..MemberChange::default() };
    crate::apply_loop::conf_change(&change).unwrap()
}
