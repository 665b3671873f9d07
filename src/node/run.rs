//! Start, service, stop.

use std::convert::Infallible;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle};
use castd_actors::compactor::{AutoCompaction, ScrubPace};
use castd_actors::company::{
    Begin, CompanyConfig, MembershipRules, OpenError, Running, StartError, WatchThreads, open,
    start,
};
use castd_actors::mvcc::SealPolicy;
use castd_actors::shared::FatalReport;
use castd_actors::wal_writer::{self, WalOptions};
use castd_actors::{ClusterState, Company, Identity};
use prometheus::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::begin::{Way, way};
use super::data_dir::{DataDir, DataDirError};
use super::descriptors;
use super::options::server_options;
use super::version;
use crate::config::{self, Config, Discovery, ETCD_VERSION};
use crate::logging::FATAL;
use crate::metrics::show_features;
use crate::server::{Listeners, Serving, serve};

/// Log and entries between two checkpoints: as much as a restart replays at most.
const SEAL: SealPolicy = SealPolicy { log_bytes: 64 << 20, entries: 500_000 };

/// Entries of the leader that wait for a slow disk or store, in bytes: what a member holds
/// for them in memory at most.
const BACKLOG_BYTES_MAX: u64 = 128 << 20;

/// What etcd calls the overhead of a message, in bytes: fragments begin there.
const MESSAGE_OVERHEAD_BYTES: u64 = 512 * 1024;

/// The pause before a member tries again to tell the cluster who it is.
const PUBLISH_PAUSE: Duration = Duration::from_millis(100);

/// How long a removed member goes on.
const REMOVAL_PAUSE: Duration = Duration::from_millis(200);

/// What handing over the lead may take beyond an election timeout.
const HAND_OVER_SLACK: Duration = Duration::from_millis(1500);

/// How long a former leader stays for those who have not heard yet, in heartbeats.
const HAND_OVER_HEARTBEATS: u32 = 2;

/// Why a member does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// What is on disk cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The company cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The configuration does not say how a new member begins.
    #[error("{0}")]
    Bootstrap(String),
    /// The data is of a member that the cluster has removed.
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    /// A URL cannot be listened at.
    #[error("{0}")]
    Listen(String),
    /// The process may open too few files.
    #[error("{0}")]
    Descriptors(String),
    /// A figure's name is taken.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The system refuses something else.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's word.
        source: std::io::Error,
    },
}

/// How a member's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to, by this signal.
    Signal(i32),
    /// It is no member of its cluster any more.
    Removed,
}

/// Runs a member until it is told to stop or is removed from its cluster.
///
/// # Errors
/// [`RunError`].
pub async fn run(config: Config) -> Result<Ended, RunError> {
    let mut signals = Signals::listen()?;
    let limit = descriptors::raise_limit();
    if config.memory_mlock {
        lock_memory()?;
    }
    let member_dir = config.member_dir();
    let mut options = server_options(&config).map_err(RunError::Listen)?;
    // Before anything is written or asked: who runs already has the ports, and what another
    // member asks waits until this one can say what it has on its disk.
    let listeners = Listeners::bind(&options).map_err(|e| RunError::Listen(e.to_string()))?;
    let _data_dir = tokio::select! {
        opened = DataDir::when_free(&config.data_dir, &member_dir) => opened?,
        signal = signals.next() => return Ok(Ended::Signal(signal)),
    };
    if config.enable_grpc_gateway {
        tracing::warn!("the JSON gateway is not built in yet: /v3 is not served");
    }
    let way = tokio::select! {
        way = find_way(&config, &listeners) => way?,
        signal = signals.next() => return Ok(Ended::Signal(signal)),
    };
    let registry = Registry::new();
    show_features(&registry, config.features.iter().copied())?;
    let (company, running) = start_company(&config, &registry, way)?;
    let members = company.view().cluster().members.len();
    options.max_connections =
        descriptors::connections(limit, members).map_err(RunError::Descriptors)?;
    let identity = company.identity();
    tracing::info!(
        { "local-member-id" = format!("{:x}", identity.member_id),
          "cluster-id" = format!("{:x}", identity.cluster_id),
          "client-connections-max" = options.max_connections.clients },
        "started member"
    );
    // Other members are served at once: without them there is no leader.
    let handles = network_arbiters(&running);
    let server = serve(listeners, &company, &registry, &options, &handles)?;
    let ended = tokio::select! {
        ended = end(&company, &mut signals) => ended,
        never = lead_in(&company, &config, &server) => match never {},
    };
    let served = server.is_open();
    stop(&company, server, running, ended, &config).await;
    match ended {
        // It was removed before this run.
        Ended::Removed if !served => Err(RunError::Removed),
        ended => Ok(ended),
    }
}

