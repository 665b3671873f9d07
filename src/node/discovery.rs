//! v3 discovery: the members of a new cluster meet at another cluster, which somebody
//! has told how many there are to be.
//!
//! Under `/_etcd/registry/<token>` stand `_config/size` and, below `members/`, a line
//! `name=url,...` of each. Whoever registers first is in.

use std::time::Duration;

use castd_proto::etcdserverpb::auth_client::AuthClient;
use castd_proto::etcdserverpb::kv_client::KvClient;
use castd_proto::etcdserverpb::watch_client::WatchClient;
use castd_proto::etcdserverpb::watch_request::RequestUnion;
use castd_proto::etcdserverpb::{
    AuthenticateRequest, PutRequest, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest,
};
use castd_proto::mvccpb::KeyValue;
use castd_proto::mvccpb::event::EventType;
use futures::StreamExt;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::config::{DiscoveryService, InitialCluster, parse_int};

/// Attempts after which the pause before the next no longer doubles.
const DOUBLINGS_MAX: u32 = 8;

/// Why members cannot meet, in etcd's words.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiscoveryError {
    #[error("discovery: invalid peer URL")]
    InvalidUrl,
    #[error("discovery: size key is bad")]
    BadSizeKey,
    #[error("discovery: size key not found")]
    SizeNotFound,
    #[error("discovery: cluster is full")]
    Full,
    #[error("discovery: endpoint {0}: {1}")]
    Endpoint(String, String),
    #[error("discovery: {0}")]
    Service(Box<Status>),
}

impl From<Status> for DiscoveryError {
    fn from(status: Status) -> Self {
        Self::Service(Box::new(status))
    }
}

/// Registers this member and waits until all are there; gives them as
/// `--initial-cluster` would name them.
///
/// # Errors
/// In etcd's words. A service that does not answer is asked again, without end.
pub(super) async fn join(
    service: &DiscoveryService,
    member_id: u64,
    own: &InitialCluster,
) -> Result<String, String> {
    tracing::info!(?service, "Bootstrapping cluster using v3 discovery.");
    let mut desk = Desk::new(service, member_id).map_err(|error| error.to_string())?;
    let found = desk.join(&own.to_string()).await;
    match &found {
        Ok(cluster) => tracing::info!(cluster, "discovery joined cluster successfully"),
        Err(error) => tracing::error!(%error, "discovery failed to join cluster"),
    }
    found.map_err(|error| error.to_string())
}

/// Those who have registered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Registry {
    /// Revision at which it came, key, line; in that order.
    members: Vec<(i64, String, String)>,
}

impl Registry {
    /// Adds whoever registered, unless the line makes no sense or is known.
    fn add(&mut self, kv: &KeyValue) {
        let key = String::from_utf8_lossy(&kv.key).trim().to_owned();
        let line = String::from_utf8_lossy(&kv.value).trim().to_owned();
        if !line.contains('=') {
            tracing::warn!(key, line, "invalid peer info returned from discovery service");
            return;
        }
        if self.members.iter().any(|(_, known, _)| *known == key) {
            tracing::warn!(key, line, "found duplicate peer from discovery service");
            return;
        }
        tracing::info!(key, line, "found peer from discovery service");
        self.members.push((kv.create_revision, key, line));
        self.members.sort();
    }

    /// Whether there is a place for the member with this key.
    fn has_place(&self, key: &str, size: usize) -> bool {
        self.members.iter().position(|(_, known, _)| known == key).unwrap_or(self.members.len())
            < size
    }

    /// The first `size` of them.
    fn cluster(&self, size: usize) -> Result<String, DiscoveryError> {
        let lines: Vec<&str> =
            self.members.iter().take(size).map(|(_, _, line)| line.as_str()).collect();
        let cluster = lines.join(",");
        InitialCluster::parse(&cluster).map_err(|_| DiscoveryError::InvalidUrl)?;
        Ok(cluster)
    }
}

