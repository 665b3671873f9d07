//! Starting the company and ending it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix::{Actor, Arbiter, ArbiterHandle};
use prometheus::Registry;
use tokio::sync::Semaphore;

use super::door::Company;
use super::members::{MembershipRules, PromotionMetrics};
use super::open::Opened;
use crate::apply_loop::{ApplyCore, ApplyEdges, ApplyLoop};
use crate::checkpointer::{
    CheckpointEvents, CheckpointMetrics, Checkpointer, CheckpointerOptions, Sealed, StoreError,
};
use crate::compactor::{AutoCompaction, Compactor, CompactorEdges, Schedule, ScrubPace};
use crate::lease_manager::{
    LeaseCore, LeaseEdges, LeaseManager, LeaseMetrics, LeaseSettings, RenewalSettings, Renewals,
};
use crate::mvcc::{Mvcc, MvccEdges, MvccMessage, MvccMetrics, SealPolicy};
use crate::peer_transport::{
    PeerEdges, PeerMessage, PeerMetrics, PeerService, PeerSettings, PeerStatus, PeerTransport,
    ServiceEdges,
};
use crate::proposer::Proposer;
use crate::raft_node::{
    RaftCompletion, RaftCore, RaftEdges, RaftMetrics, RaftNode, RaftSettings, RaftStatus,
};
use crate::shared::{
    Credits, FatalReport, Inlet, Published, Switchboard, ThreadInlet, request_timeout, spawn_thread,
};
use crate::snapshot::Exporter;
use crate::wal_writer::{self, WalError, WalEvents, WalHandle, WalMessage, WalMetrics};
use crate::watch_hub::{HubEdges, HubMetrics, HubSettings, WatchDoor, WatchHub};

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

/// Where the shards of the watch hub run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchThreads {
    /// One shard, on the thread that carries consensus.
    Consensus,
    /// So many shards, each on a thread of its own.
    Own(NonZeroUsize),
}

impl WatchThreads {
    fn shards(self) -> usize {
        match self {
            Self::Consensus => 1,
            Self::Own(shards) => shards.get(),
        }
    }
}

/// How a member is to run.
#[derive(Clone)]
pub struct CompanyConfig {
    /// The heartbeat interval, which is raft's tick.
    pub heartbeat: Duration,
    /// The election timeout.
    pub election: Duration,
    /// Whether candidates ask first whether they could win.
    pub pre_vote: bool,
    /// Whether the only voter makes itself leader at once, without waiting for
    /// an election timeout.
    pub campaign_at_once: bool,
    /// Which changes of the membership are refused.
    pub rules: MembershipRules,
    /// A batch that takes longer to apply is logged.
    pub slow_apply: Duration,
    /// Applied entries in memory before the log there is compacted.
    pub snapshot_count: u64,
    /// Entries kept in memory when it is.
    pub catchup_entries: u64,
    /// When a checkpoint is due.
    pub seal: SealPolicy,
    /// Automatic compaction.
    pub compaction: AutoCompaction,
    /// The pace at which compaction frees what it gave up.
    pub scrub: ScrubPace,
    /// Where the watch hub runs.
    pub watch_threads: WatchThreads,
    /// How often silent watchers are told how far they are.
    pub watch_progress: Duration,
    /// Watch responses above this are sent in fragments to those who asked, in bytes.
    pub watch_fragment_bytes: usize,
    /// The version that other members are told, as `3.7.1`.
    pub version: String,
    /// The largest request of a client, in bytes.
    pub max_request_bytes: usize,
    /// Where figures are registered.
    pub registry: Registry,
    /// Told when the member cannot go on; must end the process.
    pub fatal: FatalReport,
}

impl std::fmt::Debug for CompanyConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompanyConfig").field("seal", &self.seal).finish_non_exhaustive()
    }
}

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

/// The running company. Dropping it does not end it: call [`Running::stop`].
#[derive(Debug)]
pub struct Running {
    core: Arbiter,
    hub: Vec<Arbiter>,
    wal: WalHandle,
    wal_thread: JoinHandle<()>,
    mvcc: ThreadInlet<MvccMessage>,
    mvcc_thread: JoinHandle<()>,
    checkpointer: Checkpointer,
}

impl Running {
    /// The arbiter that carries consensus, for faces that are to share its thread.
    pub fn core(&self) -> ArbiterHandle {
        self.core.handle()
    }

    /// Ends the company: nothing more is proposed, what was accepted is synced.
    /// What is given back may still be sealing a checkpoint. A process may end
    /// without waiting for it; who opens the same directory again in this
    /// process must [`Checkpointer::stop`] it first.
    pub fn stop(self) -> Checkpointer {
        // The arbiters end first, so that nobody sends any more.
        self.core.stop();
        self.hub.iter().for_each(|arbiter| {
            arbiter.stop();
        });
        let _ = self.core.join();
        for arbiter in self.hub {
            let _ = arbiter.join();
        }
        // A mailbox that is closed belongs to a thread that has ended already.
        let _ = self.mvcc.try_send(MvccMessage::Stop);
        let _ = self.wal.send(WalMessage::Stop);
        let _ = self.wal_thread.join();
        drop(self.mvcc);
        let _ = self.mvcc_thread.join();
        self.checkpointer
    }
}

