//! What one server does in one turn: fresh directory, start, work, stop.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::catch_up::CatchUp;
use super::cluster::Cluster;
use super::contender::Contender;
use super::failover::Failover;
use super::figures::{Figure, Figures, Row};
use super::server::Server;
use super::summary::EMPTY_CALL;
use super::watches::WatchWork;
use crate::cli::{CompareArgs, default_threads};
use crate::driver::{Pace, Plan, Work, measure};
use crate::error::LoadError;
use crate::grpc::Endpoint;
use crate::keys::{KeySpace, Order, Values};
use crate::report::Report;
use crate::work::empty::EmptyWork;
use crate::work::fill::{fill, prefill};
use crate::work::mixed::MixedWork;
use crate::work::put::PutWork;
use crate::work::range::{RangeWork, Shape};
use crate::work::txn::{self, TxnWork};

/// Size of a key.
pub(super) const KEY_BYTES: usize = 8;
/// Size of a value.
pub(super) const VALUE_BYTES: usize = 256;
/// Keys of a work, unless its name says otherwise.
pub(super) const KEYS: u64 = 10_000;
/// Keys that are read in pages.
const PAGED_KEYS: u64 = 100_000;
/// Keys a page.
const PAGE_KEYS: u32 = 1000;
/// Clients that read pages or count.
const SCAN_CLIENTS: usize = 8;
/// Clients that fill.
pub(super) const FILL_CLIENTS: usize = 256;
/// How long calls and events are waited for at the end.
pub(super) const DRAIN: Duration = Duration::from_secs(30);

/// What all works of a comparison have in common.
#[derive(Debug)]
pub(super) struct Bench {
    connections: usize,
    threads: usize,
    seconds: Duration,
    warmup: Duration,
    /// Members of each server.
    pub(super) members: usize,
    /// Calls a second beside an event whose effect on them is measured.
    pub(super) rate: f64,
    /// Data directories are made in here.
    pub(super) parent: PathBuf,
}

impl Bench {
    /// From the command line.
    ///
    /// # Errors
    /// When the directory is not there and cannot be made.
    pub(super) fn new(args: &CompareArgs) -> Result<Self, LoadError> {
        let path = args.dir.clone().unwrap_or_else(std::env::temp_dir);
        let parent = std::fs::create_dir_all(&path)
            .and_then(|()| path.canonicalize())
            .map_err(|source| LoadError::File { what: "cannot use the directory", path, source })?;
        Ok(Self {
            connections: args.connections.get(),
            threads: args.threads.map_or_else(default_threads, std::num::NonZeroUsize::get),
            seconds: args.seconds,
            warmup: args.warmup,
            members: args.members.get(),
            rate: args.rate,
            parent,
        })
    }

    fn fresh_dir(&self) -> Result<TempDir, LoadError> {
        let what = "cannot make a directory in";
        tempfile::Builder::new()
            .prefix("loadtest-")
            .tempdir_in(&self.parent)
            .map_err(|source| LoadError::File { what, path: self.parent.clone(), source })
    }

    /// The same number of connections to each of these servers, and as many as were asked for.
    pub(super) fn plan(&self, endpoints: Vec<Endpoint>, pids: Vec<u32>, clients: usize) -> Plan {
        Plan {
            connections: self.connections.next_multiple_of(endpoints.len().max(1)),
            endpoints,
            clients,
            threads: self.threads,
            pace: Pace::Closed,
            warmup: self.warmup,
            duration: self.seconds,
            total: None,
            drain: DRAIN,
            pids,
            progress: false,
            stop: None,
        }
    }

    /// The same for all members of a cluster.
    pub(super) fn cluster_plan(&self, cluster: &Cluster, clients: usize) -> Plan {
        self.plan(cluster.endpoints(), cluster.pids(), clients)
    }
}

/// What a server does between start and stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// One work.
    Small(SmallWork),
    /// Watchers.
    Watch(WatchWork),
    /// The works on many keys, one behind the other.
    Big(BigStage),
    /// The leader goes while others write.
    Failover(Failover),
    /// A member comes back that has fallen behind.
    CatchUp(CatchUp),
}

