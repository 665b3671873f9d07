//! The Lease service.

use castd_actors::Outcome;
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use futures::stream;
use tonic::{Status, Streaming};

use super::call::{Call, Responses};
use super::error::{Failure, in_go_words, status};
use super::kv::mismatch;
use super::{quota, validate};
use crate::metrics::RequestKind;

pub(super) async fn grant(
    call: Call,
    mut request: LeaseGrantRequest,
) -> Result<LeaseGrantResponse, Failure> {
    quota::check(&call, quota::LEASE_BYTES).await?;
    validate::lease_ttl(request.ttl)?;
    if request.id == 0 {
        request.id = call.faces.lease_ids.next();
    }
    let applied = call.propose(RequestKind::LeaseGrant, Op::LeaseGrant(request)).await?;
    let Outcome::LeaseGrant(mut response) = applied.outcome else { return Err(mismatch()) };
    response.header = call.header(applied.revision);
    Ok(response)
}

pub(super) async fn revoke(
    call: Call,
    request: LeaseRevokeRequest,
) -> Result<LeaseRevokeResponse, Failure> {
    let applied = call.propose(RequestKind::LeaseRevoke, Op::LeaseRevoke(request)).await?;
    let Outcome::LeaseRevoke(mut response) = applied.outcome else { return Err(mismatch()) };
    response.header = call.header(applied.revision);
    Ok(response)
}

pub(super) async fn keep_alive(
    call: Call,
    requests: Streaming<LeaseKeepAliveRequest>,
) -> Result<Responses<LeaseKeepAliveResponse>, Failure> {
    let renewals = stream::unfold(Some((call, requests)), |state| async {
        let (call, mut requests) = state?;
        match requests.message().await {
            Ok(Some(request)) => match renew(&call, request).await {
                Ok(response) => Some((Ok(response), Some((call, requests)))),
                Err(status) => Some((Err(status), None)),
            },
            Ok(None) => None,
            Err(status) => {
                let failures = &call.faces.metrics.faces.stream_failures;
                failures.with_label_values(&["receive", "lease-keepalive"]).inc();
                Some((Err(in_go_words(status)), None))
            }
        }
    });
    Ok(Box::pin(renewals))
}

async fn renew(
    call: &Call,
    request: LeaseKeepAliveRequest,
) -> Result<LeaseKeepAliveResponse, Status> {
    // Taken before the renewal, so that a client never sees a lease kept alive at a
    // revision at which it was gone.
    let header = call.header_now();
    let ttl = call.faces.company.lease_keep_alive(request.id).await.map_err(status)?;
    Ok(LeaseKeepAliveResponse { header, id: request.id, ttl })
}

pub(super) async fn time_to_live(
    call: Call,
    request: LeaseTimeToLiveRequest,
) -> Result<LeaseTimeToLiveResponse, Failure> {
    let lease = call.faces.company.lease_time_to_live(request.id, request.keys).await?;
    let header = call.header_now();
    let id = request.id;
    Ok(match lease {
        Some(lease) => LeaseTimeToLiveResponse {
            header,
            id,
            ttl: lease.ttl_s,
            granted_ttl: lease.granted_ttl_s,
            keys: lease.keys,
        },
        None => {
            LeaseTimeToLiveResponse { header, id, ttl: -1, ..LeaseTimeToLiveResponse::default() }
        }
    })
}

pub(super) async fn leases(
    call: Call,
    _request: LeaseLeasesRequest,
) -> Result<LeaseLeasesResponse, Failure> {
    let ids = call.faces.company.leases().await?;
    let leases = ids.into_iter().map(|id| LeaseStatus { id }).collect();
    Ok(LeaseLeasesResponse { header: call.header_now(), leases })
}
