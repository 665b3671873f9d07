//! Start, service, stop.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle};
use castd_actors::Company;
use castd_actors::compactor::{AutoCompaction, ScrubPace};
use castd_actors::company::{Begin, CompanyConfig, OpenError, Running, StartError, open, start};
use castd_actors::mvcc::SealPolicy;
use castd_actors::shared::FatalReport;
use castd_actors::wal_writer::{self, WalOptions};
use prometheus::Registry;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::data_dir::{DataDir, DataDirError};
use super::identity::bootstrap;
use super::options::server_options;
use crate::config::{self, Config, ETCD_VERSION};
use crate::logging::FATAL;
use crate::metrics::show_features;
use crate::server::{Listeners, Serving, serve};

/// Log and entries between two checkpoints: as much as a restart replays at most.
const SEAL: SealPolicy = SealPolicy { log_bytes: 64 << 20, entries: 500_000 };

/// What etcd calls the overhead of a message, in bytes: fragments begin there.
const MESSAGE_OVERHEAD_BYTES: u64 = 512 * 1024;

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
    /// A URL cannot be listened at.
    #[error("{0}")]
    Listen(String),
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

/// Runs a member until it is told to stop; gives the signal that told it.
///
/// # Errors
/// [`RunError`].
pub async fn run(config: Config) -> Result<i32, RunError> {
    let mut signals = Signals::listen()?;
    if config.memory_mlock {
        lock_memory()?;
    }
    let _data_dir = DataDir::open(&config.data_dir, &config.member_dir())?;
    if config.enable_grpc_gateway {
        tracing::warn!("the JSON gateway is not built in yet: /v3 is not served");
    }
    let options = server_options(&config).map_err(RunError::Listen)?;
    let listeners = Listeners::bind(&options).map_err(|e| RunError::Listen(e.to_string()))?;
    let registry = Registry::new();
    show_features(&registry, config.features.iter().copied())?;
    let (company, running) = start_company(&config, &registry)?;
    let identity = company.identity();
    tracing::info!(
        { "local-member-id" = format!("{:x}", identity.member_id),
          "cluster-id" = format!("{:x}", identity.cluster_id) },
        "started member"
    );
    // Clients are served when the member can say who it is, as etcd does it.
    tokio::select! {
        () = announce(&company, &config) => {}
        signal = signals.next() => {
            running.stop();
            return Ok(signal);
        }
    }
    let handles = network_arbiters(&running);
    let server = serve(listeners, &company, &registry, &options, &handles)?;
    server.open_gate();
    tracing::info!("ready to serve client requests");
    // Nobody listens where no service manager started us.
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    let signal = signals.next().await;
    Ok(stop(server, running, signal).await)
}

fn start_company(config: &Config, registry: &Registry) -> Result<(Company, Running), RunError> {
    if !wal_writer::exists(&config.wal_dir()) {
        config.check_bootstrap().map_err(RunError::Bootstrap)?;
    }
    let (identity, cluster) = bootstrap(config);
    let mut wal =
        WalOptions { unsafe_no_fsync: config.unsafe_no_fsync, ..WalOptions::new(config.wal_dir()) };
    if let Ok(most) = usize::try_from(config.max_wals)
        && most > 0
    {
        wal.spare_segments = wal.spare_segments.min(most);
    }
    let opened = open(wal, &config.snap_dir(), identity, &Begin::Bootstrap(cluster), false)?;
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
        slow_apply: config.warning_apply_duration,
        snapshot_count: config.snapshot_count,
        catchup_entries: config.snapshot_catchup_entries,
        seal: SEAL,
        compaction: auto_compaction(config.auto_compaction),
        scrub: ScrubPace { records, pause: config.compaction_sleep_interval },
        watch_progress: config.watch_progress_notify_interval,
        watch_fragment_bytes: usize::try_from(fragment).unwrap_or(usize::MAX),
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

/// Tells the cluster who we are, as often as it takes.
async fn announce(company: &Company, config: &Config) {
    let urls: Vec<String> =
        config.advertise_client_urls.iter().map(|url| url.as_str().to_owned()).collect();
    let version = cluster_version();
    while let Err(error) = company.publish(&config.name, &urls, &version).await {
        tracing::warn!(%error, "failed to publish local member to cluster; trying again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tracing::info!(
        { "cluster-id" = format!("{:x}", company.identity().cluster_id), version },
        "published local member to cluster"
    );
}

/// The version all members understand has no patch number.
fn cluster_version() -> String {
    let minor = ETCD_VERSION.rsplit_once('.').map_or(ETCD_VERSION, |(minor, _)| minor);
    format!("{minor}.0")
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

async fn stop(server: Serving, running: Running, signal: i32) -> i32 {
    tracing::info!(signal, "received signal; shutting down");
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    server.stop().await;
    running.stop();
    tracing::info!("closed member");
    signal
}

fn lock_memory() -> Result<(), RunError> {
    use rustix::mm::{MlockAllFlags, mlockall};
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)
        .map_err(|error| RunError::System { what: "lock memory", source: error.into() })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, RunError> {
        let listen = |kind| {
            signal(kind).map_err(|source| RunError::System { what: "listen for signals", source })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }
}
