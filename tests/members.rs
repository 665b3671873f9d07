//! Real members on loopback: they begin a cluster, join it, vote in it, and leave it.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use castd_proto::etcdserverpb::cluster_client::ClusterClient;
use castd_proto::etcdserverpb::kv_client::KvClient;
use castd_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    PutRequest, RangeRequest,
};
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const READY: &str = "ready to serve client requests";

/// Where a member is reached.
struct Place {
    name: String,
    peer: String,
    client: String,
}

/// Places for members, and their data.
struct Site {
    dir: TempDir,
    places: Vec<Place>,
}

impl Site {
    fn new(members: usize) -> Self {
        // All listeners are there until every port is known: no two are the same.
        let held: Vec<TcpListener> = (0..2 * members)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let url = |n: usize| format!("http://{}", held[n].local_addr().expect("it is bound"));
        let place = |n| Place { name: format!("m{n}"), peer: url(2 * n), client: url(2 * n + 1) };
        Self {
            dir: tempfile::tempdir().expect("a directory"),
            places: (0..members).map(place).collect(),
        }
    }

    /// Starts the member `n` of a cluster that is to have these members.
    fn start(&self, n: usize, members: &[usize], flags: &[&str]) -> Running {
        let data = self.dir.path().join(&self.places[n].name);
        self.start_with_data(n, members, &data, flags)
    }

    fn start_with_data(&self, n: usize, members: &[usize], data: &Path, flags: &[&str]) -> Running {
        let Place { name, peer, client } = &self.places[n];
        let part = |n: &usize| format!("{}={}", self.places[*n].name, self.places[*n].peer);
        let cluster: Vec<String> = members.iter().map(part).collect();
        let mut child = Command::new(env!("CARGO_BIN_EXE_castd"))
            .args(["--name", name, "--data-dir"])
            .arg(data)
            .args(["--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", &cluster.join(","), "--strict-reconfig-check=false"])
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built");
        let said = BufReader::new(child.stderr.take().expect("it is piped"));
        Running { child, said: Some(said) }
    }

    async fn cluster(&self, n: usize) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel(n).await)
    }

    async fn channel(&self, n: usize) -> Channel {
        let endpoint = Endpoint::from_shared(self.places[n].client.clone()).expect("a URL");
        endpoint.connect().await.expect("the member listens")
    }

    async fn members(&self, n: usize) -> Vec<Member> {
        let request = MemberListRequest { linearizable: true };
        let listed = self.cluster(n).await.member_list(request).await;
        listed.expect("members are listed").into_inner().members
    }

    async fn id(&self, asked: usize, n: usize) -> u64 {
        let members = self.members(asked).await;
        let found = members.iter().find(|member| member.peer_urls == [self.places[n].peer.clone()]);
        found.expect("it is a member").id
    }
}

/// A member's process, killed when dropped.
struct Running {
    child: Child,
    said: Option<BufReader<ChildStderr>>,
}

impl Running {
    /// Reads what the member says until it is ready; somebody has to read on.
    fn wait_until_ready(&mut self) {
        let mut said = self.said.take().expect("one waits once");
        let mut all = String::new();
        while !all.contains(READY) {
            let read = said.read_line(&mut all).expect("it writes text");
            assert!(read > 0, "the member ended:\n{all}");
        }
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    }

    /// What the member said until it ended, and how it did.
    fn wait_until_ended(mut self) -> (String, ExitStatus) {
        let mut all = String::new();
        if let Some(said) = &mut self.said {
            said.read_to_string(&mut all).expect("it writes text");
        }
        let status = self.child.wait().expect("it is our child");
        (all, status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn begin(site: &Site, members: &[usize]) -> Vec<Running> {
    let mut all: Vec<Running> = members.iter().map(|n| site.start(*n, members, &[])).collect();
    all.iter_mut().for_each(Running::wait_until_ready);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_joins_votes_and_another_member_leaves() {
    let site = Site::new(4);
    let mut all = begin(&site, &[0, 1, 2]);
    let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
    KvClient::new(site.channel(0).await).put(put).await.unwrap();

    let learner =
        MemberAddRequest { peer_urls: vec![site.places[3].peer.clone()], is_learner: true };
    let added = site.cluster(1).await.member_add(learner.clone()).await.unwrap().into_inner();
    let id = added.member.expect("the new member is told").id;
    assert_eq!(added.members.len(), 4);
    // Another URL beside it, since the same ones make the same id within a second.
    let urls = vec![learner.peer_urls[0].clone(), "http://127.0.0.1:1".to_owned()];
    let other = MemberAddRequest { peer_urls: urls, is_learner: false };
    let again = site.cluster(2).await.member_add(other).await.unwrap_err();
    assert_eq!(again.message(), "etcdserver: Peer URLs already exists");
    let mut cluster = site.cluster(2).await;
    let early = cluster.member_promote(MemberPromoteRequest { id }).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);
    assert!(early.message().ends_with("which is in sync with leader"), "{early}");

    let mut joined = site.start(3, &[0, 1, 2, 3], &["--initial-cluster-state", "existing"]);
    joined.wait_until_ready();
    // Of the three, at least two are no leader and have to ask it.
    cluster.member_promote(MemberPromoteRequest { id }).await.unwrap();
    let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    let found = KvClient::new(site.channel(3).await).range(range).await.unwrap().into_inner();
    assert_eq!(found.kvs[0].value, "v");

    let leaving = site.id(3, 0).await;
    let left = cluster.member_remove(MemberRemoveRequest { id: leaving }).await.unwrap();
    assert_eq!(left.into_inner().members.len(), 3);
    let (_, status) = all.remove(0).wait_until_ended();
    assert_eq!(status.code(), Some(0));
    let (said, status) = site.start(0, &[0, 1, 2], &[]).wait_until_ended();
    assert!(said.contains("the member has been permanently removed from the cluster"), "{said}");
    assert_eq!(status.code(), Some(1));
    let put = PutRequest { key: "k".into(), value: "w".into(), ..PutRequest::default() };
    KvClient::new(site.channel(3).await).put(put).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_or_unknown_may_not_begin_or_join() {
    let site = Site::new(3);
    let _all = begin(&site, &[0, 1]);
    // A member without its data would break what it promised; another port for it, since
    // the one that runs has its own.
    let empty = site.dir.path().join("empty");
    let flags = ["--listen-peer-urls", &site.places[2].peer];
    let (said, status) = site.start_with_data(1, &[0, 1], &empty, &flags).wait_until_ended();
    assert!(said.contains("has already been bootstrapped"), "{said}");
    assert_eq!(status.code(), Some(1));
    let existing = ["--initial-cluster-state", "existing"];
    let (said, status) = site.start(2, &[0, 1, 2], &existing).wait_until_ended();
    assert!(said.contains("member count is unequal"), "{said}");
    assert_eq!(status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_goes_on_alone_with_its_data() {
    let site = Site::new(2);
    let all = begin(&site, &[0, 1]);
    let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
    KvClient::new(site.channel(0).await).put(put).await.unwrap();
    drop(all);
    site.start(0, &[0, 1], &["--force-new-cluster"]).wait_until_ready();
    let mut alone = site.start(0, &[0, 1], &[]);
    alone.wait_until_ready();
    assert_eq!(site.members(0).await.len(), 1);
    let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    let found = KvClient::new(site.channel(0).await).range(range).await.unwrap().into_inner();
    assert_eq!(found.kvs[0].value, "v");
}
