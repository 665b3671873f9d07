//! The KV service, without its stream.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use castd_actors::{Error, Outcome, View};
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::request_op::Request;
use castd_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
};
use prost::Message;
use tonic::Status;

use super::call::Call;
use super::codec::Answer;
use super::error::Failure;
use super::faces::Faces;
use super::{quota, read_txn, validate};
use crate::metrics::RequestKind;

/// A range of more keys is read where no other call waits for it.
const HEAVY_KEYS: i64 = 4096;

pub(super) async fn range(
    call: Call,
    request: RangeRequest,
) -> Result<Answer<RangeResponse>, Failure> {
    if !request.serializable {
        call.refuse_learner()?;
    }
    validate::range(&request)?;
    let started = Instant::now();
    let result = answer_range(&call, request).await;
    call.took(RequestKind::Range, result.is_ok(), started.elapsed());
    result
}

async fn answer_range(
    call: &Call,
    request: RangeRequest,
) -> Result<Answer<RangeResponse>, Failure> {
    let begun = match request.serializable {
        true => Instant::now(),
        false => call.read_index().await?,
    };
    let view = call.faces.company.view();
    if is_heavy(&view, &request) {
        return Box::pin(heavy_range(call, view, request)).await;
    }
    let mut response = read_range(&call.faces, &view, &request, begun)?;
    response.header = call.header(view.revision());
    Ok(Answer::Message(response))
}

/// Reads a range and counts it.
fn read_range(
    faces: &Faces,
    view: &View,
    request: &RangeRequest,
    begun: Instant,
) -> Result<RangeResponse, Error> {
    let figures = &faces.metrics.faces;
    figures.ranges.inc();
    let result = view.range(request);
    figures.range(result.is_ok(), begun.elapsed());
    result
}

/// Whether a range may take so long that others should not wait for it.
fn is_heavy(view: &View, request: &RangeRequest) -> bool {
    let few = (1..=HEAVY_KEYS).contains(&request.limit) && !looks_at_all(request);
    // In the past, everything is walked for the count.
    let past = request.revision > 0 && request.revision < view.revision();
    if request.range_end.is_empty() || (!past && (few || request.count_only)) {
        return false;
    }
    let count = RangeRequest {
        key: request.key.clone(),
        range_end: request.range_end.clone(),
        count_only: true,
        ..RangeRequest::default()
    };
    // Counting is cheap at the newest revision, and close enough for any other.
    view.range(&count).is_ok_and(|found| found.count > HEAVY_KEYS)
}

/// Whether every key must be looked at before the first is returned.
fn looks_at_all(request: &RangeRequest) -> bool {
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    request.sort_order != 0 || request.sort_target != 0 || bounds.iter().any(|bound| *bound != 0)
}

/// Reads and encodes a range on a thread for long work.
async fn heavy_range(
    call: &Call,
    view: Arc<View>,
    request: RangeRequest,
) -> Result<Answer<RangeResponse>, Failure> {
    let turn = call.faces.heavy.acquire().await;
    let _turn = turn.map_err(|_| Error::Stopped)?;
    let faces = Arc::clone(&call.faces);
    let header = call.header(view.revision());
    let work = move || -> Result<Bytes, Error> {
        let mut response = read_range(&faces, &view, &request, Instant::now())?;
        response.header = header;
        Ok(response.encode_to_vec().into())
    };
    let done = tokio::task::spawn_blocking(work).await;
    let bytes = done.map_err(|error| Status::internal(format!("castd: range failed: {error}")))?;
    Ok(Answer::Encoded(bytes?))
}

pub(super) async fn put(call: Call, request: PutRequest) -> Result<PutResponse, Failure> {
    quota::check(&call, quota::put_cost(&request)).await?;
    validate::put(&request)?;
    let applied = call.propose(RequestKind::Put, Op::Put(request)).await?;
    let Outcome::Put(mut response) = applied.outcome else { return Err(mismatch()) };
    response.header = call.header(applied.revision);
    Ok(response)
}

pub(super) async fn delete_range(
    call: Call,
    request: DeleteRangeRequest,
) -> Result<DeleteRangeResponse, Failure> {
    validate::delete_range(&request)?;
    let applied = call.propose(RequestKind::DeleteRange, Op::DeleteRange(request)).await?;
    let Outcome::DeleteRange(mut response) = applied.outcome else { return Err(mismatch()) };
    response.header = call.header(applied.revision);
    Ok(response)
}

pub(super) async fn txn(call: Call, request: TxnRequest) -> Result<TxnResponse, Failure> {
    quota::check(&call, quota::txn_cost(&request)).await?;
    validate::txn(&request, call.faces.options.max_txn_ops)?;
    if only(&request, |op| matches!(op, Request::RequestRange(_))) {
        return read_only_txn(&call, &request).await;
    }
    let applied = call.propose(RequestKind::Txn, Op::Txn(request)).await?;
    let Outcome::Txn(mut response) = applied.outcome else { return Err(mismatch()) };
    response.header = call.header(applied.revision);
    Ok(response)
}

async fn read_only_txn(call: &Call, request: &TxnRequest) -> Result<TxnResponse, Failure> {
    let started = Instant::now();
    if !only(request, |op| matches!(op, Request::RequestRange(range) if range.serializable)) {
        call.read_index().await?;
    }
    let view = call.faces.company.view();
    let result = read_txn::read(&view, request);
    call.took(RequestKind::ReadonlyTxn, result.is_ok(), started.elapsed());
    let mut response = result?;
    call.faces.metrics.faces.ranges.inc_by(response.responses.len() as u64);
    response.header = call.header(view.revision());
    Ok(response)
}

/// Whether every operation of both branches is of this kind.
fn only(request: &TxnRequest, kind: impl Fn(&Request) -> bool) -> bool {
    let is = |op: &RequestOp| op.request.as_ref().is_some_and(&kind);
    request.success.iter().chain(&request.failure).all(is)
}

pub(super) async fn compact(
    call: Call,
    request: CompactionRequest,
) -> Result<CompactionResponse, Failure> {
    let applied = call.propose(RequestKind::Compaction, Op::Compaction(request)).await?;
    let Outcome::Compaction(mut response) = applied.outcome else { return Err(mismatch()) };
    response.header = call.header(applied.revision);
    Ok(response)
}

/// The company answered another question than the one that was asked.
pub(super) fn mismatch() -> Failure {
    Status::internal("castd: the outcome does not fit the request").into()
}

/// Reads one key name, as a client would: whether the member can.
///
/// # Errors
/// Those of a range.
pub async fn probe(faces: &Arc<Faces>, serializable: bool) -> Result<(), Error> {
    let everything = Bytes::from_static(b"\0");
    let request = RangeRequest {
        key: everything.clone(),
        range_end: everything,
        limit: 1,
        keys_only: true,
        serializable,
        ..RangeRequest::default()
    };
    let begun = match serializable {
        true => Instant::now(),
        false => Call::internal(faces).read_index().await?,
    };
    read_range(faces, &faces.company.view(), &request, begun).map(drop)
}