/// What is asked of the service.
struct Desk<'a> {
    service: &'a DiscoveryService,
    channel: Channel,
    prefix: String,
    own_key: String,
    token: Option<String>,
    attempts: u32,
}

impl<'a> Desk<'a> {
    fn new(service: &'a DiscoveryService, member_id: u64) -> Result<Self, DiscoveryError> {
        let endpoints = service.endpoints.iter().map(|endpoint| {
            let url = match endpoint.contains("://") {
                true => endpoint.clone(),
                false => format!("http://{endpoint}"),
            };
            let wrong = |error: tonic::transport::Error| {
                DiscoveryError::Endpoint(endpoint.clone(), error.to_string())
            };
            Ok(Endpoint::from_shared(url)
                .map_err(wrong)?
                .connect_timeout(service.dial_timeout)
                .http2_keep_alive_interval(service.keepalive_time)
                .keep_alive_timeout(service.keepalive_timeout)
                .keep_alive_while_idle(true))
        });
        let endpoints = endpoints.collect::<Result<Vec<_>, DiscoveryError>>()?;
        let prefix = format!("/_etcd/registry/{}", service.token);
        let own_key = format!("{prefix}/members/{member_id:x}");
        let channel = Channel::balance_list(endpoints.into_iter());
        Ok(Self { service, channel, prefix, own_key, token: None, attempts: 0 })
    }

    async fn join(&mut self, line: &str) -> Result<String, DiscoveryError> {
        self.check().await?;
        self.register(line).await;
        let (mut registry, size, revision) = self.check().await?;
        if registry.members.len() < size {
            self.wait_for_others(&mut registry, size, revision).await;
        }
        registry.cluster(size)
    }