/// A work that has a server of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SmallWork {
    /// Puts.
    Put { clients: usize },
    /// Gets.
    Get { clients: usize, serializable: bool },
    /// Transactions as Kubernetes writes.
    Txn { clients: usize },
    /// Nine linearizable gets to one put.
    Mixed { clients: usize },
    /// Pages over many keys.
    Pages,
}

/// Works on many keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BigStage {
    /// Number of keys.
    pub(super) keys: u64,
    /// Report the filling.
    pub(super) fill: bool,
    /// Count all keys.
    pub(super) count: bool,
    /// Restart, after a kill and after a clean stop.
    pub(super) restart: bool,
}

impl Stage {
    /// Clients of a work that is compared with the empty call.
    pub(super) fn clients(&self) -> Option<usize> {
        match self {
            Self::Small(work) => work.clients(),
            Self::Watch(_) | Self::Big(_) | Self::Failover(_) | Self::CatchUp(_) => None,
        }
    }

    /// Runs it on a fresh directory.
    ///
    /// # Errors
    /// When the server does not start, stop or answer.
    pub(super) fn run(&self, contender: &Contender, bench: &Bench) -> Result<Vec<Row>, LoadError> {
        let dir = bench.fresh_dir()?;
        match self {
            Self::Small(work) => Ok(vec![work.run(contender, bench, dir.path())?]),
            Self::Watch(work) => Ok(vec![work.run(contender, bench, dir.path())?]),
            Self::Big(stage) => stage.run(contender, bench, dir.path()),
            Self::Failover(work) => Ok(vec![work.run(contender, bench, dir.path())?]),
            Self::CatchUp(work) => Ok(vec![work.run(contender, bench, dir.path())?]),
        }
    }
}

impl SmallWork {
    /// The name, as on the command line.
    pub(super) fn name(self) -> String {
        match self {
            Self::Put { clients } => format!("put-{clients}"),
            Self::Get { clients, serializable: true } => format!("get-ser-{clients}"),
            Self::Get { clients, serializable: false } => format!("get-lin-{clients}"),
            Self::Txn { clients } => format!("txn-{clients}"),
            Self::Mixed { clients } => format!("mixed-{clients}"),
            Self::Pages => "pages".into(),
        }
    }

    fn clients(self) -> Option<usize> {
        match self {
            Self::Put { clients }
            | Self::Get { clients, .. }
            | Self::Txn { clients }
            | Self::Mixed { clients } => Some(clients),
            Self::Pages => None,
        }
    }

    fn run(self, contender: &Contender, bench: &Bench, dir: &Path) -> Result<Row, LoadError> {
        let mut cluster = Cluster::start(contender, bench.members, dir)?;
        let plan = bench.cluster_plan(&cluster, self.clients().unwrap_or(SCAN_CLIENTS));
        let report = Report { work: self.name(), ..self.measure(&plan, &cluster)? };
        let leader = cluster.member(cluster.leader()?)?.pid();
        let row = Row::of(&contender.name, &report, self.clients()).with_roles(&report, leader);
        cluster.terminate()?;
        Ok(row)
    }

    fn measure(self, plan: &Plan, cluster: &Cluster) -> Result<Report, LoadError> {
        let keys = if self == Self::Pages { PAGED_KEYS } else { KEYS };
        let space = KeySpace::new("", KEY_BYTES, keys, Order::Random)?;
        let values = Values::new(VALUE_BYTES);
        if !matches!(self, Self::Put { .. }) {
            prefill(&space, &values, plan)?;
            // Serializable reads find the keys on every member then.
            cluster.settle()?;
        }
        match self {
            Self::Put { .. } => report(&PutWork { space, values }, plan),
            Self::Get { serializable, .. } => report(&reads(space, Shape::Get, serializable), plan),
            Self::Pages => report(&reads(space, Shape::Pages { limit: PAGE_KEYS }, false), plan),
            Self::Txn { .. } => {
                let revisions = txn::learn(&space, plan)?;
                report(&TxnWork { space, values, revisions }, plan)
            }
            Self::Mixed { .. } => {
                report(&MixedWork { space, values, reads: 0.9, serializable: false }, plan)
            }
        }
    }
}

/// Runs a work that has no name yet.
pub(super) fn report<W: Work>(work: &W, plan: &Plan) -> Result<Report, LoadError> {
    Ok(Report::new("", &measure(work, plan)?))
}

