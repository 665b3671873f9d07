//! gRPC's own health service, `grpc.health.v1`: it speaks of the server as a whole,
//! which is the service without a name.

use futures::{StreamExt, stream};
use tonic::Status;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::call::{Call, Responses};
use super::error::Failure;

/// The server as a whole serves as long as it answers; other names are not known.
fn status_of(service: &str) -> Option<ServingStatus> {
    service.is_empty().then_some(ServingStatus::Serving)
}

pub(super) async fn check(
    _call: Call,
    request: HealthCheckRequest,
) -> Result<HealthCheckResponse, Failure> {
    match status_of(&request.service) {
        Some(status) => Ok(HealthCheckResponse { status: status as i32 }),
        None => Err(Status::not_found("unknown service").into()),
    }
}

/// Tells a service's status, and every change of it. The only change is the server's
/// end, which ends the stream too.
pub(super) async fn watch(
    _call: Call,
    request: HealthCheckRequest,
) -> Result<Responses<HealthCheckResponse>, Failure> {
    let status = status_of(&request.service).unwrap_or(ServingStatus::ServiceUnknown);
    let now = stream::iter([Ok(HealthCheckResponse { status: status as i32 })]);
    Ok(Box::pin(now.chain(stream::pending())))
}
