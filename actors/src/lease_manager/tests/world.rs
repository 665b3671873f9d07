//! Three members, a log, and everything that can go wrong between them: what
//! was promised to a client is kept, whoever leads.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MEMBERS: usize = 3;
const TICK_MS: u64 = 500;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// Time goes by; whoever does not stand still has its beats.
    Time(u64),
    /// Nobody's beats: all stand still.
    Blackout(u64),
    Grant {
        ttl_s: i64,
    },
    KeepAlive {
        at: usize,
        lease: usize,
    },
    /// This member takes over; the one before it does not hear of it.
    Elect(usize),
    /// This member hears who leads.
    Hear(usize),
    Stop(usize),
    Continue(usize),
    /// This member applies what there is.
    Apply(usize),
    /// A client asks how long every lease has.
    Look(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..4000u64).prop_map(Event::Time),
        1 => (1..1_000_000u64).prop_map(Event::Blackout),
        1 => Just(Event::Time(310_000)),
        4 => (1..20i64).prop_map(|ttl_s| Event::Grant { ttl_s }),
        1 => (400..700i64).prop_map(|ttl_s| Event::Grant { ttl_s }),
        6 => (0..MEMBERS, any::<usize>()).prop_map(|(at, lease)| Event::KeepAlive { at, lease }),
        2 => (0..MEMBERS).prop_map(Event::Elect),
        3 => (0..MEMBERS).prop_map(Event::Hear),
        1 => (0..MEMBERS).prop_map(Event::Stop),
        2 => (0..MEMBERS).prop_map(Event::Continue),
        4 => (0..MEMBERS).prop_map(Event::Apply),
        2 => (0..MEMBERS).prop_map(Event::Look),
    ]
}

struct Member {
    core: LeaseCore,
    queue: Renewals<i64>,
    applied: usize,
    stopped: bool,
    /// Who leads and in which term, as this member last heard.
    heard: (usize, u64),
}

struct World {
    now: u64,
    log: Vec<LeaseChange>,
    members: Vec<Member>,
    leader: usize,
    term: u64,
    /// For each lease that the log has, until when it was promised to live.
    promised: BTreeMap<i64, u64>,
    next_lease: i64,
}

impl World {
    fn new() -> Self {
        // A promotion takes so many beats that everything else comes in its middle.
        let settings =
            LeaseSettings { revokes_in_flight: 4, leases_per_step: 1, ..LeaseSettings::default() };
        let member = || Member {
            core: LeaseCore::new(settings, [], 0),
            queue: Renewals::new(RenewalSettings::default()),
            applied: 0,
            stopped: false,
            heard: (0, 1),
        };
        let members = (0..MEMBERS).map(|_| member()).collect();
        let (log, promised) = (Vec::new(), BTreeMap::new());
        Self { now: 0, log, members, leader: 0, term: 1, promised, next_lease: 1 }
    }

    fn role(&self, at: usize) -> Role {
        match self.members[at].heard {
            (leader, term) if leader == at => Role::Leader(term),
            (leader, _) => Role::Follower(leader as u64),
        }
    }

    /// Whether this member leads indeed.
    fn leads(&self, at: usize) -> bool {
        at == self.leader && self.members[at].heard == (at, self.term)
    }

    fn apply(&mut self, at: usize) {
        let member = &mut self.members[at];
        for change in &self.log[member.applied..] {
            member.core.change(*change, self.now);
        }
        member.applied = self.log.len();
    }

    fn follow(&mut self, at: usize) {
        let term = match self.role(at) {
            Role::Leader(term) => Some(term),
            _ => None,
        };
        self.members[at].core.lead(term, self.now);
    }

    /// A beat of one member's clock.
    fn beat(&mut self, at: usize) {
        self.follow(at);
        self.members[at].core.step();
        self.members[at].core.tick();
        let leads = self.leads(at);
        for id in self.members[at].core.expired(self.now) {
            // What another leader would put in the log does nothing.
            match leads && self.promised.contains_key(&id) {
                true => self.revoke(id),
                false => self.members[at].core.revoke_failed(id),
            }
        }
        for (id, remaining_s) in self.members[at].core.checkpoints(self.now) {
            if leads && self.promised.contains_key(&id) {
                self.log.push(LeaseChange::Remaining { id, remaining_s });
            }
        }
        if leads {
            self.apply(at);
        }
        self.work(at);
    }

    /// What the leader says of a lease is not less than what was promised.
    fn look(&mut self, at: usize) {
        if !self.leads(at) || self.members[at].stopped {
            return;
        }
        self.follow(at);
        self.apply(at);
        for (id, until) in &self.promised {
            let left = self.members[at].core.time_to_live(*id, self.now);
            let left_s = left.expect("the log has it").ttl_s;
            let promised_s = until.saturating_sub(self.now) / 1000;
            assert!(left_s >= promised_s as i64, "lease {id}: {left_s} s of {promised_s}");
        }
    }

    fn revoke(&mut self, id: i64) {
        let until = self.promised.remove(&id).expect("the log has it");
        assert!(until <= self.now, "lease {id} was promised {} ms more", until - self.now);
        self.log.push(revoked(id));
    }

