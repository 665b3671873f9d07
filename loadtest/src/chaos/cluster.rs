//! The cluster under test: its members, and what can be asked of them.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use castd_check::{Key, Problem, Value};
use castd_proto::etcdserverpb::{
    HashKvRequest, HashKvResponse, MemberAddRequest, MemberAddResponse, MemberListRequest,
    MemberListResponse, MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest,
    MemberRemoveResponse, MoveLeaderRequest, MoveLeaderResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, StatusRequest, StatusResponse,
};
use tokio::time::Instant;

use super::history::Lives;
use super::member::{Home, Keeper, Room};
use super::network::{self, Network};
use super::session::{Failure, Session};
use super::wire::{key_bytes, value_bytes};
use crate::error::LoadError;
use crate::grpc::Endpoint;

const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const HASH_KV: &str = "/etcdserverpb.Maintenance/HashKV";
const MOVE_LEADER: &str = "/etcdserverpb.Maintenance/MoveLeader";
const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const MEMBER_ADD: &str = "/etcdserverpb.Cluster/MemberAdd";
const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";
const MEMBER_REMOVE: &str = "/etcdserverpb.Cluster/MemberRemove";
const MEMBER_PROMOTE: &str = "/etcdserverpb.Cluster/MemberPromote";
/// How long a question about the cluster may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a change of the cluster may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(8);
/// Size of a large value: with its key less than the 1.5 MiB that are allowed.
const BULK_BYTES: usize = 1 << 20;
/// Between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Of a member's log, this much is shown when it fails.
const LOG_TAIL_LINES: usize = 6;
/// Of each of these lines.
const LOG_LINE_CHARS: usize = 400;

/// How members are to be started.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// The program.
    pub(crate) binary: PathBuf,
    /// Number of members.
    pub(crate) members: usize,
    /// Flags for all of them.
    pub(crate) args: Vec<String>,
    /// Whether they live in network namespaces.
    pub(crate) isolated: bool,
    /// Whether they have file systems of their own.
    pub(crate) own_disks: bool,
    /// The directory of the round.
    pub(crate) dir: PathBuf,
    /// Where chance starts.
    pub(crate) seed: u64,
}

/// One member.
#[derive(Debug)]
struct Member {
    keeper: Keeper,
    name: String,
    peer_url: String,
    client_url: String,
    /// Whether its process should be running.
    up: bool,
    /// Whether it may end by itself, being given reason to.
    may_end: bool,
    /// `new`, or `existing` once it was replaced.
    initial_state: &'static str,
}

/// The cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    recipe: Recipe,
    members: Vec<Member>,
    network: Option<Network>,
    endpoints: Rc<[Endpoint]>,
    lives: Lives,
}

impl Cluster {
    /// Makes the members' places and the network between them. With a network, the calling
    /// thread moves into a namespace of its own on it, for clients. Nothing is started yet.
    ///
    /// # Errors
    /// [`LoadError::Rights`] when namespaces are not allowed here.
    pub(crate) fn make(recipe: Recipe) -> Result<Self, LoadError> {
        let (mut members, mut devices) = (Vec::new(), Vec::new());
        for number in 0..recipe.members {
            let address = recipe.isolated.then(|| network::address(number));
            let [client_url, peer_url] = match address {
                Some(address) => [2379, 2380].map(|port| format!("http://{address}:{port}")),
                None => free_urls()?,
            };
            let name = format!("m{}", number + 1);
            let (dir, own_disk) = (recipe.dir.clone(), recipe.own_disks);
            let (keeper, device) =
                Keeper::new(Home { name: name.clone(), dir, address, own_disk })?;
            devices.extend(device);
            let (up, may_end, initial_state) = (false, false, "new");
            members.push(Member { keeper, name, peer_url, client_url, up, may_end, initial_state });
        }
        let network = match recipe.isolated {
            true => Some(connect(devices, recipe.members, recipe.seed)?),
            false => None,
        };
        let urls = members.iter().map(|member| member.client_url.parse());
        let endpoints: Result<Vec<Endpoint>, String> = urls.collect();
        let endpoints = endpoints.map_err(LoadError::Usage)?.into();
        let lives = Lives::new(recipe.members);
        Ok(Self { recipe, members, network, endpoints, lives })
    }

