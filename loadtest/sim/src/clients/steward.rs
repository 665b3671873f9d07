//! One who changes the membership: adds members, gives learners a vote, removes members,
//! and replaces those whose disk is lost.

use std::collections::{BTreeMap, BTreeSet};

use castd_actors::ClusterState;
use castd_actors::company::Begin;
use castd_check::Evidence;
use castd_proto::castdpb::MemberChange;
use castd_proto::castdpb::member_change::Kind;
use rand::Rng;

use super::Client;
use crate::door::{CallId, Failure, Reply, Request};
use crate::time::{MS, Nanos, SECOND};
use crate::weather::Fault;
use crate::world::{World, later_member};

/// How long an answer is waited for.
const PATIENCE: Nanos = 8 * SECOND;
/// Members there may be.
const MEMBERS_MAX: usize = 6;
/// Voters that are always left.
const VOTERS_MIN: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Add(u64),
    Publish(u64),
    Promote,
    Remove,
}

/// The client.
pub(crate) struct Steward {
    /// The next member's id; none is used twice.
    next_id: u64,
    under: BTreeMap<CallId, What>,
    /// Members that have told their name.
    published: BTreeSet<u64>,
    /// Members that are to go: once it has asked for that, it does not know better until
    /// they are gone.
    leaving: BTreeSet<u64>,
    /// It does nothing before.
    rests_until: Nanos,
    retired: bool,
}

impl Steward {
    /// One for a cluster that was founded by so many.
    pub(crate) fn new(members: u64) -> Self {
        Self {
            next_id: members + 1,
            under: BTreeMap::new(),
            published: (1..=members).collect(),
            leaving: BTreeSet::new(),
            rests_until: SECOND,
            retired: false,
        }
    }

    fn call(
        &mut self,
        world: &mut World,
        number: usize,
        member: Option<u64>,
        what: What,
        request: Request,
    ) {
        let Some(member) = member else { return };
        world.story.tell(world.now, || format!("steward at m{member}: {what:?}"));
        let call = world.call(number, member, request, PATIENCE);
        self.under.insert(call, what);
    }

    /// Starts those who were added, and has those who run tell their names.
    fn attend(&mut self, world: &mut World, number: usize, cluster: &ClusterState) {
        for id in cluster.members.keys().copied() {
            if !world.members.contains_key(&id) {
                let members = cluster.members.clone();
                let known = ClusterState { members, ..ClusterState::default() };
                world.add_member(id, Begin::Join(known));
                world.watchman.count("member joined");
            }
            let waits = self.under.values().any(|what| *what == What::Publish(id));
            if !self.published.contains(&id) && !waits {
                let request = Request::Publish(format!("m{id}"), format!("http://m{id}:2379"));
                self.call(world, number, Some(id), What::Publish(id), request);
            }
        }
    }

    /// Whether a change is under way.
    fn is_busy(&self) -> bool {
        self.under.values().any(|what| !matches!(what, What::Publish(_)))
    }

    fn change(&mut self, world: &mut World, number: usize, cluster: &ClusterState) {
        let leaving = self.leaving.iter().copied().find(|id| cluster.members.contains_key(id));
        if let Some(id) = leaving {
            return self.remove(world, number, id);
        }
        if self.retired {
            return;
        }
        let voters: Vec<u64> = cluster.voters().map(|member| member.id).collect();
        let learner = cluster.members.values().find(|member| member.is_learner);
        match (world.chance.random_range(0..12), learner) {
            (0..6, Some(learner)) if self.published.contains(&learner.id) => {
                let leader = world.leader();
                self.call(world, number, leader, What::Promote, Request::Promote(learner.id));
            }
            (6, Some(learner)) => self.remove(world, number, learner.id),
            (0..5, None) if cluster.members.len() < MEMBERS_MAX => self.add(world, number),
            (7..9, _) if voters.len() > VOTERS_MIN => {
                let id = voters[world.chance.random_range(0..voters.len())];
                self.remove(world, number, id);
            }
            (9, _) if voters.len() > VOTERS_MIN => {
                let id = voters[world.chance.random_range(0..voters.len())];
                world.lose_disk(id);
                self.leaving.insert(id);
            }
            (10, _) => {
                let id = voters[world.chance.random_range(0..voters.len())];
                let down = world.chance.random_range(100 * MS..2 * SECOND);
                world.fault(Fault::Kill(id, down));
            }
            _ => {}
        }
    }

    fn add(&mut self, world: &mut World, number: usize) {
        let id = self.next_id;
        self.next_id += 1;
        let is_learner = world.chance.random_bool(0.7);
        let added = later_member(id, is_learner);
        let change = MemberChange {
            kind: Kind::Add.into(),
            member_id: id,
            peer_urls: added.peer_urls,
            is_learner,
            max_learners: 1,
        };
        let member = world.any_reachable();
        self.call(world, number, member, What::Add(id), Request::ChangeMembers(change));
    }

    fn remove(&mut self, world: &mut World, number: usize, id: u64) {
        self.leaving.insert(id);
        let change =
            MemberChange { kind: Kind::Remove.into(), member_id: id, ..MemberChange::default() };
        let member = world.any_reachable();
        self.call(world, number, member, What::Remove, Request::ChangeMembers(change));
    }
}

impl Client for Steward {
    fn wake(&mut self, world: &mut World, number: usize, _token: u64) {
        world.wake_client(number, 50 * MS, 0);
        let Some(view) = world.furthest_view() else { return };
        self.attend(world, number, view.cluster());
        if world.now >= self.rests_until && !self.is_busy() {
            self.rests_until = world.now + world.chance.random_range(200 * MS..2 * SECOND);
            self.change(world, number, view.cluster());
        }
    }

    fn answer(
        &mut self,
        world: &mut World,
        _number: usize,
        call: CallId,
        outcome: Result<Reply, Failure>,
    ) {
        let Some(what) = self.under.remove(&call) else { return };
        world.story.tell(world.now, || format!("steward: {what:?}: {outcome:?}"));
        if outcome.is_err() {
            return;
        }
        world.watchman.count(match what {
            What::Add(_) => "member added",
            What::Publish(_) => "member published",
            What::Promote => "learner promoted",
            What::Remove => "member removed",
        });
        if let What::Publish(id) = what {
            self.published.insert(id);
        }
    }

    fn retire(&mut self) {
        self.retired = true;
    }

    fn is_content(&self, world: &World) -> bool {
        let Some(view) = world.furthest_view() else { return false };
        let members = &view.cluster().members;
        let all_there = members.keys().all(|id| {
            world.members.contains_key(id)
                && self.published.contains(id)
                && !self.leaving.contains(id)
        });
        self.under.is_empty() && all_there
    }

    fn describe(&self) -> String {
        let Self { under, published, leaving, .. } = self;
        format!("steward: {under:?}, published {published:?}, leaving {leaving:?}")
    }

    fn testify(&mut self, _evidence: &mut Evidence) {}
}