/// A new member's way to its cluster; `None` for one that has data.
async fn find_way(config: &Config, listeners: &Listeners) -> Result<Option<Way>, RunError> {
    if wal_writer::exists(&config.wal_dir()).map_err(OpenError::Wal)? {
        if config.discovery != Discovery::Static {
            tracing::warn!("discovery is ignored since cluster already initialized");
        }
        return Ok(None);
    }
    // Others who begin as well must not wait for each other.
    tokio::select! {
        way = way(config) => way.map(Some).map_err(RunError::Bootstrap),
        never = listeners.turn_members_away() => match never {},
    }
}

fn start_company(
    config: &Config,
    registry: &Registry,
    way: Option<Way>,
) -> Result<(Company, Running), RunError> {
    let mut wal =
        WalOptions { unsafe_no_fsync: config.unsafe_no_fsync, ..WalOptions::new(config.wal_dir()) };
    if let Ok(most) = usize::try_from(config.max_wals)
        && most > 0
    {
        wal.spare_segments = wal.spare_segments.min(most);
    }
    let has_data = way.is_none();
    let (identity, begin) = match way {
        Some(Way::Bootstrap(identity, cluster)) => (identity, Begin::Bootstrap(cluster)),
        Some(Way::Join(identity, cluster)) => (identity, Begin::Join(cluster)),
        // Whose data it is, the data itself says.
        None => {
            (Identity { cluster_id: 0, member_id: 0 }, Begin::Bootstrap(ClusterState::default()))
        }
    };
    // As in etcd, the flag is for a member that has something to begin it with.
    let force_new = config.force_new_cluster && has_data;
    if config.force_new_cluster && !has_data {
        tracing::warn!("--force-new-cluster is ignored: this member has no data yet");
    }
    let opened = open(wal, &config.snap_dir(), identity, &begin, force_new)?;
    version::check_served(&opened.cluster).map_err(RunError::Bootstrap)?;
    Ok(start(opened, &company_config(config, registry))?)
}

fn company_config(config: &Config, registry: &Registry) -> CompanyConfig {
    let fragment = config.max_request_bytes.saturating_add(MESSAGE_OVERHEAD_BYTES);
    let records = usize::try_from(config.compaction_batch_limit).unwrap_or(usize::MAX);
    CompanyConfig {
        heartbeat: config.heartbeat(),
        election: config.election_timeout(),
        pre_vote: config.pre_vote,
        campaign_at_once: config.initial_election_tick_advance,
        rules: MembershipRules {
            strict: config.strict_reconfig_check,
            max_learners: config.max_learners,
        },
        slow_apply: config.warning_apply_duration,
        snapshot_count: config.snapshot_count,
        catchup_entries: config.snapshot_catchup_entries,
        backlog_bytes_max: BACKLOG_BYTES_MAX,
        seal: SEAL,
        compaction: auto_compaction(config.auto_compaction),
        scrub: ScrubPace { records, pause: config.compaction_sleep_interval },
        watch_threads: watch_threads(),
        watch_progress: config.watch_progress_notify_interval,
        watch_fragment_bytes: usize::try_from(fragment).unwrap_or(usize::MAX),
        version: ETCD_VERSION.to_owned(),
        registry: registry.clone(),
        fatal: fatal(),
    }
}

fn auto_compaction(mode: config::AutoCompaction) -> AutoCompaction {
    match mode {
        config::AutoCompaction::Off => AutoCompaction::Off,
        config::AutoCompaction::Periodic(retention) => AutoCompaction::Periodic {
            retention_ms: u64::try_from(retention.as_millis()).unwrap_or(u64::MAX),
        },
        config::AutoCompaction::Revision(retention) => {
            AutoCompaction::Revision { retention: i64::try_from(retention).unwrap_or(i64::MAX) }
        }
    }
}

/// What a stateful actor's end means: the process's. The next start rebuilds
/// the state from disk.
fn fatal() -> FatalReport {
    Arc::new(|actor, reason| {
        tracing::error!(target: FATAL, actor, error = reason, "the member cannot go on");
        std::process::exit(1);
    })
}

