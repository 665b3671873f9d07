//! `/version`: which etcd this member, its cluster, and its storage are compatible with.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Method;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use super::{HttpFaces, JSON, only_get};

#[derive(Serialize)]
struct Versions<'a> {
    etcdserver: &'a str,
    etcdcluster: &'a str,
    storage: &'a str,
}

pub(super) async fn version(State(http): State<HttpFaces>, method: Method) -> Response {
    if let Some(refused) = only_get(&method) {
        return refused;
    }
    let view = http.faces.company.view();
    let json = json(&http.faces.options.version, view.cluster().version.as_deref());
    ([(CONTENT_TYPE, JSON)], json).into_response()
}

/// The storage's version follows the cluster's, and is not known before it.
fn json(server: &str, cluster: Option<&str>) -> String {
    let versions = Versions {
        etcdserver: server,
        etcdcluster: cluster.unwrap_or("not_decided"),
        storage: cluster.unwrap_or("unknown"),
    };
    // Three strings: there is nothing in them that could fail.
    serde_json::to_string(&versions).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_as_etcd_tells_them() {
        assert_eq!(
            json("3.7.1", Some("3.7.0")),
            r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#
        );
        assert_eq!(
            json("3.7.1", None),
            r#"{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}"#
        );
    }
}
