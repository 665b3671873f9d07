//! Other members' pages, before this member is one of them.

use std::time::Duration;

use bytes::Bytes;
use castd_actors::MemberInfo;
use http::header::HOST;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{Scheme, Url};
use crate::http::{CASTD_VERSION_HEADER, CLUSTER_ID_HEADER};

/// A list of members is some kilobytes; more is not one.
const BODY_BYTES_MAX: usize = 1 << 20;

/// How long another member is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until there is a connection.
    pub connect: Duration,
    /// From then on, until it has answered.
    pub answer: Duration,
}

/// What other members say of their cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemoteCluster {
    /// The cluster's id.
    pub id: u64,
    /// Its members, by id.
    pub members: Vec<MemberInfo>,
    /// Whether who answered is a castd.
    pub castd: bool,
}

#[derive(Deserialize)]
struct RemoteMember {
    id: u64,
    #[serde(rename = "peerURLs", default)]
    peer_urls: Vec<String>,
    #[serde(default)]
    name: String,
    #[serde(rename = "clientURLs", default)]
    client_urls: Vec<String>,
    #[serde(rename = "isLearner", default)]
    is_learner: bool,
}

/// The versions a member tells of.
#[derive(Debug, Deserialize)]
pub(super) struct RemoteVersions {
    /// The cluster's version, `not_decided` where there is none.
    #[serde(rename = "etcdcluster", default)]
    pub cluster: String,
}

/// Asks one URL after the other who is in the cluster, until one can say.
///
/// # Errors
/// In etcd's words, when nobody can.
pub(super) async fn cluster(urls: &[Url], patience: Patience) -> Result<RemoteCluster, String> {
    for url in urls {
        match cluster_at(url, patience).await {
            Ok(cluster) if cluster.members.is_empty() => {
                let text = "failed to get raft cluster member(s) from the given URLs";
                return Err(text.to_owned());
            }
            Ok(cluster) => return Ok(cluster),
            Err(error) => tracing::warn!(
                address = format!("{url}/members"),
                error,
                "failed to get cluster response"
            ),
        }
    }
    Err("could not retrieve cluster information from the given URLs".to_owned())
}

/// Who is in the cluster, as the member at one URL says.
///
/// # Errors
/// Why it does not say.
pub(super) async fn cluster_at(url: &Url, patience: Patience) -> Result<RemoteCluster, String> {
    let (headers, body) = get(url, "/members", patience).await?;
    let members: Vec<RemoteMember> =
        serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let id = headers.get(&CLUSTER_ID_HEADER).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let id = u64::from_str_radix(id, 16)
        .map_err(|error| format!("cluster ID {id:?} cannot be read: {error}"))?;
    let member = |member: RemoteMember| MemberInfo {
        id: member.id,
        name: member.name,
        peer_urls: member.peer_urls,
        client_urls: member.client_urls,
        is_learner: member.is_learner,
    };
    let mut members: Vec<MemberInfo> = members.into_iter().map(member).collect();
    members.sort_by_key(|member| member.id);
    Ok(RemoteCluster { id, members, castd: headers.contains_key(&CASTD_VERSION_HEADER) })
}

/// The versions that the first of a member's URLs to answer tells of.
pub(super) async fn versions(urls: &[String], patience: Patience) -> Option<RemoteVersions> {
    for url in urls.iter().filter_map(|url| Url::parse(url).ok()) {
        let page = get(&url, "/version", patience).await;
        match page.and_then(|(_, body)| serde_json::from_slice(&body).map_err(|e| e.to_string())) {
            Ok(versions) => return Some(versions),
            Err(error) => tracing::warn!(
                address = format!("{url}/version"),
                error,
                "failed to reach the peer URL"
            ),
        }
    }
    None
}

/// One page of another member.
async fn get(url: &Url, path: &str, patience: Patience) -> Result<(HeaderMap, Bytes), String> {
    if url.scheme() != Scheme::Http {
        return Err(format!("cannot speak {}: TLS is not built in yet", url.scheme().as_str()));
    }
    let Patience { connect, answer } = patience;
    let stream = timeout(connect, TcpStream::connect(url.authority()))
        .await
        .map_err(|_| format!("no connection within {connect:?}"))?
        .map_err(|error| error.to_string())?;
    timeout(answer, fetch(stream, url, path))
        .await
        .map_err(|_| format!("no answer within {answer:?}"))?
}

async fn fetch(stream: TcpStream, url: &Url, path: &str) -> Result<(HeaderMap, Bytes), String> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let request = Request::get(path)
        .header(HOST, url.authority())
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if response.status() != StatusCode::OK {
            return Err(format!("HTTP {}", response.status()));
        }
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        Ok((head.headers, body.map_err(|error| error.to_string())?.to_bytes()))
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection has ended; what it has read is with the exchange.
        _ = &mut connection => exchange.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Patience =
        Patience { connect: Duration::from_secs(5), answer: Duration::from_secs(5) };

    /// A server that answers everything with `answer`.
    async fn answering(answer: String) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        url
    }

    fn page(headers: &str, body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn the_first_who_can_say_names_the_members() {
        let broken = answering("HTTP/1.1 500 Internal Server Error\r\n\r\n".to_owned()).await;
        let body = r#"[{"id":2,"peerURLs":["http://b"]},{"id":1,"peerURLs":["http://a"],"name":"a","clientURLs":["http://c"],"isLearner":true}]"#;
        let good = answering(page("X-Etcd-Cluster-ID: 1a\r\n", body)).await;
        let cluster = cluster(&[broken.clone(), good], PATIENCE).await.unwrap();
        assert_eq!((cluster.id, cluster.castd, cluster.members.len()), (0x1a, false, 2));
        assert_eq!(cluster.members[0].name, "a");
        assert!(cluster.members[0].is_learner && !cluster.members[1].is_learner);
        assert_eq!(
            super::cluster(&[broken], PATIENCE).await.unwrap_err(),
            "could not retrieve cluster information from the given URLs"
        );
        let empty = answering(page("X-Etcd-Cluster-ID: 1a\r\n", "[]")).await;
        assert_eq!(
            super::cluster(&[empty], PATIENCE).await.unwrap_err(),
            "failed to get raft cluster member(s) from the given URLs"
        );
    }

    #[tokio::test]
    async fn versions_are_asked_for_at_every_url() {
        let good = answering(page("", r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0"}"#)).await;
        let urls = ["https://127.0.0.1:1".to_owned(), good.to_string()];
        assert_eq!(versions(&urls, PATIENCE).await.unwrap().cluster, "3.7.0");
        assert!(versions(&urls[..1], PATIENCE).await.is_none());
    }
}
