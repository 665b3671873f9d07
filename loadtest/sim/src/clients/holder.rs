//! A client that holds leases, one after the other: it has keys go with each, keeps it
//! alive for a while, and then revokes it, or is heard of no more.

use std::collections::BTreeMap;
use std::time::Duration;

use castd_actors::Outcome;
use castd_check::{Evidence, Key, LEASE_KEYS, LeaseRecord};
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest, PutRequest};
use rand::Rng;

use super::{Client, lease_id};
use crate::door::{CallId, Failure, Reply, Request};
use crate::keys;
use crate::time::{MS, Nanos, SECOND};
use crate::world::World;

/// How long an answer is waited for.
const PATIENCE: Nanos = 3 * SECOND;
/// How soon after its time, counted from when all was mended, a lease has ended: leaders
/// may change once more and give it its whole time again, and a renewal may wait at a
/// member that knows no leader.
pub(crate) const LATE: Nanos = 30 * SECOND;
/// The keys of a client are so far from those of the next one.
const KEYS_EACH: Key = 1 << 16;

/// What a call is about; the number is the record's.
enum What {
    Grant { id: i64 },
    Put,
    Keep(usize),
    Revoke,
}

/// The lease it has.
struct Held {
    /// The number of its record.
    nth: usize,
    id: i64,
    ttl: Nanos,
    /// When it is to be kept alive next.
    keep_at: Nanos,
    /// When the client is done with it.
    until: Nanos,
    /// Keys that are yet to be put.
    puts: u32,
}

/// The client.
pub(crate) struct Holder {
    member: u64,
    under: BTreeMap<CallId, (Nanos, What)>,
    held: Option<Held>,
    records: Vec<LeaseRecord>,
    leases: u32,
    keys: Key,
    retired: bool,
}

impl Holder {
    /// One that talks to a member while that goes well.
    pub(crate) fn new(member: u64) -> Self {
        Self {
            member,
            under: BTreeMap::new(),
            held: None,
            records: Vec::new(),
            leases: 0,
            keys: 0,
            retired: false,
        }
    }

    fn call(&mut self, world: &mut World, number: usize, what: What, request: Request) {
        let call = world.call(number, self.member, request, PATIENCE);
        self.under.insert(call, (world.now, what));
    }

    fn grants(&self) -> bool {
        self.under.values().any(|(_, what)| matches!(what, What::Grant { .. }))
    }

    fn grant(&mut self, world: &mut World, number: usize) {
        self.leases += 1;
        let id = lease_id(number, self.leases);
        let ttl = world.chance.random_range(2..=10);
        let grant = Op::LeaseGrant(LeaseGrantRequest { ttl, id });
        self.call(world, number, What::Grant { id }, Request::Write(grant));
    }

    fn granted(&mut self, world: &mut World, sent: Nanos, id: i64, ttl_s: i64) {
        let ttl_s = u64::try_from(ttl_s).unwrap_or(0);
        let ttl = ttl_s * SECOND;
        self.records.push(LeaseRecord {
            id,
            keys: Vec::new(),
            ttl: Duration::from_secs(ttl_s),
            renewed: vec![(sent, world.now)],
            left: None,
            revoked: None,
            denied: None,
        });
        let nth = self.records.len() - 1;
        let until = world.now + world.chance.random_range(0..3 * ttl);
        let puts = world.chance.random_range(1..4);
        self.held = Some(Held { nth, id, ttl, keep_at: sent + ttl / 3, until, puts });
    }

    fn put(&mut self, world: &mut World, number: usize) {
        let Some(held) = self.held.as_mut().filter(|held| held.puts > 0) else { return };
        held.puts -= 1;
        let (nth, lease) = (held.nth, held.id);
        let key = LEASE_KEYS + u32::try_from(number).unwrap_or(0) * KEYS_EACH + self.keys;
        self.keys += 1;
        // Whether the key is there or not shows in what is stored.
        self.records[nth].keys.push(key);
        let value = keys::value((number as u64 + 1) << 32 | u64::from(self.keys), 0);
        let put = PutRequest { key: keys::key(key), value, lease, ..PutRequest::default() };
        self.call(world, number, What::Put, Request::Write(Op::Put(put)));
    }