/// From a member that runs to one that serves clients; then, for as long as it runs,
/// the watch over the cluster's version.
async fn lead_in(company: &Company, config: &Config, server: &Serving) -> Infallible {
    announce(company, config).await;
    server.open_gate();
    tracing::info!("ready to serve client requests");
    // Nobody listens where no service manager started us.
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    version::watch_over(company).await
}

/// Tells the cluster who we are, as often as it takes.
async fn announce(company: &Company, config: &Config) {
    let urls: Vec<String> =
        config.advertise_client_urls.iter().map(|url| url.as_str().to_owned()).collect();
    while let Err(error) = company.publish(&config.name, &urls).await {
        tracing::warn!(%error, "failed to publish local member to cluster; trying again");
        tokio::time::sleep(PUBLISH_PAUSE).await;
    }
    tracing::info!(
        { "cluster-id" = format!("{:x}", company.identity().cluster_id) },
        "published local member to cluster"
    );
    if company.view().cluster().members.len() == 1 {
        // Nobody else has to be asked, so clients need not see a cluster without one.
        version::look(company).await;
    }
}

/// What ends the member: a signal, or that it is none any more.
async fn end(company: &Company, signals: &mut Signals) -> Ended {
    tokio::select! {
        signal = signals.next() => Ended::Signal(signal),
        () = removal(company) => Ended::Removed,
    }
}

/// Returns when this member was removed from its cluster, a moment later: the others
/// may have to hear of it from here, and whoever asked for it.
async fn removal(company: &Company) {
    company.own_removal().await;
    tracing::warn!(error = %RunError::Removed, "server error");
    tracing::warn!("data-dir used by this member must be removed");
    tokio::time::sleep(REMOVAL_PAUSE).await;
}

/// Threads for the network: half of the cores, the other half is the company's.
/// With two cores or one, the network shares consensus' thread: a hop between
/// threads that wake each other costs more than the parallelism gains.
fn network_arbiters(running: &Running) -> Vec<ArbiterHandle> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    match cores {
        0..=2 => vec![running.core()],
        cores => (0..cores / 2).map(|_| Arbiter::new().handle()).collect(),
    }
}

/// Threads for the watch hub: one for every four cores. With two cores or one, it
/// shares consensus' thread with the network: a stream is woken there for a fraction
/// of what it costs from another thread.
fn watch_threads() -> WatchThreads {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    match cores {
        0..=2 => WatchThreads::Consensus,
        cores => WatchThreads::Own(NonZero::new(cores / 4).unwrap_or(NonZero::<usize>::MIN)),
    }
}

async fn stop(company: &Company, server: Serving, running: Running, ended: Ended, config: &Config) {
    if let Ended::Signal(signal) = ended {
        tracing::info!(signal, "received signal; shutting down");
    }
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    match ended {
        Ended::Signal(_) => {
            hand_over(company, config).await;
            server.stop().await;
        }
        // What clients still wait for here can never be answered.
        Ended::Removed => drop(server),
    }
    running.stop();
    tracing::info!("closed member");
}

/// Lets another member lead, while clients are still served, so that they need not wait
/// for an election.
async fn hand_over(company: &Company, config: &Config) {
    if !company.raft().is_leader || company.view().cluster().voters().count() < 2 {
        return;
    }
    tracing::info!("leadership transfer starting");
    let patience = config.election_timeout() + HAND_OVER_SLACK;
    match tokio::time::timeout(patience, company.transfer_leader(0)).await {
        Ok(Ok(())) => {
            tracing::info!("leadership transfer finished");
            // The others learn of the new leader with its first heartbeat. What they still
            // send here until then is passed on.
            tokio::time::sleep(HAND_OVER_HEARTBEATS * config.heartbeat()).await;
        }
        Ok(Err(error)) => tracing::warn!(%error, "leadership transfer failed"),
        Err(_) => tracing::warn!("leadership transfer took too long"),
    }
}

fn lock_memory() -> Result<(), RunError> {
    use rustix::mm::{MlockAllFlags, mlockall};
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)
        .map_err(|error| RunError::System { what: "lock memory", source: error.into() })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Others that would end the process if nobody listened, and are not meant for that:
    /// etcd goes on.
    _ignored: [Signal; 3],
}

impl Signals {
    fn listen() -> Result<Self, RunError> {
        let listen = |kind| {
            signal(kind).map_err(|source| RunError::System { what: "listen for signals", source })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            _ignored: [
                listen(SignalKind::user_defined1())?,
                listen(SignalKind::user_defined2())?,
                listen(SignalKind::alarm())?,
            ],
        })
    }

    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }
}
