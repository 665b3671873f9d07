//! A member comes back that has missed much: how long it takes to catch up, and what clients
//! of the leader notice.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::ask::{self, block_on};
use super::cluster::Cluster;
use super::contender::Contender;
use super::figures::{Figure, Figures, Row};
use super::server::problem;
use super::stage::{Bench, DRAIN, FILL_CLIENTS, KEY_BYTES, KEYS, VALUE_BYTES, report};
use crate::driver::{Pace, Plan};
use crate::error::LoadError;
use crate::grpc::{CallError, Endpoint};
use crate::keys::{KeySpace, Order, Values};
use crate::report::Report;
use crate::work::fill::{fill, prefill};
use crate::work::mixed::MixedWork;

/// A member has caught up when its applied index is so close to the leader's.
const LAG_MAX: u64 = 1000;
/// The longest that may take.
const CATCH_UP_TIME_MAX: Duration = Duration::from_secs(600);
/// Between two looks at how far it is.
const POLL: Duration = Duration::from_millis(20);
/// The load runs for at least this long while the member catches up, or there are too few
/// calls for a 99th percentile.
const LOAD_TIME_MIN: Duration = Duration::from_secs(2);
/// Clients of the leader meanwhile: calls in flight at most.
const CLIENTS: usize = 64;
/// Share of reads in what they do.
const READS: f64 = 0.5;
/// What the keys start with that they read and write.
const PREFIX: &str = "c";

/// The work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CatchUp {
    /// Entries that the member misses.
    pub(super) entries: u64,
}

impl CatchUp {
    /// Runs it on fresh directories.
    ///
    /// # Errors
    /// When a member does not start, stop, answer, or catch up.
    pub(super) fn run(
        self,
        contender: &Contender,
        bench: &Bench,
        dir: &Path,
    ) -> Result<Row, LoadError> {
        let mut cluster = Cluster::start(contender, bench.members, dir)?;
        let leader = cluster.leader()?;
        let follower = (leader + 1) % cluster.size();
        let leads = cluster.member(leader)?.endpoint().clone();
        let work = MixedWork {
            space: KeySpace::new(PREFIX, KEY_BYTES, KEYS, Order::Random)?,
            values: Values::new(VALUE_BYTES),
            reads: READS,
            serializable: false,
        };
        let load = Plan {
            pace: Pace::Open { rate: bench.rate },
            ..bench.plan(vec![leads.clone()], Vec::new(), CLIENTS)
        };
        prefill(&work.space, &work.values, &load)?;
        cluster.member(follower)?.signal(Signal::TERM)?;
        cluster.await_end(follower)?;
        self.write_entries(&cluster, bench)?;
        let before = report(&work, &load)?;
        cluster.launch(follower)?;
        let follows = cluster.member(follower)?.endpoint().clone();
        let (during, caught_up) = meanwhile(&work, &load, &leads, &follows, contender)?;
        cluster.await_ready(follower)?;
        let row = self.row(&contender.name, &cluster, &before, &during, caught_up)?;
        cluster.terminate()?;
        Ok(row)
    }

    /// Writes what the member that is down is going to miss: an entry each key.
    fn write_entries(self, cluster: &Cluster, bench: &Bench) -> Result<(), LoadError> {
        let space = KeySpace::new("", KEY_BYTES, self.entries, Order::Sequential)?;
        let plan = bench.plan(cluster.endpoints(), Vec::new(), FILL_CLIENTS);
        let filled = fill(&space, &Values::new(VALUE_BYTES), 1, &plan)?;
        match filled.recorder.errors.into_iter().next() {
            None => Ok(()),
            Some((text, _)) => Err(LoadError::Usage(format!("cannot write the entries: {text}"))),
        }
    }

    fn row(
        self,
        server: &str,
        cluster: &Cluster,
        before: &Report,
        during: &Report,
        caught_up: Duration,
    ) -> Result<Row, LoadError> {
        let memory = cluster.memory()?;
        let figures = Figures::from([
            (Figure::P50Ms, during.latency.p50_ms),
            (Figure::P99Ms, during.latency.p99_ms),
            (Figure::P99BeforeMs, before.latency.p99_ms),
            (Figure::P99Growth, during.latency.p99_ms / before.latency.p99_ms.max(1e-3)),
            (Figure::PeakRssBytes, memory.rss_peak_bytes as f64),
            (Figure::CatchUpSeconds, caught_up.as_secs_f64()),
        ]);
        let faults = before.faults() + during.faults() + before.unsent + during.unsent;
        let row = Row::of(server, during, None);
        Ok(Row { work: format!("catch-up-{}", self.entries), figures, errors: faults, ..row })
    }
}

/// Runs the load on the leader until the follower, which has just been launched, has caught
/// up. Answers how long that took.
fn meanwhile(
    work: &MixedWork,
    load: &Plan,
    leader: &Endpoint,
    follower: &Endpoint,
    contender: &Contender,
) -> Result<(Report, Duration), LoadError> {
    let launched = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let plan = Plan {
        warmup: Duration::ZERO,
        duration: CATCH_UP_TIME_MAX + DRAIN,
        stop: Some(Arc::clone(&stop)),
        ..load.clone()
    };
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| report(work, &plan));
        let caught_up = block_on(await_level(leader, follower, contender));
        std::thread::sleep(LOAD_TIME_MIN.saturating_sub(launched.elapsed()));
        stop.store(true, Ordering::Relaxed);
        let during = loading.join().map_err(|_| LoadError::Thread)??;
        Ok((during, caught_up?.saturating_duration_since(launched)))
    })
}

/// Waits until the follower is level with the leader; answers when it was.
async fn await_level(
    leader: &Endpoint,
    follower: &Endpoint,
    contender: &Contender,
) -> Result<Instant, LoadError> {
    let deadline = Instant::now() + CATCH_UP_TIME_MAX;
    while Instant::now() < deadline {
        // A member that has not started yet does not answer.
        if lag(leader, follower).await.is_ok_and(|lag| lag <= LAG_MAX) {
            return Ok(Instant::now());
        }
        tokio::time::sleep(POLL).await;
    }
    Err(problem(&contender.name, &"a member does not catch up"))
}

/// Entries that the follower has not applied and the leader has.
async fn lag(leader: &Endpoint, follower: &Endpoint) -> Result<u64, CallError> {
    let behind = ask::status(follower).await?.raft_applied_index;
    let ahead = ask::status(leader).await?.raft_applied_index;
    Ok(ahead.saturating_sub(behind))
}
