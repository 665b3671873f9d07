//! A client that takes locks: a key that is put only where there is none, with a lease.

use std::collections::BTreeMap;

use castd_actors::Outcome;
use castd_check::{Evidence, Hold, Key, LEASE_KEYS};
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use castd_proto::etcdserverpb::request_op::Request as TxnOp;
use castd_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RequestOp,
    TxnRequest,
};
use rand::Rng;

use super::{Client, lease_id};
use crate::door::{CallId, Failure, Reply, Request};
use crate::keys;
use crate::time::{MS, Nanos, SECOND};
use crate::world::World;

/// How long an answer is waited for.
const PATIENCE: Nanos = 2 * SECOND;
/// The first lock's key.
const LOCKS: Key = LEASE_KEYS + (1 << 30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Grant,
    Take,
    Keep,
    Release,
}

/// The lease with which it tries, and its time.
#[derive(Debug)]
struct Lease {
    id: i64,
    ttl: Nanos,
    /// It lives until then at least.
    promised: Nanos,
    keep_at: Nanos,
}

/// Its hold on the lock.
#[derive(Debug)]
struct Held {
    from: Nanos,
    /// The revision that made it the holder.
    revision: i64,
    until: Nanos,
}

/// The client.
pub(crate) struct Locker {
    lock: Key,
    member: u64,
    under: BTreeMap<CallId, (Nanos, i64, What)>,
    lease: Option<Lease>,
    held: Option<Held>,
    /// It tries again then.
    next: Nanos,
    leases: u32,
    values: u32,
    holds: Vec<Hold>,
    retired: bool,
}

impl Locker {
    /// One that wants a lock, given by its number.
    pub(crate) fn new(lock: Key, member: u64) -> Self {
        Self {
            lock: LOCKS + lock,
            member,
            under: BTreeMap::new(),
            lease: None,
            held: None,
            next: 0,
            leases: 0,
            values: 0,
            holds: Vec::new(),
            retired: false,
        }
    }

    fn call(&mut self, world: &mut World, number: usize, what: What, request: Request) {
        let id = lease_id(number, self.leases);
        let call = world.call(number, self.member, request, PATIENCE);
        self.under.insert(call, (world.now, id, what));
    }

    fn waits_for(&self, what: What) -> bool {
        self.under.values().any(|(_, _, under)| *under == what)
    }

    fn grant(&mut self, world: &mut World, number: usize) {
        self.leases += 1;
        let ttl = world.chance.random_range(2..=6);
        let grant = LeaseGrantRequest { ttl, id: lease_id(number, self.leases) };
        self.call(world, number, What::Grant, Request::Write(Op::LeaseGrant(grant)));
    }

    fn take(&mut self, world: &mut World, number: usize, lease: i64) {
        self.values += 1;
        let value = keys::value((number as u64 + 1) << 32 | u64::from(self.values), 0);
        let put = PutRequest { key: keys::key(self.lock), value, lease, ..Default::default() };
        let txn = self.if_made_at(0, TxnOp::RequestPut(put));
        self.call(world, number, What::Take, Request::Write(Op::Txn(txn)));
    }

