//! The form of a request: what can be said of it without looking at any state.
//!
//! The rules and their order are etcd's, since clients see the first one broken.

use castd_actors::Error;
use castd_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use castd_proto::etcdserverpb::request_op::Request;
use castd_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use tonic::Status;

use super::error::Failure;
use super::overlap;

/// The longest time to live a lease may ask for, in seconds.
const LEASE_TTL_MAX_S: i64 = 9_000_000_000;

/// # Errors
/// `EmptyKey`, then `InvalidSortOption`.
pub fn range(request: &RangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    let order = SortOrder::try_from(request.sort_order);
    let target = SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() {
        return Err(Error::InvalidSortOption);
    }
    Ok(())
}

/// # Errors
/// Those of [`range`], then `Unimplemented` for an order or a filter that would need
/// the whole range at hand.
pub fn range_stream(request: &RangeRequest) -> Result<(), Failure> {
    range(request)?;
    let sorted = match request.sort_order() {
        SortOrder::None => false,
        SortOrder::Ascend => request.sort_target() != SortTarget::Key,
        SortOrder::Descend => true,
    };
    if sorted {
        let text = "RangeStream does not support custom sort orders";
        return Err(Status::unimplemented(text).into());
    }
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if bounds.iter().any(|bound| *bound != 0) {
        let text = "RangeStream does not support revision filters";
        return Err(Status::unimplemented(text).into());
    }
    Ok(())
}

/// # Errors
/// `EmptyKey`, then `ValueProvided`, then `LeaseProvided`.
pub fn put(request: &PutRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

/// # Errors
/// `EmptyKey`.
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), Error> {
    if request.key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction of at most `ops_max` operations in any one list, those of
/// nested transactions counted on top of the longest list around them.
///
/// # Errors
/// `TooManyOps`, the errors of the operations in it, `KeyNotFound` for an operation
/// that says nothing, and `DuplicateKey`.
pub fn txn(request: &TxnRequest, ops_max: usize) -> Result<(), Error> {
    txn_form(request, ops_max)?;
    // Only now: the check above bounds what this one may cost.
    overlap::check(&request.success)?;
    overlap::check(&request.failure)
}

/// # Errors
/// `LeaseTtlTooLarge`.
pub fn lease_ttl(ttl_s: i64) -> Result<(), Error> {
    if ttl_s > LEASE_TTL_MAX_S { Err(Error::LeaseTtlTooLarge) } else { Ok(()) }
}

fn txn_form(request: &TxnRequest, ops_max: usize) -> Result<(), Error> {
    let branches = request.success.len().max(request.failure.len());
    let ops = request.compare.len().max(branches);
    let Some(left) = ops_max.checked_sub(ops) else {
        return Err(Error::TooManyOps);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| operation(op, left))
}

fn operation(op: &RequestOp, ops_max: usize) -> Result<(), Error> {
    match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => txn_form(request, ops_max),
        None => Err(Error::KeyNotFound),
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