    fn work(&mut self, at: usize) {
        // Enough for every chain of steps; what waits longer, waits for others.
        for _ in 0..8 {
            let (role, now) = (self.role(at), self.now);
            let member = &mut self.members[at];
            let Work { answers, steps, .. } = member.queue.work(&mut member.core, role, now);
            for (id, answer) in answers {
                self.answered(id, answer.ok());
            }
            if steps.is_empty() {
                return;
            }
            steps.into_iter().for_each(|step| self.step(at, step));
        }
    }

    fn step(&mut self, at: usize, step: Step) {
        let (leads, now) = (self.leads(at), self.now);
        match step {
            Step::Confirm { ticket } => {
                if leads {
                    self.apply(at);
                }
                self.members[at].queue.confirmed(ticket, leads, now);
            }
            Step::Uncheckpoint { ticket, ids, .. } => {
                if leads {
                    let known = ids.into_iter().filter(|id| self.promised.contains_key(id));
                    self.log.extend(known.map(|id| LeaseChange::Remaining { id, remaining_s: 0 }));
                    // It is in the log, but its change is still on its way here.
                }
                let member = &mut self.members[at];
                member.queue.uncheckpointed(ticket, leads, &mut member.core);
            }
            Step::Forward { ticket, to, ids } => {
                let answer = self.ask(to as usize, &ids);
                let answers = self.members[at].queue.forwarded(ticket, answer, now);
                answers.into_iter().for_each(|(id, answer)| self.answered(id, answer.ok()));
            }
        }
    }

    /// What a member says to another one that takes it for the leader.
    fn ask(&mut self, to: usize, ids: &[i64]) -> Result<Vec<i64>, crate::shared::Error> {
        if self.members[to].stopped {
            return Err(crate::shared::Error::Timeout);
        }
        self.follow(to);
        let mut queue = std::mem::replace(
            &mut self.members[to].queue,
            Renewals::new(RenewalSettings::default()),
        );
        for id in ids {
            self.members[to].queue.add(*id, true, *id, self.now).expect("there is room");
        }
        let mut ttls = BTreeMap::new();
        for _ in 0..8 {
            let (role, now) = (self.role(to), self.now);
            let member = &mut self.members[to];
            let work = member.queue.work(&mut member.core, role, now);
            ttls.extend(work.answers.into_iter().map(|(id, answer)| (id, answer.ok())));
            work.steps.into_iter().for_each(|step| self.step(to, step));
        }
        std::mem::swap(&mut queue, &mut self.members[to].queue);
        let all: Option<Vec<i64>> = ids.iter().map(|id| ttls.get(id).copied().flatten()).collect();
        all.ok_or(crate::shared::Error::NotLeader)
    }

    /// A client hears of its lease.
    fn answered(&mut self, id: i64, ttl_s: Option<i64>) {
        match (ttl_s, self.promised.get_mut(&id)) {
            (None, _) => {}
            (Some(0), known) => {
                assert!(known.is_none(), "lease {id} lives, and its client heard no")
            }
            // A deposed leader does not know that it ended, or that it is one.
            (Some(_), None) => {}
            (Some(ttl_s), Some(until)) => *until = (*until).max(self.now + 1000 * ttl_s as u64),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Time(ms) => {
                let until = self.now + ms;
                while self.now < until {
                    self.now = until.min(self.now + TICK_MS);
                    (0..MEMBERS)
                        .filter(|at| !self.members[*at].stopped)
                        .collect::<Vec<_>>()
                        .into_iter()
                        .for_each(|at| self.beat(at));
                }
            }
            Event::Blackout(ms) => self.now += ms,
            Event::Grant { ttl_s } => {
                if self.leads(self.leader) && !self.members[self.leader].stopped {
                    self.log.push(granted(self.next_lease, ttl_s));
                    self.promised.insert(self.next_lease, self.now + 1000 * ttl_s as u64);
                    self.next_lease += 1;
                }
            }
            Event::KeepAlive { at, lease } => {
                if self.members[at].stopped || self.next_lease == 1 {
                    return;
                }
                let id = 1 + (lease as i64).rem_euclid(self.next_lease - 1);
                self.follow(at);
                self.members[at].queue.add(id, false, id, self.now).expect("there is room");
                self.work(at);
            }
            Event::Elect(at) => {
                if !self.members[at].stopped {
                    self.term += 1;
                    self.leader = at;
                    self.members[at].heard = (at, self.term);
                    self.follow(at);
                }
            }
            Event::Hear(at) => self.members[at].heard = (self.leader, self.term),
            Event::Stop(at) => self.members[at].stopped = true,
            Event::Continue(at) => self.members[at].stopped = false,
            Event::Apply(at) => {
                if !self.members[at].stopped {
                    self.apply(at);
                }
            }
            Event::Look(at) => self.look(at),
        }
    }

    /// With a leader that lasts, everything comes to its end.
    fn settle(&mut self) {
        (0..MEMBERS).for_each(|at| self.members[at].stopped = false);
        self.happen(Event::Elect(0));
        (0..MEMBERS).for_each(|at| self.members[at].heard = (0, self.term));
        self.happen(Event::Time(800_000));
        assert!(self.promised.is_empty(), "left: {:?}", self.promised);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_was_promised_is_kept(events in prop::collection::vec(event(), 1..120)) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
        }
        world.settle();
    }
}
