//! The space quota: what a request may cost, and the alarm when there is no room.

use std::sync::atomic::{AtomicBool, Ordering};

use castd_actors::Error;
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::alarm_request::AlarmAction;
use castd_proto::etcdserverpb::request_op::Request;
use castd_proto::etcdserverpb::{AlarmRequest, AlarmType, PutRequest, RequestOp, TxnRequest};

use super::call::Call;
use crate::metrics::RequestKind;

/// What `--quota-backend-bytes=0` stands for.
const DEFAULT_BYTES: i64 = 2 << 30;

/// What a key costs beside its bytes and its value's.
const KEY_OVERHEAD_BYTES: u64 = 256;

/// What a lease costs.
pub(super) const LEASE_BYTES: u64 = 64;

/// The store's space quota.
pub(super) struct Quota {
    max_bytes: Option<u64>,
    /// One alarm at a time is proposed, however many requests are refused meanwhile.
    raising: AtomicBool,
}

impl Quota {
    /// A quota as the operator gave it: 0 for the default, negative for none.
    pub(super) fn new(bytes: i64) -> Self {
        Self { max_bytes: u64::try_from(effective(bytes)).ok(), raising: AtomicBool::new(false) }
    }

    /// Whether a request of `cost` fits into a store of `size` bytes. What costs nothing
    /// always fits: deletions must get through when the store is full.
    fn admits(&self, size: u64, cost: u64) -> bool {
        match self.max_bytes {
            Some(max) if cost > 0 => size.saturating_add(cost) < max,
            _ => true,
        }
    }
}

/// The quota that is in force, in bytes; negative when there is none.
pub fn effective(bytes: i64) -> i64 {
    if bytes == 0 { DEFAULT_BYTES } else { bytes }
}

/// Admits a request of `cost`, or raises the alarm.
///
/// # Errors
/// `NoSpace`.
pub(super) async fn check(call: &Call, cost: u64) -> Result<(), Error> {
    let quota = &call.faces.quota;
    if quota.max_bytes.is_none() || quota.admits(call.faces.company.view().db_size(), cost) {
        return Ok(());
    }
    raise(call).await;
    Err(Error::NoSpace)
}

/// Has the alarm raised for this member, unless it is raised or about to be.
async fn raise(call: &Call) {
    let company = &call.faces.company;
    let member_id = company.identity().member_id;
    let alarm = AlarmType::Nospace as i32;
    if company.view().cluster().alarms.contains(&(alarm, member_id)) {
        return;
    }
    let raising = &call.faces.quota.raising;
    if raising.swap(true, Ordering::AcqRel) {
        return;
    }
    // Reset even when the call is cancelled while it waits.
    let _reset = Reset(raising);
    let request = AlarmRequest { action: AlarmAction::Activate as i32, member_id, alarm };
    if let Err(error) = call.propose(RequestKind::Alarm, Op::Alarm(request)).await {
        tracing::warn!(?error, "failed to raise the NOSPACE alarm");
    }
}

struct Reset<'a>(&'a AtomicBool);

impl Drop for Reset<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

pub(super) fn put_cost(request: &PutRequest) -> u64 {
    KEY_OVERHEAD_BYTES + request.key.len() as u64 + request.value.len() as u64
}

/// A transaction costs what its dearer branch costs.
pub(super) fn txn_cost(request: &TxnRequest) -> u64 {
    branch_cost(&request.success).max(branch_cost(&request.failure))
}

fn branch_cost(ops: &[RequestOp]) -> u64 {
    ops.iter()
        .map(|op| match &op.request {
            Some(Request::RequestPut(put)) => put_cost(put),
            Some(Request::RequestTxn(nested)) => txn_cost(nested),
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: usize) -> RequestOp {
        let request =
            PutRequest { key: "k".into(), value: vec![0; value].into(), ..PutRequest::default() };
        RequestOp { request: Some(Request::RequestPut(request)) }
    }

    #[test]
    fn zero_is_the_default_and_negative_is_none() {
        assert!(!Quota::new(0).admits(2 << 30, 1));
        assert!(Quota::new(0).admits((2 << 30) - 2, 1));
        assert!(Quota::new(-1).admits(u64::MAX, u64::MAX));
        assert!(!Quota::new(10).admits(9, 1), "the quota itself is out of reach");
        assert!(Quota::new(10).admits(1000, 0), "what costs nothing fits");
    }

    #[test]
    fn a_transaction_costs_its_dearer_branch() {
        let nested = TxnRequest { failure: vec![put(1000)], ..TxnRequest::default() };
        let txn = TxnRequest {
            success: vec![put(10), RequestOp { request: Some(Request::RequestTxn(nested)) }],
            failure: vec![put(100)],
            ..TxnRequest::default()
        };
        assert_eq!(txn_cost(&txn), 257 + 10 + 257 + 1000);
    }
}
