//! HTTP beside gRPC: health checks, the version, metrics, and a look inside.
//!
//! Owns: paths, methods, and texts, which are etcd's to the byte, since probes and
//! scripts compare them. Asks the [`Faces`] for everything it says.

mod debug;
mod health;
mod members;
mod probe;
mod version;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use prometheus::{Registry, TextEncoder};

use crate::grpc::Faces;

/// Says which cluster a member's answer is about.
pub const CLUSTER_ID_HEADER: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
/// Says that a member is a castd, and which: etcd's members and castd's do not mix.
pub const CASTD_VERSION_HEADER: HeaderName = HeaderName::from_static("x-castd-version");

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What the handlers need at hand.
#[derive(Clone)]
pub struct HttpFaces {
    faces: Arc<Faces>,
    registry: Registry,
}

impl HttpFaces {
    /// Shows `registry` at `/metrics` and asks `faces` for the rest.
    pub fn new(faces: Arc<Faces>, registry: Registry) -> Self {
        Self { faces, registry }
    }

    /// Everything clients are served.
    pub fn client_routes(&self) -> Router {
        self.probes()
            .route("/version", any(version::version))
            .route("/debug/vars", any(debug::vars))
            .with_state(self.clone())
    }

    /// What the metrics listeners serve.
    pub fn metrics_routes(&self) -> Router {
        self.probes().with_state(self.clone())
    }

    /// What other members are served.
    pub fn peer_routes(&self) -> Router {
        Router::new()
            .route("/version", any(version::version))
            .route("/members", any(members::members))
            .fallback(async || not_found())
            .with_state(self.clone())
    }

    fn probes(&self) -> Router<Self> {
        let routes = Router::new()
            .route("/metrics", any(metrics))
            .route("/health", any(health::health))
            .fallback(async || not_found());
        probe::routes(routes)
    }
}

async fn metrics(State(http): State<HttpFaces>) -> Response {
    // Gathering walks through the kernel's files: not on the event loop.
    let gathered = tokio::task::spawn_blocking(move || {
        TextEncoder::new().encode_to_string(&http.registry.gather())
    });
    match gathered.await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, METRICS)], text).into_response(),
        Ok(Err(error)) => go_error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(error) => go_error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// An error as Go's HTTP library writes it.
fn go_error(status: StatusCode, text: &str) -> Response {
    let nosniff = HeaderValue::from_static("nosniff");
    let headers = [(CONTENT_TYPE, TEXT), (X_CONTENT_TYPE_OPTIONS, nosniff)];
    (status, headers, format!("{text}\n")).into_response()
}

/// Nothing lives at this path.
pub fn not_found() -> Response<Body> {
    go_error(StatusCode::NOT_FOUND, "404 page not found")
}

/// The answer to every method but GET, or `None` for GET.
fn only_get(method: &Method) -> Option<Response> {
    if method == Method::GET {
        return None;
    }
    let mut response = go_error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    Some(response)
}

/// A query's pairs, in order.
type Pairs = Vec<(String, String)>;

/// The values that are given to `name`, the empty ones left out.
fn values<'a>(pairs: &'a Pairs, name: &str) -> Vec<&'a str> {
    pairs
        .iter()
        .filter(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value.as_str())
        .collect()
}
