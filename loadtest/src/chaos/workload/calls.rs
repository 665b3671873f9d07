//! The calls of a client: what goes out, and what the answers mean.

use bytes::Bytes;
use castd_check::{Input, Key, Output, Seen};
use castd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use castd_proto::etcdserverpb::request_op::Request;
use castd_proto::etcdserverpb::response_op::Response;
use castd_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use castd_proto::mvccpb::KeyValue;

use crate::chaos::session::{Failure, Session};
use crate::chaos::wire::{key_bytes, read_kv, value_bytes};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";

/// What a client does next: one call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Something with one key.
    One(Key, Input),
    /// Two puts in one transaction.
    PutBoth([(Key, Input); 2]),
    /// Two reads in one transaction.
    GetBoth([Key; 2]),
}

impl Step {
    /// The operations it consists of.
    pub(super) fn parts(&self) -> Vec<(Key, Input)> {
        match self {
            Self::One(key, input) => vec![(*key, *input)],
            Self::PutBoth(puts) => puts.to_vec(),
            Self::GetBoth(keys) => keys.map(|key| (key, Input::Get)).to_vec(),
        }
    }

    /// Makes the call; answers what each part came to.
    ///
    /// # Errors
    /// When there is no answer, or one that cannot be right.
    pub(super) async fn send(&self, session: &mut Session) -> Result<Vec<Output>, Failure> {
        match self {
            Self::One(key, input) => Ok(vec![single(session, *key, *input).await?]),
            Self::PutBoth(puts) => put_both(session, *puts).await,
            Self::GetBoth(keys) => get_both(session, *keys).await,
        }
    }
}

async fn single(session: &mut Session, key: Key, input: Input) -> Result<Output, Failure> {
    match input {
        // A put that joins nothing is a put.
        Input::Put(value) | Input::Join(value) => {
            let request = PutRequest { prev_kv: true, ..put(key, value_bytes(value)) };
            let answer: PutResponse = session.call(PUT, &request).await?;
            let seen = seen(key, answer.prev_kv.as_slice())?;
            done(answer.header.as_ref(), seen, true)
        }
        Input::Get | Input::GetStale => {
            let serializable = input == Input::GetStale;
            let request = RangeRequest { serializable, ..get(key) };
            let answer: RangeResponse = session.call(RANGE, &request).await?;
            done(answer.header.as_ref(), seen(key, &answer.kvs)?, false)
        }
        Input::Delete => {
            let key_bytes = key_bytes(key);
            let request = DeleteRangeRequest {
                key: key_bytes,
                prev_kv: true,
                ..DeleteRangeRequest::default()
            };
            let answer: DeleteRangeResponse = session.call(DELETE, &request).await?;
            done(answer.header.as_ref(), seen(key, &answer.prev_kvs)?, answer.deleted > 0)
        }
        Input::Swap(expected, value) => {
            let request = swap(key, expected, value_bytes(value));
            let answer: TxnResponse = session.call(TXN, &request).await?;
            let seen = match answer.succeeded {
                true => Seen::NotAsked,
                false => seen(key, &ranges(&answer, 1)?[0].kvs)?,
            };
            done(answer.header.as_ref(), seen, answer.succeeded)
        }
    }
}

async fn put_both(session: &mut Session, puts: [(Key, Input); 2]) -> Result<Vec<Output>, Failure> {
    let mut success = Vec::with_capacity(2);
    for (key, input) in puts {
        let value = input.written().unwrap_or_default();
        success.push(op(Request::RequestPut(put(key, value_bytes(value)))));
    }
    let request = TxnRequest { compare: Vec::new(), success, failure: Vec::new() };
    let answer: TxnResponse = session.call(TXN, &request).await?;
    let output = done(answer.header.as_ref(), Seen::NotAsked, true)?;
    Ok(vec![output; 2])
}

async fn get_both(session: &mut Session, keys: [Key; 2]) -> Result<Vec<Output>, Failure> {
    let success = keys.map(|key| op(Request::RequestRange(get(key)))).into();
    let request = TxnRequest { compare: Vec::new(), success, failure: Vec::new() };
    let answer: TxnResponse = session.call(TXN, &request).await?;
    let ranges = ranges(&answer, keys.len())?;
    let parts = keys.iter().zip(ranges);
    parts.map(|(key, range)| done(answer.header.as_ref(), seen(*key, &range.kvs)?, false)).collect()
}

fn put(key: Key, value: Bytes) -> PutRequest {
    PutRequest { key: key_bytes(key), value, ..PutRequest::default() }
}

fn get(key: Key) -> RangeRequest {
    RangeRequest { key: key_bytes(key), ..RangeRequest::default() }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn swap(key: Key, expected: i64, value: Bytes) -> TxnRequest {
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key_bytes(key),
        target_union: Some(TargetUnion::ModRevision(expected)),
        ..Compare::default()
    };
    TxnRequest {
        compare: vec![compare],
        success: vec![op(Request::RequestPut(put(key, value)))],
        failure: vec![op(Request::RequestRange(get(key)))],
    }
}

fn wrong(text: impl Into<String>) -> Failure {
    Failure::Wrong(text.into())
}

fn done(header: Option<&ResponseHeader>, seen: Seen, effect: bool) -> Result<Output, Failure> {
    match header {
        Some(header) if header.revision > 0 => {
            Ok(Output::Done { revision: header.revision, seen, effect })
        }
        _ => Err(wrong("an answer without a revision")),
    }
}

fn seen(key: Key, pairs: &[KeyValue]) -> Result<Seen, Failure> {
    match pairs {
        [] => Ok(Seen::Kv(None)),
        [pair] => read_kv(pair, key).map(|kv| Seen::Kv(Some(kv))).map_err(Failure::Wrong),
        more => Err(wrong(format!("{} pairs for one key", more.len()))),
    }
}

fn ranges(answer: &TxnResponse, count: usize) -> Result<Vec<&RangeResponse>, Failure> {
    let range = |response: &Option<Response>| matches!(response, Some(Response::ResponseRange(_)));
    if answer.responses.len() != count || !answer.responses.iter().all(|op| range(&op.response)) {
        return Err(wrong("a transaction's answer does not have the reads it asked for"));
    }
    let reads = answer.responses.iter().filter_map(|op| match &op.response {
        Some(Response::ResponseRange(read)) => Some(read),
        _ => None,
    });
    Ok(reads.collect())
}
