//! A client that reads and writes a few keys.

use castd_actors::{Applied, Outcome};
use castd_check::{
    Evidence, Input, Key, Kv, NEVER, Operation, Output, RangeRead, Records, Seen, Value,
};
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use castd_proto::etcdserverpb::request_op::Request as TxnOp;
use castd_proto::etcdserverpb::response_op::Response as TxnAnswer;
use castd_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest,
    TxnResponse,
};
use castd_proto::mvccpb::KeyValue;
use rand::Rng;

use super::Client;
use crate::door::{CallId, Failure, Reply, Request};
use crate::keys;
use crate::time::{MS, Nanos, SECOND};
use crate::world::World;

/// How long a client waits for an answer.
const PATIENCE: Nanos = 8 * SECOND;

/// What is under way.
struct Under {
    call: CallId,
    client: u16,
    member: u64,
    life: u16,
    called: Nanos,
    what: What,
}

#[derive(Clone)]
enum What {
    /// Operations on keys, which are one call.
    Keys(Vec<(Key, Input)>),
    /// A read of all keys from the first to the last.
    Range { first: Key, last: Key, serializable: bool },
}

/// The client; it does one thing after the other.
pub(crate) struct KeyClient {
    /// Keys there are: from 0 on.
    keys: Key,
    /// The longest pause between two calls.
    pause: Nanos,
    /// The member it talks to, while that goes well.
    member: u64,
    under: Option<Under>,
    /// The newest it knows of each key: what swaps expect.
    known: Vec<i64>,
    calls: u32,
    records: Records,
    retired: bool,
}

impl KeyClient {
    pub(crate) fn new(keys: Key, pause: Nanos, member: u64) -> Self {
        let known = vec![0; keys as usize];
        let records = Records::default();
        Self { keys, pause, member, under: None, known, calls: 0, records, retired: false }
    }

    fn next_value(&self, number: usize) -> Value {
        (number as u64 + 1) << 32 | u64::from(self.calls)
    }

    /// What to do next.
    fn choose(&mut self, world: &mut World, number: usize) -> (What, Request) {
        self.calls += 1;
        let value = self.next_value(number);
        let keys = self.keys;
        let chance = &mut world.chance;
        let key = chance.random_range(0..keys);
        let padding = chance.random_range(0..200);
        match chance.random_range(0..100) {
            0..30 => {
                let what = What::Keys(vec![(key, Input::Put(value))]);
                (what, Request::Write(Op::Put(put(key, value, padding))))
            }
            30..36 => {
                let delete =
                    DeleteRangeRequest { key: keys::key(key), prev_kv: true, ..Default::default() };
                (What::Keys(vec![(key, Input::Delete)]), Request::Write(Op::DeleteRange(delete)))
            }
            36..60 => (What::Keys(vec![(key, Input::Get)]), read(key, false)),
            60..68 => (What::Keys(vec![(key, Input::GetStale)]), read(key, true)),
            68..84 => self.swap(key, None, value, padding),
            84..90 => self.swap(key, Some((key + 1) % keys), value, padding),
            _ => {
                let first = chance.random_range(0..keys);
                let last = chance.random_range(first..keys);
                let serializable = chance.random_bool(0.3);
                let range = RangeRequest {
                    key: keys::key(first),
                    range_end: keys::behind(last),
                    serializable,
                    ..Default::default()
                };
                (What::Range { first, last, serializable }, Request::Read(range))
            }
        }
    }

