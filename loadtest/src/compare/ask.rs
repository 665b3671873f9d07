//! Questions to a member beside the load: whether it is ready, who leads, how far it is.

use std::future::Future;

use bytes::Bytes;
use castd_proto::etcdserverpb::{RangeRequest, RangeResponse, StatusRequest, StatusResponse};
use tokio::runtime::{Builder, LocalOptions};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::error::LoadError;
use crate::grpc::{CallError, Endpoint, Link, Rpc};
use crate::work::range::RANGE;

/// The health service's method.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// The method that tells who leads and how far a member is.
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// Runs a future to its end, with a runtime of its own.
///
/// # Errors
/// The future's, or when there is no runtime to be had.
pub(super) fn block_on<T>(
    future: impl Future<Output = Result<T, LoadError>>,
) -> Result<T, LoadError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(LoadError::Runtime)?;
    runtime.block_on(future)
}

/// Succeeds if something listens.
///
/// # Errors
/// When nothing does.
pub(super) async fn connection(endpoint: &Endpoint) -> Result<(), CallError> {
    Link::connect(endpoint.clone()).await.map(|_| ())
}

/// Succeeds if a member's health service says SERVING and it answers a linearizable read, so
/// that it has all that was written before.
///
/// # Errors
/// What is missing.
pub(super) async fn service(endpoint: &Endpoint) -> Result<(), CallError> {
    let mut rpc = Rpc::new(&Link::connect(endpoint.clone()).await?);
    let health: HealthCheckResponse =
        rpc.unary(&rpc.route(HEALTH), &HealthCheckRequest::default()).await?;
    if health.status() != ServingStatus::Serving {
        return Err(CallError::WrongAnswer(format!("health: {:?}", health.status())));
    }
    let read = RangeRequest { key: Bytes::from_static(b"ready?"), ..RangeRequest::default() };
    let _: RangeResponse = rpc.unary(&rpc.route(RANGE), &read).await?;
    Ok(())
}

/// What a member says of itself.
///
/// # Errors
/// When it does not answer.
pub(super) async fn status(endpoint: &Endpoint) -> Result<StatusResponse, CallError> {
    let mut rpc = Rpc::new(&Link::connect(endpoint.clone()).await?);
    rpc.unary(&rpc.route(STATUS), &StatusRequest {}).await
}

/// Whether a member is the leader by its own account.
pub(super) fn leads(status: &StatusResponse) -> bool {
    let own = status.header.as_ref().map_or(0, |header| header.member_id);
    own != 0 && own == status.leader
}

#[cfg(test)]
mod tests {
    use super::*;
    use castd_proto::etcdserverpb::ResponseHeader;

    #[test]
    fn a_leader_names_itself() {
        let status = |member_id, leader| StatusResponse {
            header: Some(ResponseHeader { member_id, ..ResponseHeader::default() }),
            leader,
            ..StatusResponse::default()
        };
        assert!(leads(&status(7, 7)));
        assert!(!leads(&status(7, 8)));
        assert!(!leads(&status(0, 0)), "nobody leads");
    }
}
