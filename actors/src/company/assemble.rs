//! Who is in the company, and which edges lead from one to the other.
//!
//! [`assemble`] makes every actor with its mailboxes; nobody runs yet. What gives
//! them their turns is another matter: threads and arbiters in a member
//! ([`super::start`]), and one loop under a seed in the simulator.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::Registry;
use tokio::sync::Semaphore;

use super::config::CompanyConfig;
use super::door::Company;
use super::mailboxes::{Inlets, mailboxes};
use super::members::PromotionMetrics;
use super::open::Opened;
use crate::apply_loop::{ApplyCore, ApplyEdges, ApplyLoop, ApplyMessage};
use crate::checkpointer::{
    CheckpointEvents, CheckpointMetrics, CheckpointStore, CheckpointerLink, CheckpointerOptions,
    Sealed, Sealer, StoreError, sealer,
};
use crate::cluster::ClusterState;
use crate::compactor::{Compactor, CompactorEdges, CompactorMessage, Schedule};
use crate::lease_manager::{
    LeaseCore, LeaseEdges, LeaseManager, LeaseMessage, LeaseMetrics, LeaseSettings,
    RenewalSettings, Renewals,
};
use crate::mvcc::{Mvcc, MvccEdges, MvccMessage, MvccMetrics, Store, View};
use crate::peer_transport::{
    PeerEdges, PeerMessage, PeerMetrics, PeerService, PeerSettings, PeerStatus, ServiceEdges,
};
use crate::proposer::Proposer;
use crate::raft_node::{
    LogStore, RaftCompletion, RaftCore, RaftEdges, RaftInbound, RaftMessage, RaftMetrics, RaftNode,
    RaftSettings, RaftStatus,
};
use crate::shared::{
    Clock, Credits, FatalReport, Inlet, Outlet, Published, Switchboard, ThreadInlet, ThreadOutlet,
    request_timeout,
};
use crate::snapshot::Exporter;
use crate::wal_writer::{
    self, Identity, Wal, WalError, WalEvents, WalHandle, WalMetrics, WalWriter,
};
use crate::watch_hub::{HubEdges, HubMessage, HubMetrics, HubSettings, WatchDoor};

/// Requests inside the company at a time: etcd refuses when as many entries
/// are committed but not applied.
const REQUESTS_INSIDE: usize = 5000;
/// Bytes of those requests.
const BYTES_INSIDE: usize = 256 << 20;
/// Questions that may be with Mvcc at a time.
const QUESTIONS: usize = 32;
/// When a read index that nobody confirmed is asked for again, as in etcd.
const READ_RETRY: Duration = Duration::from_millis(500);

/// Why the company cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operating system refuses a thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// raft refuses its settings.
    #[error("raft cannot start: {0}")]
    Raft(#[from] raft::Error),
    /// A figure's name is taken.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What sets one run of a member apart from all others.
#[derive(Clone, Debug)]
pub struct Life {
    /// Above every id of a proposal or read that an earlier run can have used.
    pub first_id: u64,
    /// Chooses the election timeouts; members should not share one.
    pub seed: u64,
    /// The clock of leases and schedules.
    pub clock: Clock,
}

impl Life {
    /// A run that begins now. Ids are milliseconds since 1970 with room for a
    /// million proposals in each, so no later run can begin below where this one
    /// ends.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let first_id = u64::try_from(since.as_millis()).unwrap_or(0) << 20;
        Self { first_id, seed: rand::random(), clock: Clock::real() }
    }
}

/// A company whose actors wait for their first turn.
pub struct Assembled {
    /// The door.
    pub company: Company,
    /// Raft.
    pub raft_node: RaftNode,
    /// What committed entries mean.
    pub apply_loop: ApplyLoop,
    /// When leases end.
    pub lease_manager: LeaseManager,
    /// Gives up history.
    pub compactor: Compactor,
    /// The store.
    pub mvcc: Mvcc,
    /// Its mailbox.
    pub mvcc_messages: ThreadOutlet<MvccMessage>,
    /// The log on disk.
    pub wal: WalWriter<WalToRaft>,
    /// What keeps sealed copies of the state.
    pub sealer: Sealer,
    /// For the way to other members.
    pub peers: PeerParts,
    /// For the watch hub.
    pub hub: HubParts,
    /// The way to the log's thread.
    pub(super) wal_handle: WalHandle,
    /// The way to the checkpointer.
    pub(super) checkpointer: CheckpointerLink,
}

