//! `/livez` and `/readyz`: named checks, together and each at a path of its own.

use axum::Router;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use castd_proto::etcdserverpb::AlarmType;
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, StatusCode};

use super::{HttpFaces, Pairs, TEXT, go_error, only_get, values};
use crate::grpc;

/// Something that must hold of a healthy member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    /// What is wrong, if anything is.
    async fn run(self, http: &HttpFaces) -> Result<(), String> {
        let faces = &http.faces;
        match self {
            Self::DataCorruption => {
                let view = faces.company.view();
                let corrupt = AlarmType::Corrupt as i32;
                let mut alarms = view.cluster().alarms.iter();
                if alarms.any(|(alarm, _)| *alarm == corrupt) {
                    return Err("alarm activated: CORRUPT".to_owned());
                }
                Ok(())
            }
            Self::SerializableRead => read(http, true).await,
            Self::LinearizableRead => read(http, false).await,
            Self::NonLearner if faces.company.is_learner() => {
                Err("not supported for learner".to_owned())
            }
            Self::NonLearner => Ok(()),
        }
    }
}

async fn read(http: &HttpFaces, serializable: bool) -> Result<(), String> {
    grpc::probe(&http.faces, serializable).await.map_err(|error| error.to_string())
}

/// A path with its checks.
#[derive(Clone, Copy)]
struct Endpoint {
    name: &'static str,
    checks: &'static [Check],
}

const LIVEZ: Endpoint = Endpoint { name: "livez", checks: &[Check::SerializableRead] };
const READYZ: Endpoint = Endpoint {
    name: "readyz",
    checks: &[
        Check::DataCorruption,
        Check::SerializableRead,
        Check::LinearizableRead,
        Check::NonLearner,
    ],
};

/// Adds the checks' paths to a router.
pub(super) fn routes(mut router: Router<HttpFaces>) -> Router<HttpFaces> {
    for endpoint in [LIVEZ, READYZ] {
        router = router.route(&format!("/{}", endpoint.name), handler(endpoint, None));
        for check in endpoint.checks {
            let path = format!("/{}/{}", endpoint.name, check.name());
            router = router.route(&path, handler(endpoint, Some(*check)));
        }
    }
    router
}

/// Answers for all checks of an endpoint but the excluded ones, or for one of them.
fn handler(endpoint: Endpoint, one: Option<Check>) -> axum::routing::MethodRouter<HttpFaces> {
    any(
        move |State(http): State<HttpFaces>, method: Method, Query(pairs): Query<Pairs>| async move {
            if let Some(refused) = only_get(&method) {
                return refused;
            }
            let excluded = if one.is_none() { values(&pairs, "exclude") } else { Vec::new() };
            let verbose = pairs.iter().any(|(name, _)| name == "verbose");
            let mut results = Vec::new();
            for check in endpoint.checks {
                if one.is_none_or(|one| one == *check) && !excluded.contains(&check.name()) {
                    let result = check.run(&http).await;
                    let figures = &http.faces.metrics.faces;
                    figures.health_check(endpoint.name, check.name(), result.is_ok());
                    results.push((check.name(), result));
                }
            }
            report(endpoint.name, &results, verbose)
        },
    )
}

/// The report: `ok`, after the checks' results for who wants them. A failure is always
/// told in full.
fn report(endpoint: &str, results: &[(&str, Result<(), String>)], verbose: bool) -> Response {
    let lines: String = results.iter().map(|(name, result)| line(name, result)).collect();
    if results.iter().any(|(_, result)| result.is_err()) {
        tracing::error!(endpoint, reason = %lines, "Health check error");
        return go_error(StatusCode::SERVICE_UNAVAILABLE, &lines);
    }
    let text = if verbose { lines + "ok\n" } else { "ok\n".to_owned() };
    let nosniff = HeaderValue::from_static("nosniff");
    ([(CONTENT_TYPE, TEXT), (X_CONTENT_TYPE_OPTIONS, nosniff)], text).into_response()
}

fn line(name: &str, result: &Result<(), String>) -> String {
    match result {
        Ok(()) => format!("[+]{name} ok\n"),
        Err(reason) => format!("[-]{name} failed: {reason}\n"),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn text(response: Response) -> String {
        let body = response.into_body().collect().await.unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn reports_are_etcds_to_the_byte() {
        let good = [("serializable_read", Ok(())), ("non_learner", Ok(()))];
        let plain = report("readyz", &good, false);
        assert_eq!(plain.status(), StatusCode::OK);
        assert_eq!(plain.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        assert_eq!(text(plain).await, "ok\n");
        assert_eq!(
            text(report("readyz", &good, true)).await,
            "[+]serializable_read ok\n[+]non_learner ok\nok\n"
        );
        let bad = [
            ("linearizable_read", Err("etcdserver: no leader".to_owned())),
            ("non_learner", Ok(())),
        ];
        let failed = report("readyz", &bad, false);
        assert_eq!(failed.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            text(failed).await,
            "[-]linearizable_read failed: etcdserver: no leader\n[+]non_learner ok\n\n"
        );
    }
}
