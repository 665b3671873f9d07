//! `/health`: one verdict, as JSON.

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use castd_proto::etcdserverpb::AlarmType;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use serde::Serialize;

use super::{HttpFaces, Pairs, TEXT, go_error, only_get, values};
use crate::grpc;

#[derive(Serialize)]
struct Health<'a> {
    health: &'a str,
    reason: &'a str,
}

pub(super) async fn health(
    State(http): State<HttpFaces>,
    method: Method,
    Query(pairs): Query<Pairs>,
) -> Response {
    if let Some(refused) = only_get(&method) {
        return refused;
    }
    let excluded = values(&pairs, "exclude");
    // Of a name that is given more than once, the first value counts.
    let serializable =
        pairs.iter().find(|(name, _)| name == "serializable").is_some_and(|(_, v)| v == "true");
    let ill = diagnose(&http, &excluded, serializable).await;
    let figures = &http.faces.metrics.faces;
    match ill {
        None => {
            figures.health_success.inc();
            ([(CONTENT_TYPE, TEXT)], json("true", "")).into_response()
        }
        Some(reason) => {
            figures.health_failures.inc();
            let verdict = json("false", &reason);
            tracing::warn!(output = %verdict, "/health error");
            go_error(StatusCode::SERVICE_UNAVAILABLE, &verdict)
        }
    }
}

/// What is wrong, if anything is.
async fn diagnose(http: &HttpFaces, excluded: &[&str], serializable: bool) -> Option<String> {
    let company = &http.faces.company;
    for (alarm, _) in &company.view().cluster().alarms {
        let name = AlarmType::try_from(*alarm).map_or("UNKNOWN", |alarm| alarm.as_str_name());
        if !excluded.contains(&name) {
            return Some(format!("ALARM {name}"));
        }
    }
    if !serializable && company.raft().leader == 0 {
        return Some("RAFT NO LEADER".to_owned());
    }
    let read = grpc::probe(&http.faces, serializable).await;
    read.err().map(|error| format!("RANGE ERROR:{error}"))
}

fn json(health: &str, reason: &str) -> String {
    // Two strings: there is nothing in them that could fail.
    serde_json::to_string(&Health { health, reason }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_etcds_to_the_byte() {
        assert_eq!(json("true", ""), r#"{"health":"true","reason":""}"#);
        assert_eq!(
            json("false", "RAFT NO LEADER"),
            r#"{"health":"false","reason":"RAFT NO LEADER"}"#
        );
    }
}