    /// Nobody keeps the lease any more.
    fn leave(&mut self, now: Nanos) -> Option<Held> {
        let held = self.held.take()?;
        self.records[held.nth].left = Some(now);
        Some(held)
    }

    fn end(&mut self, world: &mut World, number: usize) {
        let revokes = world.chance.random_bool(0.3);
        let Some(held) = self.leave(world.now).filter(|_| revokes) else { return };
        self.records[held.nth].revoked = Some(world.now);
        let revoke = Op::LeaseRevoke(LeaseRevokeRequest { id: held.id });
        self.call(world, number, What::Revoke, Request::Write(revoke));
    }

    fn kept(&mut self, now: Nanos, sent: Nanos, nth: usize, left_s: i64) {
        let record = &mut self.records[nth];
        if left_s > 0 {
            record.renewed.push((sent, now));
            return;
        }
        record.denied.get_or_insert(now);
        if self.held.as_ref().is_some_and(|held| held.nth == nth) {
            self.leave(now);
        }
    }
}

impl Client for Holder {
    fn wake(&mut self, world: &mut World, number: usize, _token: u64) {
        let pause = world.chance.random_range(20 * MS..100 * MS);
        world.wake_client(number, pause, 0);
        let Some(held) = &mut self.held else {
            if !self.retired && !self.grants() {
                self.grant(world, number);
            }
            return;
        };
        if world.now >= held.until {
            return self.end(world, number);
        }
        if world.now >= held.keep_at {
            held.keep_at = world.now + held.ttl / 3;
            let (nth, id) = (held.nth, held.id);
            self.call(world, number, What::Keep(nth), Request::KeepAlive(id));
        }
        self.put(world, number);
    }

    fn answer(
        &mut self,
        world: &mut World,
        _number: usize,
        call: CallId,
        outcome: Result<Reply, Failure>,
    ) {
        let Some((sent, what)) = self.under.remove(&call) else { return };
        match (what, outcome) {
            (What::Keep(nth), Ok(Reply::Alive(left_s))) => self.kept(world.now, sent, nth, left_s),
            (What::Grant { id }, Ok(Reply::Applied(applied))) => {
                if let Outcome::LeaseGrant(granted) = &applied.outcome {
                    self.granted(world, sent, id, granted.ttl);
                }
            }
            (_, Ok(_)) => {}
            (_, Err(_)) => {
                self.member = world.any_reachable().unwrap_or(self.member);
                if let Some(held) = &mut self.held {
                    held.keep_at = held.keep_at.min(world.now + 100 * MS);
                }
            }
        }
        if self.retired {
            self.leave(world.now);
        }
    }

    fn retire(&mut self) {
        self.retired = true;
        // The next that happens is that it is left.
        if let Some(held) = &mut self.held {
            held.until = 0;
        }
    }

    fn is_content(&self, world: &World) -> bool {
        let gone = |record: &LeaseRecord| {
            let keys_gone = record.keys.iter().all(|key| !world.watchman.holds(*key));
            let ttl = u64::try_from(record.ttl.as_nanos()).unwrap_or(u64::MAX);
            let begun = record.left.max(world.calm_since).unwrap_or(0);
            // One that stays is for the judge.
            keys_gone || world.now > begun.saturating_add(ttl).saturating_add(LATE + 5 * SECOND)
        };
        self.under.is_empty() && self.held.is_none() && self.records.iter().all(gone)
    }

    fn describe(&self) -> String {
        format!("{} calls for {:?}", self.under.len(), self.records.last())
    }

    fn testify(&mut self, evidence: &mut Evidence) {
        evidence.leases.append(&mut self.records);
    }
}