impl std::fmt::Debug for Assembled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assembled").field("company", &self.company).finish_non_exhaustive()
    }
}

/// What PeerTransport is made of.
pub struct PeerParts {
    /// How links behave.
    pub settings: PeerSettings,
    /// Whom it talks to.
    pub edges: PeerEdges,
    /// Its mailbox.
    pub messages: Outlet<PeerMessage>,
    /// Its figures.
    pub metrics: PeerMetrics,
}

/// What the watch hub is made of.
#[derive(Debug)]
pub struct HubParts {
    /// How it answers.
    pub settings: HubSettings,
    /// What it looks at.
    pub edges: HubEdges,
    /// Its figures.
    pub metrics: HubMetrics,
    /// For each shard the mailbox of what Mvcc sends and that of what clients ask.
    pub shards: Vec<(Outlet<HubMessage>, Outlet<HubMessage>)>,
}

/// RaftNode's mailboxes: requests, what comes from other members, completions.
type RaftOutlets = (Outlet<RaftMessage>, Outlet<RaftInbound>, Outlet<RaftCompletion>);

/// What actors show to everyone.
struct Shown {
    view: Published<View>,
    status: Published<RaftStatus>,
    reachable: Published<PeerStatus>,
}

/// Makes every actor over what was opened.
///
/// # Errors
/// [`StartError`].
pub fn assemble(
    opened: Opened,
    config: &CompanyConfig,
    life: &Life,
) -> Result<Assembled, StartError> {
    let Opened { identity, store, cluster, applied, applied_term, log, introduced, .. } = opened;
    let board = Switchboard::default();
    let (inlets, outlets) = mailboxes(&board, config.watch_threads.shards());
    let credits = Credits::new(REQUESTS_INSIDE, BYTES_INSIDE);
    let proposer = Proposer::new(inlets.raft_requests.clone(), credits, life.first_id);
    let shown = Shown {
        view: Published::new(store.view(applied, applied_term, cluster.clone().into())),
        status: Published::new(RaftStatus::default()),
        reachable: Published::new(PeerStatus::default()),
    };
    let questions = Arc::new(Semaphore::new(QUESTIONS));
    let cast = Cast { identity, config, life, inlets, shown, proposer, questions };

    let (wal_handle, wal) = cast.wal(opened.wal)?;
    let (checkpointer, sealer) = cast.sealer(opened.checkpoints)?;
    let mvcc = cast.mvcc(store, checkpointer.clone())?;
    let raft_outlets = (outlets.raft_requests, outlets.raft_inbound, outlets.completed);
    let raft_node = cast.raft_node(log, applied, wal_handle.clone(), raft_outlets)?;
    let lease_manager = cast.lease_manager(opened.leases, outlets.leases)?;
    let compactor = cast.compactor(outlets.compactor);
    let hub = cast.hub(outlets.hub)?;
    let peers = cast.peers(&cluster, outlets.peers)?;
    let apply_loop = cast.apply_loop(cluster, outlets.apply);
    let company = cast.company(board, &peers, introduced)?;
    Ok(Assembled {
        company,
        raft_node,
        apply_loop,
        lease_manager,
        compactor,
        mvcc,
        mvcc_messages: outlets.mvcc,
        wal,
        sealer,
        peers,
        hub,
        wal_handle,
        checkpointer,
    })
}

/// What every actor is made with: the edges to the others, and what is shown to all.
struct Cast<'a> {
    identity: Identity,
    config: &'a CompanyConfig,
    life: &'a Life,
    inlets: Inlets,
    shown: Shown,
    proposer: Proposer,
    /// Questions that may be with Mvcc at a time, whoever asks.
    questions: Arc<Semaphore>,
}

