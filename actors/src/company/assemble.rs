//! Who is in the company, and which edges lead from one to the other.
//!
//! [`assemble`] makes every actor with its mailboxes; nobody runs yet. What gives
//! them their turns is another matter: threads and arbiters in a member
//! ([`super::start`]), and one loop under a seed in the simulator.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;

use super::config::CompanyConfig;
use super::door::Company;
use super::members::PromotionMetrics;
use super::open::Opened;
use super::start::StartError;
use crate::apply_loop::{ApplyCore, ApplyEdges, ApplyLoop, ApplyMessage};
use crate::checkpointer::{
    CheckpointEvents, CheckpointMetrics, CheckpointerLink, CheckpointerOptions, Sealed, Sealer,
    StoreError, sealer,
};
use crate::compactor::{Compactor, CompactorEdges, CompactorMessage, Schedule};
use crate::lease_manager::{
    LeaseCore, LeaseEdges, LeaseManager, LeaseMessage, LeaseMetrics, LeaseSettings,
    RenewalSettings, Renewals,
};
use crate::mvcc::{Mvcc, MvccEdges, MvccMessage, MvccMetrics, View};
use crate::peer_transport::{
    PeerEdges, PeerMessage, PeerMetrics, PeerService, PeerSettings, PeerStatus, ServiceEdges,
};
use crate::proposer::Proposer;
use crate::raft_node::{
    RaftCompletion, RaftCore, RaftEdges, RaftInbound, RaftMessage, RaftMetrics, RaftNode,
    RaftSettings, RaftStatus,
};
use crate::shared::{
    Clock, Credits, FatalReport, Inlet, Outlet, Published, Switchboard, ThreadInlet, ThreadOutlet,
    request_timeout,
};
use crate::snapshot::Exporter;
use crate::wal_writer::{self, WalError, WalEvents, WalHandle, WalMetrics, WalWriter};
use crate::watch_hub::{HubEdges, HubMessage, HubMetrics, HubSettings, WatchDoor};

/// Requests inside the company at a time: etcd refuses when as many entries
/// are committed but not applied.
const REQUESTS_INSIDE: usize = 5000;
/// Bytes of those requests.
const BYTES_INSIDE: usize = 256 << 20;
/// Completions on their way to RaftNode: its windows and one seal.
const COMPLETIONS: usize = 256;
/// Messages for a shard of the watch hub.
const HUB_MESSAGES: usize = 128;
/// Messages for Mvcc: the commit window, and questions from elsewhere.
const MVCC_MESSAGES: usize = 256;
/// Questions that may be with Mvcc at a time.
const QUESTIONS: usize = 32;
/// Messages for RaftNode from clients: proposals are counted by credits, and
/// reads wait for room.
const RAFT_REQUESTS: usize = 16_384;

/// When a read index that nobody confirmed is asked for again, as in etcd.
const READ_RETRY: Duration = Duration::from_millis(500);

/// Parcels from other members on their way to RaftNode; their senders wait for
/// room.
const RAFT_INBOUND: usize = 256;

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

/// The sending ends of all mailboxes.
struct Inlets {
    raft_requests: Inlet<RaftMessage>,
    raft_inbound: Inlet<RaftInbound>,
    completed: Inlet<RaftCompletion>,
    apply: Inlet<ApplyMessage>,
    mvcc: ThreadInlet<MvccMessage>,
    leases: Inlet<LeaseMessage>,
    hub: Vec<Inlet<HubMessage>>,
    watches: Vec<Inlet<HubMessage>>,
    compactor: Inlet<CompactorMessage>,
    peers: Inlet<PeerMessage>,
}

/// Their receiving ends.
struct Outlets {
    raft_requests: Outlet<RaftMessage>,
    raft_inbound: Outlet<RaftInbound>,
    completed: Outlet<RaftCompletion>,
    apply: Outlet<ApplyMessage>,
    mvcc: ThreadOutlet<MvccMessage>,
    leases: Outlet<LeaseMessage>,
    hub: Vec<(Outlet<HubMessage>, Outlet<HubMessage>)>,
    compactor: Outlet<CompactorMessage>,
    peers: Outlet<PeerMessage>,
}