fn reads(space: KeySpace, shape: Shape, serializable: bool) -> RangeWork {
    RangeWork { space, shape, serializable, keys_only: false }
}

impl BigStage {
    fn run(self, contender: &Contender, bench: &Bench, dir: &Path) -> Result<Vec<Row>, LoadError> {
        let space = KeySpace::new("", KEY_BYTES, self.keys, Order::Random)?;
        let mut cluster = Cluster::start(contender, bench.members, dir)?;
        let mut rows = Vec::new();
        let filled = self.fill(&space, contender, bench, &cluster, dir)?;
        if self.fill {
            rows.push(filled);
        }
        if self.count {
            let plan = bench.cluster_plan(&cluster, SCAN_CLIENTS);
            let counted = report(&reads(space, Shape::Count, false), &plan)?;
            rows.push(Row::of(&contender.name, &Report { work: "count".into(), ..counted }, None));
        }
        if self.restart {
            cluster.kill()?;
            cluster.start_all()?;
            rows.push(self.restarted("restart-kill", contender, &cluster)?);
            cluster.terminate()?;
            cluster.start_all()?;
            rows.push(self.restarted("restart-clean", contender, &cluster)?);
        }
        cluster.terminate()?;
        Ok(rows)
    }

    fn fill(
        self,
        space: &KeySpace,
        contender: &Contender,
        bench: &Bench,
        cluster: &Cluster,
        dir: &Path,
    ) -> Result<Row, LoadError> {
        let plan = bench.cluster_plan(cluster, FILL_CLIENTS);
        let filled = Report::new("fill", &fill(space, &Values::new(VALUE_BYTES), 1, &plan)?);
        let mut row = Row::of(&contender.name, &filled, None);
        row.figures.insert(Figure::DiskBytes, disk_bytes(dir)? as f64);
        Ok(row)
    }

    /// The row of a restart, when all keys are there again.
    fn restarted(
        self,
        work: &str,
        contender: &Contender,
        cluster: &Cluster,
    ) -> Result<Row, LoadError> {
        let memory = cluster.memory()?;
        let space = KeySpace::new("", KEY_BYTES, self.keys, Order::Random)?;
        let plan = Plan {
            endpoints: cluster.endpoints(),
            connections: 1,
            clients: 1,
            threads: 1,
            pace: Pace::Closed,
            warmup: Duration::ZERO,
            duration: DRAIN,
            total: Some(1),
            drain: DRAIN,
            pids: Vec::new(),
            progress: false,
            stop: None,
        };
        let counted = report(&reads(space, Shape::Count, false), &plan)?;
        let figures = Figures::from([
            (Figure::ReadySeconds, cluster.ready().as_secs_f64()),
            (Figure::PeakRssBytes, memory.rss_peak_bytes as f64),
            (Figure::AnonBytes, memory.anon_bytes as f64),
        ]);
        Ok(Row { figures, work: work.into(), ..Row::of(&contender.name, &counted, None) })
    }
}

/// The empty call with so many clients.
///
/// # Errors
/// When its server does not start or answer.
pub(super) fn run_empty(clients: usize, bench: &Bench) -> Result<Row, LoadError> {
    let dir = bench.fresh_dir()?;
    let server = Server::start_empty(dir.path())?;
    let measured = report(
        &EmptyWork,
        &bench.plan(vec![server.endpoint().clone()], vec![server.pid()], clients),
    )?;
    let named = Report { work: format!("empty-{clients}"), ..measured };
    let mut row = Row::of(EMPTY_CALL, &named, Some(clients));
    row.figures.remove(&Figure::WrittenBytes);
    server.terminate()?;
    Ok(row)
}

/// Bytes a directory takes on disk.
fn disk_bytes(dir: &Path) -> Result<u64, LoadError> {
    use std::os::unix::fs::MetadataExt;
    let failed = |source| LoadError::File { what: "cannot read", path: dir.to_owned(), source };
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // The server is running: what it has removed meanwhile takes no room.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        sum += metadata.blocks() * 512;
        if metadata.is_dir() {
            sum += disk_bytes(&entry.path())?;
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_directory_is_what_its_files_take() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/file"), vec![1; 100_000]).unwrap();
        let bytes = disk_bytes(dir.path()).unwrap();
        assert!((100_000..300_000).contains(&bytes), "{bytes}");
    }
}
