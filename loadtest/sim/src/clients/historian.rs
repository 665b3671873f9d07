//! A client that reads the past: keys as they were at some revision, and knows when it is
//! told rightly that there is no such past any more, or not yet.

use castd_actors::Error;
use castd_check::{Evidence, Key, RangeRead};
use castd_proto::etcdserverpb::{RangeRequest, RangeResponse};
use rand::Rng;

use super::Client;
use super::keyed::{call_number, member_number};
use crate::door::{CallId, Failure, Reply, Request};
use crate::keys;
use crate::time::{MS, Nanos, SECOND};
use crate::world::World;

/// How long an answer is waited for.
const PATIENCE: Nanos = 8 * SECOND;

/// A read under way.
struct Under {
    call: CallId,
    member: u64,
    life: u16,
    called: Nanos,
    first: Key,
    last: Key,
    request: RangeRequest,
    /// The newest revision that some member had applied when it was called.
    newest: i64,
    /// The highest compaction that some member had applied then.
    compacted: i64,
}

/// The client.
pub(crate) struct Historian {
    keys: Key,
    member: u64,
    under: Option<Under>,
    reads: Vec<RangeRead>,
    wrong: Vec<String>,
    retired: bool,
}

impl Historian {
    /// One that reads keys below `keys`.
    pub(crate) fn new(keys: Key, member: u64) -> Self {
        let (reads, wrong) = (Vec::new(), Vec::new());
        Self { keys, member, under: None, reads, wrong, retired: false }
    }

    fn read(&mut self, world: &mut World, number: usize) {
        let (newest, compacted) = (world.watchman.revision(), world.watchman.compacted);
        let chance = &mut world.chance;
        let asked = match chance.random_range(0..10) {
            0..6 => (newest - chance.random_range(0..100)).max(1),
            6 => chance.random_range(1..=newest),
            7 => (compacted + chance.random_range(-1..=1)).max(1),
            8 => newest + chance.random_range(1..20),
            _ => 0,
        };
        let first = chance.random_range(0..self.keys);
        let last = chance.random_range(first..self.keys);
        let request = RangeRequest {
            key: keys::key(first),
            range_end: keys::behind(last),
            revision: asked,
            limit: chance.random_range(0..5),
            serializable: chance.random_bool(0.5),
            ..RangeRequest::default()
        };
        let (member, called) = (self.member, world.now);
        let life = world.life_of(member);
        let call = world.call(number, member, Request::Read(request.clone()), PATIENCE);
        let under = Under { call, member, life, called, first, last, request, newest, compacted };
        self.under = Some(under);
    }

    fn told(
        &mut self,
        world: &World,
        number: usize,
        under: &Under,
        revision: i64,
        found: &RangeResponse,
    ) {
        let RangeRequest { revision: asked, limit, serializable, .. } = under.request;
        if asked > revision {
            self.wrong.push(format!("revision {asked} was read from a store at {revision}"));
        }
        if asked > 0 && !serializable && asked < under.compacted {
            let compacted = under.compacted;
            self.wrong.push(format!("revision {asked} was read behind compaction {compacted}"));
        }
        // Which process has answered is not known when there was another one meanwhile.
        let same = world.life_of(under.member) == under.life;
        self.reads.push(RangeRead {
            call_number: call_number(under.call),
            client: u16::try_from(number).unwrap_or(u16::MAX),
            member: member_number(under.member),
            life: if same { under.life } else { 0 },
            called: under.called,
            returned: world.now,
            keys: under.first..=under.last,
            serializable,
            asked,
            limit: u64::try_from(limit).unwrap_or(0),
            revision,
            pairs: found.kvs.iter().map(|kv| (keys::number(&kv.key), keys::kv(kv))).collect(),
            count: u64::try_from(found.count).unwrap_or(0),
        });
    }

    fn refused(&mut self, world: &World, under: &Under, error: Error) {
        let RangeRequest { revision: asked, serializable, .. } = under.request;
        let right = match error {
            Error::Compacted => asked > 0 && asked < world.watchman.compacted,
            Error::FutureRevision => asked > 0 && (serializable || asked > under.newest),
            _ => true,
        };
        if !right {
            let member = under.member;
            let (newest, compacted) = (under.newest, world.watchman.compacted);
            self.wrong.push(format!(
                "m{member} says of revision {asked} (newest {newest}, compacted {compacted}): \
                 {error}"
            ));
        }
    }
}

impl Client for Historian {
    fn wake(&mut self, world: &mut World, number: usize, _token: u64) {
        if self.under.is_none() && !self.retired {
            self.read(world, number);
        }
    }

    fn answer(
        &mut self,
        world: &mut World,
        number: usize,
        call: CallId,
        outcome: Result<Reply, Failure>,
    ) {
        let Some(under) = self.under.take_if(|under| under.call == call) else { return };
        match outcome {
            Ok(Reply::Range(revision, found)) => {
                world.watchman.count("past read");
                self.told(world, number, &under, revision, &found);
            }
            Ok(_) => self.wrong.push("a read was answered with something else".to_owned()),
            Err(Failure::Refused(error)) => {
                world.watchman.count("past refused");
                self.refused(world, &under, error);
            }
            Err(_) => {}
        }
        self.member = world.any_reachable().unwrap_or(self.member);
        let pause = world.chance.random_range(10 * MS..300 * MS);
        world.wake_client(number, pause, 0);
    }

    fn retire(&mut self) {
        self.retired = true;
    }

    fn is_content(&self, _world: &World) -> bool {
        self.under.is_none()
    }

    fn describe(&self) -> String {
        format!("the past, call {:?}", self.under.as_ref().map(|under| under.call))
    }

    fn testify(&mut self, evidence: &mut Evidence) {
        evidence.records.range_reads.append(&mut self.reads);
        evidence.records.wrong.append(&mut self.wrong);
    }
}
