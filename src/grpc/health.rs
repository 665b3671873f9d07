//! gRPC's own health service. It speaks of the server as a whole, under the empty name;
//! as long as somebody answers here, it serves.

use futures::{StreamExt, stream};
use tonic::Status;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::call::{Call, Responses};
use super::error::Failure;

pub(super) async fn check(
    _call: Call,
    request: HealthCheckRequest,
) -> Result<HealthCheckResponse, Failure> {
    if !request.service.is_empty() {
        return Err(Status::not_found("unknown service").into());
    }
    Ok(response(ServingStatus::Serving))
}

/// Who watches is told once, and again by the end of the stream when the node leaves.
pub(super) async fn watch(
    _call: Call,
    request: HealthCheckRequest,
) -> Result<Responses<HealthCheckResponse>, Failure> {
    let status = match request.service.is_empty() {
        true => ServingStatus::Serving,
        false => ServingStatus::ServiceUnknown,
    };
    let told = stream::iter([Ok(response(status))]);
    Ok(Box::pin(told.chain(stream::pending())))
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