    /// Does something if the lock was made at a revision, or is not there.
    fn if_made_at(&self, revision: i64, then: TxnOp) -> TxnRequest {
        let compare = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Create.into(),
            key: keys::key(self.lock),
            target_union: Some(TargetUnion::CreateRevision(revision)),
            ..Default::default()
        };
        let success = vec![RequestOp { request: Some(then) }];
        TxnRequest { compare: vec![compare], success, failure: Vec::new() }
    }

    /// It gives the lock back, or wishes it were so.
    fn release(&mut self, world: &mut World, number: usize) {
        let now = world.now;
        let held = self.held.take();
        self.end_hold(held.as_ref(), now, number);
        let Some(lease) = self.lease.take() else { return };
        let revoke = Op::LeaseRevoke(LeaseRevokeRequest { id: lease.id });
        let delete = DeleteRangeRequest { key: keys::key(self.lock), ..Default::default() };
        let op = match held.filter(|_| world.chance.random_bool(0.5)) {
            Some(held) => {
                Op::Txn(self.if_made_at(held.revision, TxnOp::RequestDeleteRange(delete)))
            }
            None => revoke,
        };
        self.call(world, number, What::Release, Request::Write(op));
        self.next = now + world.chance.random_range(0..2 * SECOND);
    }

    /// Notes a hold that is over, or that its holder knows nothing of any more.
    fn end_hold(&mut self, held: Option<&Held>, now: Nanos, number: usize) {
        let (Some(held), Some(lease)) = (held, &self.lease) else { return };
        self.holds.push(Hold {
            lock: self.lock,
            holder: u16::try_from(number).unwrap_or(u16::MAX),
            lease: lease.id,
            from: held.from,
            promised: lease.promised,
            released: now,
        });
    }

    fn granted(&mut self, sent: Nanos, id: i64, ttl_s: i64) {
        let ttl = u64::try_from(ttl_s).unwrap_or(0) * SECOND;
        self.lease = Some(Lease { id, ttl, promised: sent + ttl, keep_at: sent + ttl / 3 });
    }

    fn taken(&mut self, world: &mut World, succeeded: bool, revision: i64) {
        if succeeded {
            let until = world.now + world.chance.random_range(100 * MS..8 * SECOND);
            self.held = Some(Held { from: world.now, revision, until });
        } else {
            self.next = world.now + world.chance.random_range(20 * MS..300 * MS);
        }
    }

    fn kept(&mut self, world: &mut World, number: usize, sent: Nanos, left_s: i64) {
        let Some(lease) = &mut self.lease else { return };
        if left_s > 0 {
            lease.promised = lease.promised.max(sent + lease.ttl);
            return;
        }
        // Its lease is gone, and with it the lock.
        let held = self.held.take();
        self.end_hold(held.as_ref(), world.now, number);
        self.lease = None;
    }

    fn failed(&mut self, world: &mut World, number: usize, what: What) {
        self.member = world.any_reachable().unwrap_or(self.member);
        match what {
            // It may have the lock and not know: with the lease it gives that up, too.
            What::Take => self.release(world, number),
            What::Keep => {
                if let Some(lease) = &mut self.lease {
                    lease.keep_at = world.now + 50 * MS;
                }
            }
            What::Grant | What::Release => self.next = world.now + 100 * MS,
        }
    }

    /// What there is to do while it has a lease.
    fn go_on(&mut self, world: &mut World, number: usize) {
        let Some(lease) = &mut self.lease else { return };
        let (id, now) = (lease.id, world.now);
        if now >= lease.keep_at {
            lease.keep_at = now + lease.ttl / 3;
            self.call(world, number, What::Keep, Request::KeepAlive(id));
        }
        match &self.held {
            Some(held) if now >= held.until || self.retired => self.release(world, number),
            Some(_) => {}
            None if self.waits_for(What::Take) => {}
            None if self.retired => self.release(world, number),
            None if now >= self.next => self.take(world, number, id),
            None => {}
        }
    }
}

impl Client for Locker {
    fn wake(&mut self, world: &mut World, number: usize, _token: u64) {
        let pause = world.chance.random_range(10 * MS..60 * MS);
        world.wake_client(number, pause, 0);
        if self.lease.is_some() {
            self.go_on(world, number);
        } else if !self.retired && world.now >= self.next && !self.waits_for(What::Grant) {
            self.grant(world, number);
        }
    }

    fn answer(
        &mut self,
        world: &mut World,
        number: usize,
        call: CallId,
        outcome: Result<Reply, Failure>,
    ) {
        let Some((sent, id, what)) = self.under.remove(&call) else { return };
        let own = self.lease.as_ref().is_some_and(|lease| lease.id == id);
        match (what, outcome) {
            (What::Grant, Ok(Reply::Applied(applied))) => {
                if let Outcome::LeaseGrant(granted) = &applied.outcome {
                    self.granted(sent, id, granted.ttl);
                }
            }
            (What::Take, Ok(Reply::Applied(applied))) if own => {
                if let Outcome::Txn(answer) = &applied.outcome {
                    self.taken(world, answer.succeeded, applied.revision);
                }
            }
            (What::Keep, Ok(Reply::Alive(left_s))) if own => {
                self.kept(world, number, sent, left_s);
            }
            (What::Take | What::Keep, Err(_)) if !own => {}
            (_, Err(_)) => self.failed(world, number, what),
            (_, Ok(_)) => {}
        }
    }

    fn retire(&mut self) {
        self.retired = true;
    }

    fn is_content(&self, world: &World) -> bool {
        let idle = self.under.is_empty() && self.lease.is_none();
        idle && !world.watchman.holds(self.lock)
    }

    fn describe(&self) -> String {
        let Self { lock, under, lease, held, .. } = self;
        format!("lock {lock}: {under:?}, {lease:?}, {held:?}")
    }

    fn testify(&mut self, evidence: &mut Evidence) {
        evidence.holds.append(&mut self.holds);
    }
}