impl Cast<'_> {
    fn fatal(&self) -> FatalReport {
        FatalReport::clone(&self.config.fatal)
    }

    fn registry(&self) -> &Registry {
        &self.config.registry
    }

    fn wal(&self, wal: Wal) -> Result<(WalHandle, WalWriter<WalToRaft>), StartError> {
        let events = WalToRaft { raft: self.inlets.completed.clone(), fatal: self.fatal() };
        let metrics = WalMetrics::new(self.registry())?;
        Ok(wal_writer::writer(wal, 2 * crate::raft_node::APPEND_WINDOW + 2, events, metrics))
    }

    fn sealer(
        &self,
        checkpoints: Box<dyn CheckpointStore>,
    ) -> Result<(CheckpointerLink, Sealer), StartError> {
        let events = SealToMvcc { mvcc: self.inlets.mvcc.clone(), fatal: self.fatal() };
        let metrics = CheckpointMetrics::register(self.registry())?;
        Ok(sealer(checkpoints, Box::new(events), metrics, &CheckpointerOptions::default()))
    }

    fn mvcc(&self, store: Store, checkpointer: CheckpointerLink) -> Result<Mvcc, StartError> {
        let edges = MvccEdges {
            raft: self.inlets.completed.clone(),
            leases: self.inlets.leases.clone(),
            hub: self.inlets.hub.clone(),
            checkpointer,
        };
        Ok(Mvcc::new(
            self.identity,
            store,
            self.shown.view.clone(),
            edges,
            self.config.seal,
            self.config.slow_apply,
            MvccMetrics::new(self.registry())?,
        ))
    }

    fn raft_node(
        &self,
        log: LogStore,
        applied: u64,
        wal: WalHandle,
        (requests, inbound, completions): RaftOutlets,
    ) -> Result<RaftNode, StartError> {
        let settings = raft_settings(self.config, self.life, self.identity.member_id, applied);
        let edges = RaftEdges {
            wal,
            apply: self.inlets.apply.clone(),
            peers: self.inlets.peers.clone(),
            reachable: self.shown.reachable.clone(),
            status: self.shown.status.clone(),
            metrics: RaftMetrics::new(self.registry())?,
        };
        Ok(RaftNode::new(
            RaftCore::new(settings, log)?,
            edges,
            self.config.heartbeat,
            requests,
            inbound,
            completions,
            self.fatal(),
        ))
    }

    fn apply_loop(&self, cluster: ClusterState, messages: Outlet<ApplyMessage>) -> ApplyLoop {
        let edges = ApplyEdges {
            mvcc: self.inlets.mvcc.clone(),
            compactor: self.inlets.compactor.clone(),
            raft: self.inlets.completed.clone(),
            peers: self.inlets.peers.clone(),
        };
        ApplyLoop::new(ApplyCore::new(cluster), edges, messages, self.fatal())
    }

    fn lease_manager(
        &self,
        leases: Vec<(i64, i64, i64)>,
        messages: Outlet<LeaseMessage>,
    ) -> Result<LeaseManager, StartError> {
        let edges = LeaseEdges {
            proposer: self.proposer.clone(),
            raft: self.shown.status.clone(),
            raft_requests: self.inlets.raft_requests.clone(),
            peers: self.inlets.peers.clone(),
            own: self.inlets.leases.clone(),
        };
        let clock = &self.life.clock;
        let (lease_settings, renewal_settings) = lease_settings(self.config.election);
        Ok(LeaseManager::new(
            LeaseCore::new(lease_settings, leases, clock.now_ms()),
            Renewals::new(renewal_settings),
            edges,
            clock.clone(),
            messages,
            LeaseMetrics::new(self.registry())?,
            self.fatal(),
        ))
    }

    fn compactor(&self, messages: Outlet<CompactorMessage>) -> Compactor {
        let edges = CompactorEdges {
            proposer: self.proposer.clone(),
            mvcc: self.inlets.mvcc.clone(),
            view: self.shown.view.clone(),
            raft: self.shown.status.clone(),
        };
        let clock = &self.life.clock;
        let schedule = Schedule::new(self.config.compaction, clock.now_ms());
        Compactor::new(schedule, self.config.scrub, edges, clock.clone(), messages)
    }

    fn hub(
        &self,
        shards: Vec<(Outlet<HubMessage>, Outlet<HubMessage>)>,
    ) -> Result<HubParts, StartError> {
        let Identity { cluster_id, member_id } = self.identity;
        Ok(HubParts {
            settings: HubSettings::new(cluster_id, member_id, self.config.watch_fragment_bytes),
            edges: HubEdges { view: self.shown.view.clone(), raft: self.shown.status.clone() },
            metrics: HubMetrics::new(self.registry())?,
            shards,
        })
    }

    fn peers(
        &self,
        cluster: &ClusterState,
        messages: Outlet<PeerMessage>,
    ) -> Result<PeerParts, StartError> {
        let CompanyConfig { version, heartbeat, election, .. } = self.config;
        let settings = PeerSettings::new(self.identity, version, *heartbeat, *election);
        let exporter = Exporter::new(self.inlets.mvcc.clone(), Arc::clone(&self.questions));
        let told = self.inlets.peers.try_send(PeerMessage::Members(Arc::new(cluster.clone())));
        assert!(told.is_ok(), "a mailbox that nobody has used has room");
        Ok(PeerParts {
            settings,
            edges: PeerEdges {
                raft: self.inlets.raft_inbound.clone(),
                transport: self.inlets.peers.clone(),
                status: self.shown.reachable.clone(),
                snapshots: Arc::new(exporter),
            },
            messages,
            metrics: PeerMetrics::new(self.registry())?,
        })
    }

    fn company(
        self,
        board: Switchboard,
        peers: &PeerParts,
        introduced: BTreeMap<u64, Vec<String>>,
    ) -> Result<Company, StartError> {
        let promotions = PromotionMetrics::new(self.registry())?;
        let company = Company {
            identity: self.identity,
            proposer: self.proposer,
            raft_requests: self.inlets.raft_requests,
            reads: None,
            mvcc: self.inlets.mvcc,
            leases: self.inlets.leases,
            watches: WatchDoor::new(self.inlets.watches),
            view: self.shown.view,
            status: self.shown.status,
            board,
            peer_requests: self.inlets.peers,
            peers: self.shown.reachable,
            rules: self.config.rules,
            introduced: Arc::new(introduced),
            promotions,
            lease_ttl_min_s: lease_ttl_min_s(self.config.election),
            request_timeout: request_timeout(self.config.election),
            questions: self.questions,
            peer_service: None,
        };
        let edges = ServiceEdges {
            raft: self.inlets.raft_inbound,
            transport: company.peer_requests.clone(),
            view: company.view.clone(),
            questions: Arc::new(company.clone()),
        };
        let service = PeerService::new(peers.settings.clone(), edges, peers.metrics.clone());
        Ok(Company { peer_service: Some(service), ..company })
    }
}

