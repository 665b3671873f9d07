//! A transaction that only reads, answered from a view without the log.

use std::cmp::Ordering;

use castd_actors::{Error, View};
use castd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use castd_proto::etcdserverpb::request_op::Request;
use castd_proto::etcdserverpb::response_op::Response;
use castd_proto::etcdserverpb::{
    Compare, RangeRequest, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use castd_proto::mvccpb::KeyValue;

/// Reads the branch that the comparisons choose. The transaction must hold ranges only.
///
/// # Errors
/// Those of a range.
pub(super) fn read(view: &View, request: &TxnRequest) -> Result<TxnResponse, Error> {
    let succeeded = request.compare.iter().all(|compare| holds(view, compare));
    let branch = if succeeded { &request.success } else { &request.failure };
    let responses = branch.iter().map(|op| range(view, op)).collect::<Result<_, _>>()?;
    Ok(TxnResponse { header: None, succeeded, responses })
}

fn range(view: &View, op: &RequestOp) -> Result<ResponseOp, Error> {
    let Some(Request::RequestRange(request)) = &op.request else {
        return Err(Error::KeyNotFound);
    };
    let mut response = view.range(request)?;
    // Inside a transaction etcd fills in the revision and nothing else.
    response.header =
        Some(ResponseHeader { revision: view.revision(), ..ResponseHeader::default() });
    Ok(ResponseOp { response: Some(Response::ResponseRange(response)) })
}

/// Whether every key of the comparison's range meets it. Where there is no key, its
/// figures are zero, but its value is nothing to compare with.
fn holds(view: &View, compare: &Compare) -> bool {
    let request = RangeRequest {
        key: compare.key.clone(),
        range_end: compare.range_end.clone(),
        ..RangeRequest::default()
    };
    let Ok(found) = view.range(&request) else { return false };
    if found.kvs.is_empty() {
        return compare.target() != CompareTarget::Value
            && key_holds(compare, &KeyValue::default());
    }
    found.kvs.iter().all(|key| key_holds(compare, key))
}

fn key_holds(compare: &Compare, key: &KeyValue) -> bool {
    let Ok(result) = CompareResult::try_from(compare.result) else { return true };
    let order = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Value) => match &compare.target_union {
            Some(TargetUnion::Value(value)) => key.value.cmp(value),
            _ => key.value[..].cmp(b""),
        },
        Ok(target) => figure(target, key).cmp(&operand(target, compare)),
        Err(_) => Ordering::Equal,
    };
    match result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
    }
}

fn figure(target: CompareTarget, key: &KeyValue) -> i64 {
    match target {
        CompareTarget::Version => key.version,
        CompareTarget::Create => key.create_revision,
        CompareTarget::Mod => key.mod_revision,
        CompareTarget::Lease => key.lease,
        CompareTarget::Value => 0,
    }
}

/// The operand, or zero when the comparison names one of another target.
fn operand(target: CompareTarget, compare: &Compare) -> i64 {
    match (target, &compare.target_union) {
        (CompareTarget::Version, Some(TargetUnion::Version(version))) => *version,
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(revision))) => *revision,
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(revision))) => *revision,
        (CompareTarget::Lease, Some(TargetUnion::Lease(lease))) => *lease,
        _ => 0,
    }
}