    /// Who is there, how many there are to be, and at which revision that was so.
    async fn check(&mut self) -> Result<(Registry, usize, i64), DiscoveryError> {
        loop {
            match self.look().await {
                Ok((registry, size, revision)) => {
                    self.attempts = 0;
                    if !registry.has_place(&self.own_key, size) {
                        return Err(DiscoveryError::Full);
                    }
                    return Ok((registry, size, revision));
                }
                Err(DiscoveryError::Service(status)) => {
                    self.back_off("cluster status check", &status).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn look(&mut self) -> Result<(Registry, usize, i64), DiscoveryError> {
        let size = self.range(format!("{}/_config/size", self.prefix), false).await?;
        let size = size.kvs.first().ok_or(DiscoveryError::SizeNotFound)?;
        let size = std::str::from_utf8(&size.value).ok().and_then(|text| parse_int(text).ok());
        let size = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
        let size = size.ok_or(DiscoveryError::BadSizeKey)?;
        let members = self.range(format!("{}/members", self.prefix), true).await?;
        let mut registry = Registry::default();
        members.kvs.iter().for_each(|kv| registry.add(kv));
        Ok((registry, size, members.header.map_or(0, |header| header.revision)))
    }

    async fn register(&mut self, line: &str) {
        while let Err(status) = self.put(line).await {
            self.back_off("register member itself", &status).await;
        }
        self.attempts = 0;
        tracing::info!(key = self.own_key, line, "register member itself successfully");
    }

    /// Follows the registry until there are enough.
    async fn wait_for_others(&mut self, registry: &mut Registry, size: usize, revision: i64) {
        let mut next = revision + 1;
        while registry.members.len() < size {
            let found = registry.members.len();
            tracing::info!(size, found, "waiting for peers from discovery service");
            if let Err(status) = self.watch(registry, size, &mut next).await {
                self.back_off("watch for peers", &status).await;
            }
        }
        tracing::info!(size, "found all needed peers from discovery service");
    }

    async fn watch(
        &mut self,
        registry: &mut Registry,
        size: usize,
        next: &mut i64,
    ) -> Result<(), Status> {
        let prefix = format!("{}/members", self.prefix);
        let create = WatchCreateRequest {
            range_end: past(&prefix).into(),
            key: prefix.into(),
            start_revision: *next,
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The stream of requests stays open: its end would be the watch's.
        let requests = futures::stream::iter([create]).chain(futures::stream::pending());
        let request = self.signed(requests).await?;
        let mut answers = WatchClient::new(self.channel.clone()).watch(request).await?.into_inner();
        while registry.members.len() < size {
            let Some(answer) = answers.message().await? else { return Ok(()) };
            if answer.canceled {
                return Err(Status::unavailable(answer.cancel_reason));
            }
            let puts = answer.events.iter().filter(|event| event.r#type() == EventType::Put);
            puts.filter_map(|event| event.kv.as_ref()).for_each(|kv| registry.add(kv));
            *next = answer.header.map_or(*next, |header| header.revision + 1).max(*next);
            self.attempts = 0;
        }
        Ok(())
    }

    async fn range(&mut self, key: String, below: bool) -> Result<RangeResponse, Status> {
        let range_end = if below { past(&key) } else { Vec::new() };
        let range =
            RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() };
        let request = self.signed(range).await?;
        let mut client = KvClient::new(self.channel.clone());
        Ok(in_time(self.service, client.range(request)).await?.into_inner())
    }

    async fn put(&mut self, line: &str) -> Result<(), Status> {
        let (key, value) = (self.own_key.clone().into(), line.to_owned().into());
        let request = self.signed(PutRequest { key, value, ..PutRequest::default() }).await?;
        let mut client = KvClient::new(self.channel.clone());
        in_time(self.service, client.put(request)).await.map(|_| ())
    }

    /// A request in the name of the configured user.
    async fn signed<T>(&mut self, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        if let Some((name, password)) = &self.service.credentials
            && self.token.is_none()
        {
            let (name, password) = (name.clone(), password.clone());
            let mut client = AuthClient::new(self.channel.clone());
            let asked = client.authenticate(AuthenticateRequest { name, password });
            self.token = Some(in_time(self.service, asked).await?.into_inner().token);
        }
        if let Some(token) = &self.token {
            let token = token.parse().map_err(|_| Status::internal("a token is no header"))?;
            request.metadata_mut().insert("token", token);
        }
        Ok(request)
    }

    async fn back_off(&mut self, step: &str, status: &Status) {
        // A token may have ended; the next attempt asks for another.
        self.token = None;
        self.attempts += 1;
        let pause = Duration::from_secs(1 << self.attempts.min(DOUBLINGS_MAX));
        tracing::warn!(
            { reason = step, backoff = ?pause, error = status.message() },
            "retry connecting to discovery service"
        );
        tokio::time::sleep(pause).await;
    }
}

async fn in_time<T>(
    service: &DiscoveryService,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::time::timeout(service.request_timeout, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded")))
}

/// The end of the range of all keys that begin with `prefix`, which does not end in 0xff.
fn past(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(revision: i64, key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            create_revision: revision,
            ..KeyValue::default()
        }
    }

    #[test]
    fn whoever_registers_first_is_in() {
        let mut registry = Registry::default();
        registry.add(&kv(9, "/m/c", "c=http://c:1"));
        registry.add(&kv(7, "/m/a", "a=http://a:1,a=http://a:2"));
        registry.add(&kv(8, "/m/b", " b=http://b:1\n"));
        registry.add(&kv(10, "/m/a", "a=http://other:1"));
        registry.add(&kv(11, "/m/d", "nonsense"));
        assert_eq!(registry.cluster(2).unwrap(), "a=http://a:1,a=http://a:2,b=http://b:1");
        assert!(registry.has_place("/m/b", 2) && !registry.has_place("/m/c", 2));
        assert!(registry.has_place("/m/new", 4) && !registry.has_place("/m/new", 3));
    }

    #[test]
    fn what_is_no_url_is_no_cluster() {
        let mut registry = Registry::default();
        registry.add(&kv(1, "/m/a", "a=nowhere"));
        let error = registry.cluster(1).unwrap_err();
        assert_eq!(error.to_string(), "discovery: invalid peer URL");
    }

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(past("/_etcd/registry/t/members"), b"/_etcd/registry/t/membert");
    }
}
