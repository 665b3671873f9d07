//! The KV service, without its stream.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use castd_actors::{Error, Outcome};
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::request_op::Request;
use castd_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
};
use tonic::Status;

use super::call::Call;
use super::error::Failure;
use super::faces::Faces;
use super::{quota, read_txn, validate};
use crate::metrics::RequestKind;

pub(super) async fn range(call: Call, request: RangeRequest) -> Result<RangeResponse, Failure> {
    validate::range(&request)?;
    let started = Instant::now();
    let result = read_range(&call, &request).await;
    call.took(RequestKind::Range, result.is_ok(), started.elapsed());
    Ok(result?)
}

async fn read_range(call: &Call, request: &RangeRequest) -> Result<RangeResponse, Error> {
    if !request.serializable {
        call.read_index().await?;
    }
    let view = call.faces.company.view();
    call.faces.metrics.faces.ranges.inc();
    let mut response = view.range(request)?;
    response.header = call.header(view.revision());
    Ok(response)
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
    read_range(&Call::internal(faces), &request).await.map(drop)
}
