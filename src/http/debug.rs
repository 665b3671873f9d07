//! `/debug/vars`: a few variables of the process, in the form of Go's expvar.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use serde_json::{Value, json};

use super::{HttpFaces, only_get};
use crate::metrics::{Memory, descriptor_limit};

pub(super) async fn vars(State(http): State<HttpFaces>, method: Method) -> Response {
    if let Some(refused) = only_get(&method) {
        return refused;
    }
    let company = &http.faces.company;
    let raft = company.raft();
    let variables = [
        ("cmdline", json!(std::env::args().collect::<Vec<_>>())),
        ("file_descriptor_limit", json!(descriptor_limit())),
        ("memstats", memory(Memory::now())),
        (
            "raft.status",
            json!({
                "id": format!("{:x}", company.identity().member_id),
                "term": raft.term,
                "commit": raft.committed,
                "lead": format!("{:x}", raft.leader),
                "applied": raft.applied,
            }),
        ),
    ];
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    ([(CONTENT_TYPE, json)], text(&variables)).into_response()
}

/// The memory under those of Go's names that mean something without Go.
fn memory(memory: Option<Memory>) -> Value {
    match memory {
        Some(Memory { resident, anonymous }) => {
            json!({ "Alloc": anonymous, "Sys": resident, "HeapAlloc": anonymous })
        }
        None => json!({}),
    }
}

fn text(variables: &[(&str, Value)]) -> String {
    let lines: Vec<String> =
        variables.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_stand_one_a_line() {
        let text = text(&[("a", json!(1)), ("b", json!(["x"]))]);
        assert_eq!(text, "{\n\"a\": 1,\n\"b\": [\"x\"]\n}\n");
    }
}
