//! etcd's gRPC services, on tonic's server core.
//!
//! Owns: the methods' table, a request's form (validation, sizes, metadata, the space
//! quota), the answer's header, error codes and texts, and the figures of every call.
//! Receives: HTTP/2 requests from the connections. Sends: proposals, read indexes and
//! watches to the [`Company`](castd_actors::Company). Never does: decide anything that
//! depends on the order of the log, or keep state of its own.
//!
//! One function finds the method by its path and calls tonic with our own codec; the
//! generated servers would do the same once more for each service, with a box more.

mod auth;
mod call;
mod cluster;
mod codec;
mod error;
mod faces;
mod framed;
mod health;
mod ids;
mod kv;
mod lease;
mod maintenance;
mod methods;
mod overlap;
mod quota;
mod range_stream;
mod read_txn;
mod supervised;
pub mod validate;
mod watch;

pub use error::{Failure, status};
pub use faces::{FaceOptions, Faces, LeaderWatch, Phase};
#[cfg(test)]
pub(crate) use framed::response_goes_out;
pub use framed::{responses_are_out, responses_go_out};
pub use kv::probe;
pub use methods::{Kind, Method};
pub use quota::effective as effective_quota;

use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use tonic::Status;
use tonic::body::Body;

use call::{bidi_stream, server_stream, unary};
use framed::framed_stream;

/// Whether the request speaks gRPC, whatever it asks for.
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    request.version() == http::Version::HTTP_2 && content_is_grpc(request.headers())
}

fn content_is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Answers a gRPC request. Dropping the future cancels the call.
pub async fn serve<B>(faces: Arc<Faces>, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<tonic::codegen::StdError> + Send,
{
    let Some(method) = Method::find(request.uri().path()) else {
        let text = methods::unknown(request.uri().path());
        return Status::unimplemented(text).into_http();
    };
    // The first three are the hot ones. They stay in this future; the others are boxed,
    // so that their size does not weigh on every call's.
    match method {
        Method::Put => unary(faces, method, request, kv::put).await,
        Method::Range => unary(faces, method, request, kv::range).await,
        Method::Txn => unary(faces, method, request, kv::txn).await,
        _ => Box::pin(others(faces, method, request)).await,
    }
}

async fn others<B>(faces: Arc<Faces>, method: Method, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<tonic::codegen::StdError> + Send,
{
    match method {
        Method::Put | Method::Range | Method::Txn => {
            Status::internal("castd: a hot method took the cold path").into_http()
        }
        Method::DeleteRange => unary(faces, method, request, kv::delete_range).await,
        Method::Compact => unary(faces, method, request, kv::compact).await,
        Method::RangeStream => {
            server_stream(faces, method, request, range_stream::range_stream).await
        }
        Method::Watch => framed_stream(faces, method, request, watch::watch).await,
        Method::LeaseGrant => unary(faces, method, request, lease::grant).await,
        Method::LeaseRevoke => unary(faces, method, request, lease::revoke).await,
        Method::LeaseKeepAlive => bidi_stream(faces, method, request, lease::keep_alive).await,
        Method::LeaseTimeToLive => unary(faces, method, request, lease::time_to_live).await,
        Method::LeaseLeases => unary(faces, method, request, lease::leases).await,
        Method::MemberList => unary(faces, method, request, cluster::member_list).await,
        Method::MemberAdd => unary(faces, method, request, cluster::member_add).await,
        Method::MemberRemove => unary(faces, method, request, cluster::member_remove).await,
        Method::MemberUpdate => unary(faces, method, request, cluster::member_update).await,
        Method::MemberPromote => unary(faces, method, request, cluster::member_promote).await,
        Method::Alarm => unary(faces, method, request, maintenance::alarm).await,
        Method::Status => unary(faces, method, request, maintenance::status).await,
        Method::Defragment => unary(faces, method, request, maintenance::defragment).await,
        Method::Hash => unary(faces, method, request, maintenance::hash).await,
        Method::HashKv => unary(faces, method, request, maintenance::hash_kv).await,
        Method::MoveLeader => unary(faces, method, request, maintenance::move_leader).await,
        Method::AuthStatus => unary(faces, method, request, auth::status).await,
        Method::Authenticate => unary(faces, method, request, auth::authenticate).await,
        Method::HealthCheck => unary(faces, method, request, health::check).await,
        Method::HealthWatch => server_stream(faces, method, request, health::watch).await,
        Method::Snapshot
        | Method::Downgrade
        | Method::AuthEnable
        | Method::AuthDisable
        | Method::UserAdd
        | Method::UserGet
        | Method::UserList
        | Method::UserDelete
        | Method::UserChangePassword
        | Method::UserGrantRole
        | Method::UserRevokeRole
        | Method::RoleAdd
        | Method::RoleGet
        | Method::RoleList
        | Method::RoleDelete
        | Method::RoleGrantPermission
        | Method::RoleRevokePermission => call::not_yet(&faces, method),
    }
}