    /// A transaction: if the key is as it was last seen, put it (and another one), else
    /// read what is there.
    fn swap(&self, key: Key, other: Option<Key>, value: Value, padding: usize) -> (What, Request) {
        let expected = self.known[key as usize];
        let mut what = vec![(key, Input::Swap(expected, value))];
        let mut success = vec![op(TxnOp::RequestPut(put(key, value, padding)))];
        let mut failure = vec![op(TxnOp::RequestRange(get(key)))];
        if let Some(other) = other.filter(|other| *other != key) {
            let joined = value | 1 << 31;
            what.push((other, Input::Join(joined)));
            success.push(op(TxnOp::RequestPut(put(other, joined, padding))));
            failure.push(op(TxnOp::RequestRange(get(other))));
        }
        let compare = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: keys::key(key),
            target_union: Some(TargetUnion::ModRevision(expected)),
            ..Default::default()
        };
        let txn = TxnRequest { compare: vec![compare], success, failure };
        (What::Keys(what), Request::Write(Op::Txn(txn)))
    }

    fn next_call(&mut self, world: &mut World, number: usize) {
        if self.retired {
            return;
        }
        let (what, request) = self.choose(world, number);
        let (member, called) = (self.member, world.now);
        let life = world.life_of(member);
        let call = world.call(number, member, request, PATIENCE);
        let client = u16::try_from(number).unwrap_or(u16::MAX);
        self.under = Some(Under { call, client, member, life, called, what });
    }

    fn done(&mut self, now: Nanos, under: &Under, reply: &Reply) {
        let told = match (&under.what, reply) {
            (What::Keys(parts), Reply::Applied(applied)) => outcomes(parts, applied),
            (What::Keys(parts), Reply::Range(revision, found)) => {
                let seen = Seen::Kv(found.kvs.first().map(keys::kv));
                Some((*revision, parts.iter().map(|_| (seen, false)).collect()))
            }
            (What::Range { first, last, serializable }, Reply::Range(revision, found)) => {
                let read = under.range(now, (*first, *last, *serializable), *revision, found);
                return self.records.range_reads.push(read);
            }
            _ => None,
        };
        let What::Keys(parts) = &under.what else { return };
        let Some((revision, told)) = told else {
            let text = format!("{} is no answer to {parts:?}", kind(reply));
            return self.records.wrong.push(text);
        };
        for ((key, input), (seen, effect)) in parts.iter().zip(told) {
            self.learn(*key, revision, seen, effect);
            let output = Output::Done { revision, seen, effect };
            self.records.operations.push(under.operation(*key, *input, now, output));
        }
    }

    fn learn(&mut self, key: Key, revision: i64, seen: Seen, effect: bool) {
        self.known[key as usize] = match seen {
            _ if effect => revision,
            Seen::Kv(kv) => kv.map_or(0, |kv: Kv| kv.modified),
            Seen::NotAsked => return,
        };
    }

    fn failed(&mut self, under: &Under, failure: Failure) {
        let What::Keys(parts) = &under.what else { return };
        for (key, input) in parts {
            match (input.written(), failure.is_certain()) {
                (Some(value), true) => self.records.refused.push((*key, value)),
                (_, false) if input.is_write() => {
                    let open = under.operation(*key, *input, NEVER, Output::Unknown);
                    self.records.operations.push(open);
                }
                _ => {}
            }
        }
    }
}

impl Under {
    fn operation(&self, key: Key, input: Input, returned: Nanos, output: Output) -> Operation {
        Operation {
            call_number: call_number(self.call),
            client: self.client,
            member: member_number(self.member),
            life: self.life,
            key,
            called: self.called,
            returned,
            input,
            output,
        }
    }

    fn range(
        &self,
        now: Nanos,
        (first, last, serializable): (Key, Key, bool),
        revision: i64,
        found: &RangeResponse,
    ) -> RangeRead {
        let pair = |pair: &KeyValue| (keys::number(&pair.key), keys::kv(pair));
        RangeRead {
            call_number: call_number(self.call),
            client: self.client,
            member: member_number(self.member),
            life: self.life,
            called: self.called,
            returned: now,
            keys: first..=last,
            serializable,
            asked: 0,
            limit: 0,
            revision,
            pairs: found.kvs.iter().map(pair).collect(),
            count: u64::try_from(found.count).unwrap_or(0),
        }
    }
}

impl Client for KeyClient {
    fn wake(&mut self, world: &mut World, number: usize, _token: u64) {
        if self.under.is_none() {
            self.next_call(world, number);
        }
    }

