//! `/members` on the peer listeners: who is in the cluster, for a member that
//! is about to join it.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use castd_actors::MemberInfo;
use http::Method;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use super::{CASTD_VERSION_HEADER, CLUSTER_ID_HEADER, HttpFaces, JSON, only_get};
use crate::config::CASTD_VERSION;

#[derive(Serialize)]
struct Member<'a> {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
}

pub(super) async fn members(State(http): State<HttpFaces>, method: Method) -> Response {
    if let Some(refused) = only_get(&method) {
        return refused;
    }
    let company = &http.faces.company;
    let cluster = format!("{:x}", company.identity().cluster_id);
    let body = json(company.members_ever_heard().iter());
    let headers = [(CLUSTER_ID_HEADER, cluster.as_str()), (CASTD_VERSION_HEADER, CASTD_VERSION)];
    ([(CONTENT_TYPE, JSON)], headers, body).into_response()
}

fn json<'a>(members: impl Iterator<Item = &'a MemberInfo>) -> String {
    let members: Vec<Member<'_>> = members
        .map(|member| Member {
            id: member.id,
            peer_urls: &member.peer_urls,
            name: &member.name,
            client_urls: &member.client_urls,
            is_learner: member.is_learner,
        })
        .collect();
    // Numbers and strings: there is nothing in them that could fail.
    let mut text = serde_json::to_string(&members).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_listed_as_etcd_lists_them() {
        let member = MemberInfo {
            id: 1,
            name: "a".to_owned(),
            peer_urls: vec!["http://p:1".to_owned()],
            client_urls: vec!["http://c:2".to_owned()],
            is_learner: false,
        };
        let new = MemberInfo { name: String::new(), client_urls: Vec::new(), ..member.clone() };
        assert_eq!(
            json([&member, &new].into_iter()),
            concat!(
                r#"[{"id":1,"peerURLs":["http://p:1"],"name":"a","clientURLs":["http://c:2"]},"#,
                r#"{"id":1,"peerURLs":["http://p:1"]}]"#,
                "\n"
            )
        );
    }
}