/// Starts every actor over what was opened.
///
/// # Errors
/// [`StartError`].
pub fn start(opened: Opened, config: &CompanyConfig) -> Result<(Company, Running), StartError> {
    let zero = Instant::now();
    let Opened { identity, store, cluster, applied, applied_term, log, .. } = opened;
    let registry = &config.registry;
    let board = Switchboard::default();
    let fatal = FatalReport::clone(&config.fatal);

    let (raft_requests, requests) = board.mailbox("raft_requests", RAFT_REQUESTS);
    let (raft_inbound, inbound) = board.mailbox("raft_inbound", RAFT_INBOUND);
    let (completed, completions) = board.mailbox("raft_completions", COMPLETIONS);
    let (apply, committed) = board.mailbox("apply_loop", 2 * crate::raft_node::COMMIT_WINDOW);
    let (mvcc, mvcc_messages) = board.thread_mailbox("mvcc", MVCC_MESSAGES);
    let (leases, lease_messages) = board.mailbox("lease_manager", 4096);
    let shards = 0..config.watch_threads.shards();
    let (hub, hub_events): (Vec<_>, Vec<_>) = shards
        .clone()
        .map(|shard| board.mailbox(format!("watch_hub_{shard}_events"), HUB_MESSAGES))
        .unzip();
    let (watches, watch_requests): (Vec<_>, Vec<_>) = shards
        .map(|shard| board.mailbox(format!("watch_hub_{shard}_requests"), HUB_MESSAGES))
        .unzip();
    let (compactor, compactor_messages) = board.mailbox("compactor", 4);
    let (peers, peer_messages) = board.mailbox("peer_transport", 1024);

    let view = Published::new(store.view(applied, applied_term, cluster.clone().into()));
    let status = Published::new(RaftStatus::default());
    let credits = Credits::new(REQUESTS_INSIDE, BYTES_INSIDE);
    let proposer = Proposer::new(raft_requests.clone(), credits, first_id());

    let wal_events = WalToRaft { raft: completed.clone(), fatal: FatalReport::clone(&fatal) };
    let (wal, wal_thread) = wal_writer::spawn(
        opened.wal,
        2 * crate::raft_node::APPEND_WINDOW + 2,
        wal_events,
        WalMetrics::new(registry)?,
    )?;
    let seal_events = SealToMvcc { mvcc: mvcc.clone(), fatal: FatalReport::clone(&fatal) };
    let checkpointer = Checkpointer::start(
        opened.checkpoints,
        Box::new(seal_events),
        CheckpointMetrics::register(registry)?,
        &CheckpointerOptions::default(),
    )?;

    let mvcc_actor = Mvcc::new(
        identity,
        store,
        view.clone(),
        MvccEdges {
            raft: completed.clone(),
            leases: leases.clone(),
            hub,
            checkpointer: checkpointer.link(),
        },
        config.seal,
        config.slow_apply,
        MvccMetrics::new(registry)?,
    );
    let mvcc_thread = spawn_thread("mvcc", FatalReport::clone(&fatal), move || {
        mvcc_actor.run(&mvcc_messages);
    })?;

    let raft_core = RaftCore::new(raft_settings(config, identity.member_id, applied), log)?;
    let peer_requests = peers.clone();
    let reachable = Published::new(PeerStatus::default());
    let raft_edges = RaftEdges {
        wal: wal.clone(),
        apply,
        peers,
        reachable: reachable.clone(),
        status: status.clone(),
        metrics: RaftMetrics::new(registry)?,
    };
    let raft_node = RaftNode::new(
        raft_core,
        raft_edges,
        config.heartbeat,
        requests,
        inbound,
        completions,
        FatalReport::clone(&fatal),
    );
    let questions = Arc::new(Semaphore::new(QUESTIONS));
    let mut peer_settings =
        PeerSettings::new(identity, &config.version, config.heartbeat, config.election);
    peer_settings.max_request_bytes = config.max_request_bytes;
    let peer_edges = PeerEdges {
        raft: raft_inbound.clone(),
        transport: peer_requests.clone(),
        status: reachable.clone(),
        snapshots: Arc::new(Exporter::new(mvcc.clone(), Arc::clone(&questions))),
    };
    let peer_metrics = PeerMetrics::new(registry)?;
    let transport =
        PeerTransport::new(peer_settings.clone(), peer_edges, peer_messages, peer_metrics.clone());
    let members = PeerMessage::Members(Arc::new(cluster.clone()));
    let told = peer_requests.try_send(members);
    assert!(told.is_ok(), "a mailbox that nobody has used has room");
    let apply_loop = ApplyLoop::new(
        ApplyCore::new(cluster),
        ApplyEdges { mvcc: mvcc.clone(), compactor, raft: completed, peers: peer_requests.clone() },
        committed,
        FatalReport::clone(&fatal),
    );
    let election_ms = u64::try_from(config.election.as_millis()).unwrap_or(u64::MAX);
    let lease_settings =
        LeaseSettings { promotion_grace_ms: election_ms, ..LeaseSettings::default() };
    let renewal_settings = RenewalSettings {
        timeout_ms: u64::try_from(request_timeout(config.election).as_millis()).unwrap_or(u64::MAX),
        confirm_ms: election_ms / 2,
        ..RenewalSettings::default()
    };
    let lease_edges = LeaseEdges {
        proposer: proposer.clone(),
        raft: status.clone(),
        raft_requests: raft_requests.clone(),
        peers: peer_requests.clone(),
        own: leases.clone(),
    };
    let lease_manager = LeaseManager::new(
        LeaseCore::new(lease_settings, opened.leases, 0),
        Renewals::new(renewal_settings),
        lease_edges,
        zero,
        lease_messages,
        LeaseMetrics::new(registry)?,
        FatalReport::clone(&fatal),
    );
    let compactor_actor = Compactor::new(
        Schedule::new(config.compaction, 0),
        config.scrub,
        CompactorEdges {
            proposer: proposer.clone(),
            mvcc: mvcc.clone(),
            view: view.clone(),
            raft: status.clone(),
        },
        zero,
        compactor_messages,
    );
    let hub_settings =
        HubSettings::new(identity.cluster_id, identity.member_id, config.watch_fragment_bytes);
    let hub_edges = HubEdges { view: view.clone(), raft: status.clone() };
    let hub_metrics = HubMetrics::new(registry)?;

    let core_arbiter = Arbiter::new();
    PeerTransport::start_in_arbiter(&core_arbiter.handle(), move |_| transport);
    let progress = config.watch_progress;
    let mut hub_arbiters = Vec::new();
    for (shard, outlets) in hub_events.into_iter().zip(watch_requests).enumerate() {
        let (edges, metrics) = (hub_edges.clone(), hub_metrics.clone());
        let arbiter = match config.watch_threads {
            WatchThreads::Consensus => core_arbiter.handle(),
            WatchThreads::Own(_) => {
                hub_arbiters.push(Arbiter::new());
                hub_arbiters[shard].handle()
            }
        };
        WatchHub::start_in_arbiter(&arbiter, move |_| {
            WatchHub::new(shard, hub_settings, edges, progress, outlets, metrics)
        });
    }
    LeaseManager::start_in_arbiter(&core_arbiter.handle(), move |_| lease_manager);
    Compactor::start_in_arbiter(&core_arbiter.handle(), move |_| compactor_actor);
    ApplyLoop::start_in_arbiter(&core_arbiter.handle(), move |_| apply_loop);
    RaftNode::start_in_arbiter(&core_arbiter.handle(), move |_| raft_node);

    let company = Company {
        identity,
        proposer,
        raft_requests,
        reads: None,
        mvcc: mvcc.clone(),
        leases,
        watches: WatchDoor::new(watches),
        view,
        status,
        board,
        peer_requests,
        peers: reachable,
        rules: config.rules,
        promotions: PromotionMetrics::new(registry)?,
        lease_ttl_min_s: lease_ttl_min_s(config.election),
        request_timeout: request_timeout(config.election),
        questions,
        peer_service: None,
    };
    let service_edges = ServiceEdges {
        raft: raft_inbound,
        transport: company.peer_requests.clone(),
        view: company.view.clone(),
        questions: Arc::new(company.clone()),
        spool_dir: opened.snap_dir,
    };
    let service = PeerService::new(peer_settings, service_edges, peer_metrics);
    let company = Company { peer_service: Some(service), ..company };
    let running = Running {
        core: core_arbiter,
        hub: hub_arbiters,
        wal,
        wal_thread,
        mvcc,
        mvcc_thread,
        checkpointer,
    };
    Ok((company, running))
}

fn raft_settings(config: &CompanyConfig, member_id: u64, applied: u64) -> RaftSettings {
    let ticks = |time: Duration| {
        let ticks = time.as_nanos() / config.heartbeat.as_nanos().max(1);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    };
    RaftSettings {
        member_id,
        election_ticks: usize::try_from(ticks(config.election)).unwrap_or(usize::MAX),
        request_timeout_ticks: ticks(request_timeout(config.election)),
        read_retry_ticks: ticks(READ_RETRY).max(1),
        seed: rand::random(),
        pre_vote: config.pre_vote,
        campaign_at_once: config.campaign_at_once,
        snapshot_count: config.snapshot_count,
        catchup_entries: config.catchup_entries,
        applied,
        run: first_id(),
    }
}

/// Ids of this run: milliseconds since 1970 leave room for a million proposals
/// in each, so no later run can begin below where this one ends.
fn first_id() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0) << 20
}

/// A lease must outlive the election of a new leader: three halves of the
/// election timeout, in whole seconds.
fn lease_ttl_min_s(election: Duration) -> i64 {
    i64::try_from((election.as_millis() * 3).div_ceil(2000)).unwrap_or(i64::MAX)
}

struct WalToRaft {
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