    fn answer(
        &mut self,
        world: &mut World,
        number: usize,
        call: CallId,
        outcome: Result<Reply, Failure>,
    ) {
        let Some(mut under) = self.under.take_if(|under| under.call == call) else { return };
        if world.life_of(under.member) != under.life {
            // Which process has answered is not known.
            under.life = 0;
        }
        let mut pause = world.chance.random_range(0..self.pause.max(1));
        match outcome {
            Ok(reply) => {
                self.records.tally.ok += 1;
                self.done(world.now, &under, &reply);
            }
            Err(failure) => {
                self.failed(&under, failure);
                let count = match failure.is_certain() {
                    true => &mut self.records.tally.failed,
                    false => &mut self.records.tally.unknown,
                };
                *count += 1;
                pause += 20 * MS;
                self.member = world.any_reachable().unwrap_or(self.member);
            }
        }
        world.wake_client(number, pause, 0);
    }

    fn retire(&mut self) {
        self.retired = true;
    }

    fn is_content(&self, _world: &World) -> bool {
        self.under.is_none()
    }

    fn describe(&self) -> String {
        format!("keys, call {:?}", self.under.as_ref().map(|under| under.call))
    }

    fn testify(&mut self, evidence: &mut Evidence) {
        if let Some(under) = self.under.take() {
            self.failed(&under, Failure::TimedOut);
        }
        let Records { operations, range_reads, refused, wrong, tally, .. } =
            std::mem::take(&mut self.records);
        let records = &mut evidence.records;
        records.operations.extend(operations);
        records.range_reads.extend(range_reads);
        records.refused.extend(refused);
        records.wrong.extend(wrong);
        records.tally.ok += tally.ok;
        records.tally.failed += tally.failed;
        records.tally.unknown += tally.unknown;
    }
}

/// What an applied write tells of each of its parts.
fn outcomes(parts: &[(Key, Input)], applied: &Applied) -> Option<(i64, Vec<(Seen, bool)>)> {
    let told = match &applied.outcome {
        Outcome::Put(_) => vec![(Seen::NotAsked, true)],
        Outcome::DeleteRange(answer) => {
            let before = answer.prev_kvs.first().map(keys::kv);
            vec![(Seen::Kv(before), answer.deleted > 0)]
        }
        Outcome::Txn(answer) => txn_outcomes(parts, answer)?,
        _ => return None,
    };
    (told.len() == parts.len()).then_some((applied.revision, told))
}

fn txn_outcomes(parts: &[(Key, Input)], answer: &TxnResponse) -> Option<Vec<(Seen, bool)>> {
    if answer.succeeded {
        return Some(parts.iter().map(|_| (Seen::NotAsked, true)).collect());
    }
    let seen = answer.responses.iter().map(|response| match &response.response {
        Some(TxnAnswer::ResponseRange(range)) => {
            Some((Seen::Kv(range.kvs.first().map(keys::kv)), false))
        }
        _ => None,
    });
    seen.collect()
}

fn put(key: Key, value: Value, padding: usize) -> PutRequest {
    PutRequest { key: keys::key(key), value: keys::value(value, padding), ..Default::default() }
}

fn get(key: Key) -> RangeRequest {
    RangeRequest { key: keys::key(key), ..Default::default() }
}

fn read(key: Key, serializable: bool) -> Request {
    Request::Read(RangeRequest { serializable, ..get(key) })
}

fn op(request: TxnOp) -> RequestOp {
    RequestOp { request: Some(request) }
}

pub(super) fn call_number(call: CallId) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// A member as the judge counts them, from 0.
pub(super) fn member_number(id: u64) -> u8 {
    u8::try_from(id - 1).unwrap_or(u8::MAX)
}

fn kind(reply: &Reply) -> &'static str {
    match reply {
        Reply::Applied(_) => "a write's outcome",
        Reply::Range(..) => "a range",
        Reply::Alive(_) => "a lease's time",
        Reply::Done => "a word",
        Reply::Stream(..) => "a stream",
    }
}