fn lease_settings(election: Duration) -> (LeaseSettings, RenewalSettings) {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let election_ms = ms(election);
    let leases = LeaseSettings { promotion_grace_ms: election_ms, ..LeaseSettings::default() };
    let renewals = RenewalSettings {
        timeout_ms: ms(request_timeout(election)),
        confirm_ms: election_ms / 2,
        ..RenewalSettings::default()
    };
    (leases, renewals)
}

fn raft_settings(
    config: &CompanyConfig,
    life: &Life,
    member_id: u64,
    applied: u64,
) -> RaftSettings {
    let ticks = |time: Duration| {
        let ticks = time.as_nanos() / config.heartbeat.as_nanos().max(1);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    };
    RaftSettings {
        member_id,
        election_ticks: usize::try_from(ticks(config.election)).unwrap_or(usize::MAX),
        request_timeout_ticks: ticks(request_timeout(config.election)),
        backlog_bytes_max: config.backlog_bytes_max,
        read_retry_ticks: ticks(READ_RETRY).max(1),
        seed: life.seed,
        pre_vote: config.pre_vote,
        campaign_at_once: config.campaign_at_once,
        snapshot_count: config.snapshot_count,
        catchup_entries: config.catchup_entries,
        applied,
        run: life.first_id,
    }
}

/// A lease must outlive the election of a new leader: three halves of the
/// election timeout, in whole seconds.
fn lease_ttl_min_s(election: Duration) -> i64 {
    i64::try_from((election.as_millis() * 3).div_ceil(2000)).unwrap_or(i64::MAX)
}

/// Brings what the log has made durable to raft.
pub struct WalToRaft {
    raft: Inlet<RaftCompletion>,
    fatal: FatalReport,
}

impl WalEvents for WalToRaft {
    fn persisted(&mut self, ready_number: u64) {
        self.raft.send_blocking(RaftCompletion::Persisted { ready: ready_number });
    }

    fn failed(&mut self, error: WalError) {
        (self.fatal)("wal_writer", error.to_string());
    }
}

struct SealToMvcc {
    mvcc: ThreadInlet<MvccMessage>,
    fatal: FatalReport,
}

impl CheckpointEvents for SealToMvcc {
    fn sealed(&mut self, sealed: Sealed) {
        tracing::info!(
            applied_index = sealed.applied_index,
            took = ?sealed.took,
            bytes_written = sealed.bytes_written,
            volumes = sealed.volumes,
            "sealed a checkpoint"
        );
        self.mvcc.send_blocking(MvccMessage::Sealed(sealed));
    }

    fn failed(&mut self, error: StoreError) {
        (self.fatal)("checkpointer", error.to_string());
    }
}
