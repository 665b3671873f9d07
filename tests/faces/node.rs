//! A node in this process, and ways in.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::Arbiter;
use castd::grpc::FaceOptions;
use castd::server::{Endpoint, Listeners, ServerOptions, Serving, serve};
use castd_actors::cluster::{ClusterState, MemberInfo};
use castd_actors::compactor::{AutoCompaction, ScrubPace};
use castd_actors::company::{
    Begin, Company, CompanyConfig, MembershipRules, Running, WatchThreads, open, start,
};
use castd_actors::mvcc::SealPolicy;
use castd_actors::wal_writer::{Identity, WalOptions};
use castd_proto::etcdserverpb::kv_client::KvClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::Channel;

/// The node's member id.
pub const MEMBER: u64 = 7;

/// A node in this process, and a way in.
pub struct Node {
    pub serving: Serving,
    running: Running,
    arbiter: Arbiter,
    address: SocketAddr,
    pub channel: Channel,
    company: Company,
}

/// The only member of its cluster, serving.
pub async fn begin(dir: &Path, faces: FaceOptions) -> Node {
    let node = begin_closed(dir, faces).await;
    node.serving.open_gate();
    node
}

/// The same, at which calls wait.
pub async fn begin_closed(dir: &Path, faces: FaceOptions) -> Node {
    let node = begin_among(dir, faces, [own(false)]).await;
    node.company.read_index().await.unwrap();
    node
}

/// This node as a member.
pub fn own(is_learner: bool) -> MemberInfo {
    MemberInfo { id: MEMBER, name: "m".to_owned(), is_learner, ..MemberInfo::default() }
}

/// A member that is never there.
pub fn absent(id: u64) -> MemberInfo {
    let peer_urls = vec!["http://127.0.0.1:1".to_owned()];
    MemberInfo { id, name: format!("absent{id}"), peer_urls, ..MemberInfo::default() }
}

/// A node in a cluster of these members, at which calls wait.
pub async fn begin_among(
    dir: &Path,
    faces: FaceOptions,
    members: impl IntoIterator<Item = MemberInfo>,
) -> Node {
    let identity = Identity { cluster_id: 1, member_id: MEMBER };
    let members = members.into_iter().map(|member| (member.id, member)).collect();
    let bootstrap = ClusterState { members, ..ClusterState::default() };
    let registry = prometheus::Registry::new();
    let config = CompanyConfig {
        heartbeat: Duration::from_millis(100),
        election: Duration::from_millis(1000),
        pre_vote: true,
        campaign_at_once: true,
        rules: MembershipRules::default(),
        slow_apply: Duration::from_millis(100),
        snapshot_count: 10_000,
        catchup_entries: 5000,
        backlog_bytes_max: 128 << 20,
        seal: SealPolicy { log_bytes: u64::MAX, entries: u64::MAX },
        compaction: AutoCompaction::Off,
        scrub: ScrubPace { records: 1000, pause: Duration::from_millis(1) },
        watch_threads: WatchThreads::Own(std::num::NonZeroUsize::MIN.saturating_add(1)),
        watch_progress: Duration::from_secs(600),
        watch_fragment_bytes: 2 << 20,
        version: "3.7.1".to_owned(),
        registry: registry.clone(),
        fatal: Arc::new(|actor, what| panic!("{actor}: {what}")),
    };
    let wal = WalOptions { segment_bytes: 8 << 20, ..WalOptions::new(dir.join("wal")) };
    let opened =
        open(wal, &dir.join("snap"), identity, &Begin::Bootstrap(bootstrap), false).unwrap();
    let (company, running) = start(opened, &config).unwrap();
    let options = ServerOptions {
        faces,
        client: vec![Endpoint::Tcp(([127, 0, 0, 1], 0).into())],
        ..ServerOptions::default()
    };
    let listeners = Listeners::bind(&options).unwrap();
    let (_, address) = listeners.addresses()[0];
    let arbiter = Arbiter::new();
    let serving = serve(listeners, &company, &registry, &options, &[arbiter.handle()]).unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect().await.unwrap();
    Node { serving, running, arbiter, address, channel, company }
}

impl Node {
    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    pub async fn http(&self, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub async fn end(self) {
        self.serving.stop().await;
        self.running.stop();
        self.arbiter.stop();
        self.arbiter.join().unwrap();
    }
}