    /// Number of members.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Where clients reach the members.
    pub(crate) fn endpoints(&self) -> &Rc<[Endpoint]> {
        &self.endpoints
    }

    /// The members' processes, counted.
    pub(crate) fn lives(&self) -> &Lives {
        &self.lives
    }

    /// The network, if it is one of namespaces.
    pub(crate) fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// The member's name.
    pub(crate) fn name(&self, member: usize) -> &str {
        &self.members[member].name
    }

    /// Has a member's thread do something.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) async fn on<T: Send + 'static>(
        &self,
        member: usize,
        job: impl FnOnce(&mut Room) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, LoadError> {
        let result = self.members[member].keeper.run(job).await?;
        result.map_err(|error| self.problem(member, &error.to_string()))
    }

    /// Starts a member's process.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub(crate) async fn start(&mut self, member: usize) -> Result<(), LoadError> {
        let (binary, args) = (self.recipe.binary.clone(), self.args(member));
        self.lives.begin(member);
        self.on(member, move |room| room.start(&binary, &args)).await?;
        self.members[member].up = true;
        self.members[member].may_end = false;
        Ok(())
    }

    /// Starts every member that does not run.
    ///
    /// # Errors
    /// When one cannot be executed.
    pub(crate) async fn start_all(&mut self) -> Result<(), LoadError> {
        for member in 0..self.len() {
            if !self.on(member, |room| Ok(room.runs())).await? {
                self.start(member).await?;
            }
        }
        Ok(())
    }

    /// A member's process is about to be ended.
    pub(crate) fn expect_down(&mut self, member: usize) {
        self.members[member].up = false;
    }

    /// A member gets reason to end by itself, until it is started again.
    pub(crate) fn may_end(&mut self, member: usize) {
        self.members[member].may_end = true;
    }

    /// The member counts as a new one of an existing cluster from now on.
    pub(crate) fn joins_existing(&mut self, member: usize) {
        self.members[member].initial_state = "existing";
    }

    /// Looks whether members ended that should not have.
    ///
    /// # Errors
    /// When they cannot be observed.
    pub(crate) async fn unexpected_ends(&mut self) -> Result<Vec<Problem>, LoadError> {
        let mut problems = Vec::new();
        for member in 0..self.len() {
            let ended = self.on(member, Room::exited).await?;
            let Some(status) = ended.filter(|_| self.members[member].up) else { continue };
            self.members[member].up = false;
            if !self.members[member].may_end {
                let text = self.problem(member, &format!("ended by itself, {status}"));
                problems.push(Problem::new("members stay up", text.to_string()));
            }
        }
        Ok(problems)
    }

    /// Waits until every member answers a linearizable read; those that do not in time are
    /// answered.
    pub(crate) async fn await_ready(&self, time_max: Duration) -> Vec<usize> {
        let deadline = Instant::now() + time_max;
        let mut waiting: Vec<usize> = (0..self.len()).collect();
        while !waiting.is_empty() && Instant::now() < deadline {
            let mut still = Vec::new();
            for member in waiting {
                if self.revision(member).await.is_err() {
                    still.push(member);
                }
            }
            waiting = still;
            if !waiting.is_empty() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        waiting
    }

    /// The store's revision, as a linearizable read on a member tells it.
    ///
    /// # Errors
    /// When the member does not answer.
    pub(crate) async fn revision(&self, member: usize) -> Result<i64, Failure> {
        let request =
            RangeRequest { key: Bytes::from_static(b"ready?"), ..RangeRequest::default() };
        let answer: RangeResponse = self.ask(member, ASK_TIMEOUT, RANGE, &request).await?;
        let header = answer.header.ok_or_else(|| Failure::Wrong("no header".into()))?;
        Ok(header.revision)
    }

    /// Puts a key of the round through any member, and answers its revision: everything before
    /// it has been told to a watcher that has come to it.
    ///
    /// # Errors
    /// When no member takes it.
    pub(crate) async fn put_marker(&self, key: Key, value: Value) -> Result<i64, Failure> {
        let request =
            PutRequest { key: key_bytes(key), value: value_bytes(value), ..PutRequest::default() };
        let mut last = Failure::Unconnected;
        for member in 0..self.len() {
            match self.ask(member, CHANGE_TIMEOUT, PUT, &request).await {
                Ok(PutResponse { header: Some(header), .. }) => return Ok(header.revision),
                Ok(_) => last = Failure::Wrong("no header".into()),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    /// Puts a large value that nobody watches through a member.
    ///
    /// # Errors
    /// When the member does not take it.
    pub(crate) async fn put_bulk(&self, member: usize) -> Result<(), Failure> {
        let (key, value) = (Bytes::from_static(b"bulk"), Bytes::from(vec![b'x'; BULK_BYTES]));
        let request = PutRequest { key, value, ..PutRequest::default() };
        self.ask(member, ASK_TIMEOUT, PUT, &request).await.map(|_: PutResponse| ())
    }

    /// A digest of a member's store at a revision.
    ///
    /// # Errors
    /// When the member does not answer.
    pub(crate) async fn hash(&self, member: usize, revision: i64) -> Result<u32, Failure> {
        let request = HashKvRequest { revision };
        let answer: HashKvResponse = self.ask(member, CHANGE_TIMEOUT, HASH_KV, &request).await?;
        Ok(answer.hash)
    }

    /// The member that leads, if one says so itself.
    pub(crate) async fn leader(&self) -> Option<usize> {
        let mut best: Option<(u64, usize)> = None;
        for member in (0..self.len()).filter(|member| self.members[*member].up) {
            let Ok(status) = self.status(member).await else { continue };
            let own = status.header.as_ref().map_or(0, |header| header.member_id);
            if own != 0 && own == status.leader && best.is_none_or(|best| status.raft_term > best.0)
            {
                best = Some((status.raft_term, member));
            }
        }
        best.map(|(_, member)| member)
    }

    /// A member's id.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn id(&self, member: usize) -> Result<u64, Failure> {
        let header = self.status(member).await?.header;
        Ok(header.ok_or_else(|| Failure::Wrong("no header".into()))?.member_id)
    }

    async fn status(&self, member: usize) -> Result<StatusResponse, Failure> {
        self.ask(member, ASK_TIMEOUT, STATUS, &StatusRequest {}).await
    }

    /// Asks the leader to hand over.
    ///
    /// # Errors
    /// When it refuses or fails.
    pub(crate) async fn move_leader(&self, from: usize, to: u64) -> Result<(), Failure> {
        let request = MoveLeaderRequest { target_id: to };
        self.ask(from, CHANGE_TIMEOUT, MOVE_LEADER, &request).await.map(|_: MoveLeaderResponse| ())
    }

    /// Removes the member with that id, through another one.
    ///
    /// # Errors
    /// When it is refused or fails.
    pub(crate) async fn remove(&self, via: usize, id: u64) -> Result<(), Failure> {
        let request = MemberRemoveRequest { id };
        let answer = self.ask(via, CHANGE_TIMEOUT, MEMBER_REMOVE, &request).await;
        answer.map(|_: MemberRemoveResponse| ())
    }

    /// Adds a learner in a member's place, through another one; answers its id.
    ///
    /// # Errors
    /// When it is refused or fails.
    pub(crate) async fn add_learner(&self, via: usize, member: usize) -> Result<u64, Failure> {
        let peer_urls = vec![self.members[member].peer_url.clone()];
        let request = MemberAddRequest { peer_urls, is_learner: true };
        let answer: MemberAddResponse = self.ask(via, CHANGE_TIMEOUT, MEMBER_ADD, &request).await?;
        answer.member.map(|member| member.id).ok_or_else(|| Failure::Wrong("no member".into()))
    }

    /// The id of the member in a member's place, as another one knows it.
    ///
    /// # Errors
    /// When it is not known.
    pub(crate) async fn find(&self, via: usize, member: usize) -> Result<u64, Failure> {
        let request = MemberListRequest { linearizable: true };
        let answer: MemberListResponse = self.ask(via, ASK_TIMEOUT, MEMBER_LIST, &request).await?;
        let peer_url = &self.members[member].peer_url;
        let found = answer.members.iter().find(|other| other.peer_urls.contains(peer_url));
        found.map(|found| found.id).ok_or_else(|| Failure::Unknown("no such member".into()))
    }

    /// Makes a learner a voter.
    ///
    /// # Errors
    /// When it is refused (it may not have caught up yet) or fails.
    pub(crate) async fn promote(&self, via: usize, id: u64) -> Result<(), Failure> {
        let request = MemberPromoteRequest { id };
        let answer = self.ask(via, CHANGE_TIMEOUT, MEMBER_PROMOTE, &request).await;
        answer.map(|_: MemberPromoteResponse| ())
    }

    async fn ask<Q: prost::Message, A: prost::Message + Default>(
        &self,
        member: usize,
        time_max: Duration,
        path: &'static str,
        request: &Q,
    ) -> Result<A, Failure> {
        Session::new(&self.endpoints, member, time_max).call(path, request).await
    }

    /// The error of one member, with the end of its log.
    pub(crate) fn problem(&self, member: usize, what: &str) -> LoadError {
        let name = self.members[member].name.clone();
        let log = std::fs::read(self.recipe.dir.join(format!("{name}.log"))).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let mut problem = format!("{what}; the end of its log:");
        let skipped = log.lines().count().saturating_sub(LOG_TAIL_LINES);
        for line in log.lines().skip(skipped) {
            problem.push_str("\n    ");
            problem.extend(line.chars().take(LOG_LINE_CHARS));
        }
        LoadError::Server { server: name, problem }
    }

    fn args(&self, member: usize) -> Vec<String> {
        let Member { peer_url, client_url, initial_state, .. } = &self.members[member];
        let all = self.members.iter().map(|member| format!("{}={}", member.name, member.peer_url));
        let cluster = all.collect::<Vec<_>>().join(",");
        let mut args = Vec::new();
        for (flag, value) in [
            ("--listen-peer-urls", peer_url.as_str()),
            ("--initial-advertise-peer-urls", peer_url),
            ("--listen-client-urls", client_url),
            ("--advertise-client-urls", client_url),
            ("--initial-cluster", &cluster),
            ("--initial-cluster-token", "chaos"),
            ("--initial-cluster-state", initial_state),
        ] {
            args.extend([flag.to_owned(), value.to_owned()]);
        }
        args.extend(self.recipe.args.iter().cloned());
        args
    }
}

/// Puts the calling thread on the network of the members, as the node behind them.
fn connect(
    mut devices: Vec<std::fs::File>,
    clients: usize,
    seed: u64,
) -> Result<Network, LoadError> {
    let device = network::enter_namespace(network::address(clients));
    devices.push(device.map_err(|error| super::member::rights("a network namespace", error))?);
    Network::connect(devices, seed)
}

/// Two URLs on loopback ports that are free now.
fn free_urls() -> Result<[String; 2], LoadError> {
    let bind = || std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0));
    let failed = LoadError::Runtime;
    let listeners = [bind().map_err(failed)?, bind().map_err(failed)?];
    let mut urls = [String::new(), String::new()];
    for (url, listener) in urls.iter_mut().zip(&listeners) {
        *url = format!("http://{}", listener.local_addr().map_err(failed)?);
    }
    Ok(urls)
}