fn mailboxes(board: &Switchboard, shards: usize) -> (Inlets, Outlets) {
    let (raft_requests, requests) = board.mailbox("raft_requests", RAFT_REQUESTS);
    let (raft_inbound, inbound) = board.mailbox("raft_inbound", RAFT_INBOUND);
    let (completed, completions) = board.mailbox("raft_completions", COMPLETIONS);
    let (apply, committed) = board.mailbox("apply_loop", 2 * crate::raft_node::COMMIT_WINDOW);
    let (mvcc, mvcc_messages) = board.thread_mailbox("mvcc", MVCC_MESSAGES);
    let (leases, lease_messages) = board.mailbox("lease_manager", 4096);
    let shard_mailboxes = |of: &str| -> (Vec<_>, Vec<_>) {
        let name = |shard| format!("watch_hub_{shard}_{of}");
        (0..shards).map(|shard| board.mailbox(name(shard), HUB_MESSAGES)).unzip()
    };
    let (hub, hub_events) = shard_mailboxes("events");
    let (watches, watch_requests) = shard_mailboxes("requests");
    let (compactor, compactor_messages) = board.mailbox("compactor", 4);
    let (peers, peer_messages) = board.mailbox("peer_transport", 1024);
    let inlets = Inlets {
        raft_requests,
        raft_inbound,
        completed,
        apply,
        mvcc,
        leases,
        hub,
        watches,
        compactor,
        peers,
    };
    let outlets = Outlets {
        raft_requests: requests,
        raft_inbound: inbound,
        completed: completions,
        apply: committed,
        mvcc: mvcc_messages,
        leases: lease_messages,
        hub: hub_events.into_iter().zip(watch_requests).collect(),
        compactor: compactor_messages,
        peers: peer_messages,
    };
    (inlets, outlets)
}

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
    let Opened { identity, store, cluster, applied, applied_term, log, .. } = opened;
    let registry = &config.registry;
    let board = Switchboard::default();
    let fatal = &config.fatal;
    let (inlets, outlets) = mailboxes(&board, config.watch_threads.shards());
    let shown = Shown {
        view: Published::new(store.view(applied, applied_term, cluster.clone().into())),
        status: Published::new(RaftStatus::default()),
        reachable: Published::new(PeerStatus::default()),
    };
    let credits = Credits::new(REQUESTS_INSIDE, BYTES_INSIDE);
    let proposer = Proposer::new(inlets.raft_requests.clone(), credits, life.first_id);
    let questions = Arc::new(Semaphore::new(QUESTIONS));

    let (wal_handle, wal) = wal_writer::writer(
        opened.wal,
        2 * crate::raft_node::APPEND_WINDOW + 2,
        WalToRaft { raft: inlets.completed.clone(), fatal: FatalReport::clone(fatal) },
        WalMetrics::new(registry)?,
    );
    let (checkpointer, sealer) = sealer(
        opened.checkpoints,
        Box::new(SealToMvcc { mvcc: inlets.mvcc.clone(), fatal: FatalReport::clone(fatal) }),
        CheckpointMetrics::register(registry)?,
        &CheckpointerOptions::default(),
    );
    let mvcc = Mvcc::new(
        identity,
        store,
        shown.view.clone(),
        MvccEdges {
            raft: inlets.completed.clone(),
            leases: inlets.leases.clone(),
            hub: inlets.hub.clone(),
            checkpointer: checkpointer.clone(),
        },
        config.seal,
        config.slow_apply,
        MvccMetrics::new(registry)?,
    );
    let raft_edges = RaftEdges {
        wal: wal_handle.clone(),
        apply: inlets.apply.clone(),
        peers: inlets.peers.clone(),
        reachable: shown.reachable.clone(),
        status: shown.status.clone(),
        metrics: RaftMetrics::new(registry)?,
    };
    let raft_node = RaftNode::new(
        RaftCore::new(raft_settings(config, life, identity.member_id, applied), log)?,
        raft_edges,
        config.heartbeat,
        outlets.raft_requests,
        outlets.raft_inbound,
        outlets.completed,
        FatalReport::clone(fatal),
    );
    let mut peer_settings =
        PeerSettings::new(identity, &config.version, config.heartbeat, config.election);
    peer_settings.max_request_bytes = config.max_request_bytes;
    let peer_metrics = PeerMetrics::new(registry)?;
    let peers = PeerParts {
        settings: peer_settings.clone(),
        edges: PeerEdges {
            raft: inlets.raft_inbound.clone(),
            transport: inlets.peers.clone(),
            status: shown.reachable.clone(),
            snapshots: Arc::new(Exporter::new(inlets.mvcc.clone(), Arc::clone(&questions))),
        },
        messages: outlets.peers,
        metrics: peer_metrics.clone(),
    };
    let told = inlets.peers.try_send(PeerMessage::Members(Arc::new(cluster.clone())));
    assert!(told.is_ok(), "a mailbox that nobody has used has room");
    let apply_edges = ApplyEdges {
        mvcc: inlets.mvcc.clone(),
        compactor: inlets.compactor.clone(),
        raft: inlets.completed.clone(),
        peers: inlets.peers.clone(),
    };
    let apply_loop = ApplyLoop::new(
        ApplyCore::new(cluster),
        apply_edges,
        outlets.apply,
        FatalReport::clone(fatal),
    );
    let lease_edges = LeaseEdges {
        proposer: proposer.clone(),
        raft: shown.status.clone(),
        raft_requests: inlets.raft_requests.clone(),
        peers: inlets.peers.clone(),
        own: inlets.leases.clone(),
    };
    let (lease_settings, renewal_settings) = lease_settings(config.election);
    let lease_manager = LeaseManager::new(
        LeaseCore::new(lease_settings, opened.leases, life.clock.now_ms()),
        Renewals::new(renewal_settings),
        lease_edges,
        life.clock.clone(),
        outlets.leases,
        LeaseMetrics::new(registry)?,
        FatalReport::clone(fatal),
    );
    let compactor = Compactor::new(
        Schedule::new(config.compaction, life.clock.now_ms()),
        config.scrub,
        CompactorEdges {
            proposer: proposer.clone(),
            mvcc: inlets.mvcc.clone(),
            view: shown.view.clone(),
            raft: shown.status.clone(),
        },
        life.clock.clone(),
        outlets.compactor,
    );
    let hub = HubParts {
        settings: HubSettings::new(
            identity.cluster_id,
            identity.member_id,
            config.watch_fragment_bytes,
        ),
        edges: HubEdges { view: shown.view.clone(), raft: shown.status.clone() },
        metrics: HubMetrics::new(registry)?,
        shards: outlets.hub,
    };
    let company = Company {
        identity,
        proposer,
        raft_requests: inlets.raft_requests,
        reads: None,
        mvcc: inlets.mvcc,
        leases: inlets.leases,
        watches: WatchDoor::new(inlets.watches),
        view: shown.view,
        status: shown.status,
        board,
        peer_requests: inlets.peers,
        peers: shown.reachable,
        rules: config.rules,
        promotions: PromotionMetrics::new(registry)?,
        lease_ttl_min_s: lease_ttl_min_s(config.election),
        request_timeout: request_timeout(config.election),
        questions,
        peer_service: None,
    };
    let service_edges = ServiceEdges {
        raft: inlets.raft_inbound,
        transport: company.peer_requests.clone(),
        view: company.view.clone(),
        questions: Arc::new(company.clone()),
        spool_dir: opened.snap_dir,
    };
    let service = PeerService::new(peer_settings, service_edges, peer_metrics);
    Ok(Assembled {
        company: Company { peer_service: Some(service), ..company },
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
