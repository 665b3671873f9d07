//! A run of watchers and putters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::oneshot;

use super::ledger::PutLog;
use super::putter::{Timing, WatchedPuts};
use super::stream::{Counters, Seen, Streams};
use crate::driver::{Measured, Plan, measure};
use crate::error::LoadError;
use crate::keys::KeySpace;
use crate::latency::{Latencies, LatencySummary};
use crate::report::Report;

/// How long the watchers may take to be confirmed.
const CREATE_TIME_MAX: Duration = Duration::from_secs(60);
/// How often the count of events is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The watchers of a run; the puts are the plan's.
#[derive(Debug, Clone)]
pub(crate) struct WatchOptions {
    /// Watchers, over all streams.
    pub(crate) watchers: usize,
    /// Streams, over all connections.
    pub(crate) streams: usize,
    /// Connections of the streams; the putters have their own.
    pub(crate) connections: usize,
    /// The watched keys: one for all, or as many as watchers.
    pub(crate) space: KeySpace,
    /// Size of a value.
    pub(crate) value_bytes: usize,
    /// How long after the last put its events are waited for.
    pub(crate) grace: Duration,
}

/// What the watchers saw.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct WatchReport {
    /// Watchers.
    pub(crate) watchers: usize,
    /// Streams.
    pub(crate) streams: usize,
    /// Watched keys.
    pub(crate) keys: u64,
    /// Until all watchers were confirmed.
    pub(crate) setup_seconds: f64,
    /// Events in the window.
    pub(crate) events: u64,
    /// Events a second.
    pub(crate) events_per_second: f64,
    /// From a put's sending to the arrival of its event.
    pub(crate) latency: LatencySummary,
    /// Server CPU, puts included, an event.
    pub(crate) server_cpu_us_per_event: Option<f64>,
    /// Generator CPU, puts included, an event.
    pub(crate) generator_cpu_us_per_event: f64,
    /// Events of acknowledged puts that never came, over the whole run.
    pub(crate) missing: u64,
    /// Events that came more than once.
    pub(crate) doubled: u64,
    /// Events that came after one of a later revision.
    pub(crate) disordered: u64,
    /// Events that no put of the run explains.
    pub(crate) foreign: u64,
    /// Broken streams and cancelled watchers, by reason.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl WatchReport {
    /// All that went wrong.
    pub(crate) fn faults(&self) -> u64 {
        let errors: u64 = self.errors.values().sum();
        self.missing + self.doubled + self.disordered + self.foreign + errors
    }
}

/// Opens the watchers, puts as `plan` says, waits for the events, and sums up. The report is
/// that of the puts, with the watchers' beside it.
///
/// # Errors
/// When the server cannot be reached, or does not confirm the watchers.
pub(crate) fn run(options: &WatchOptions, plan: &Plan) -> Result<Report, LoadError> {
    let streams = options.streams.clamp(1, options.watchers.max(1));
    let connections = options.connections.clamp(1, streams);
    let threads = plan.threads.clamp(1, connections);
    let watch_plan = Plan { connections, clients: connections, threads, ..plan.clone() };
    let opening = Instant::now();
    let timing = Timing::new();
    let counters = Arc::new(Counters::default());
    std::thread::scope(|scope| {
        let (ready, opened) = sync_channel(threads);
        let mut crew = Vec::new();
        for thread in 0..threads {
            let (stop, stopped) = oneshot::channel();
            let station = Streams {
                plan: watch_plan.clone(),
                thread,
                streams,
                watchers: options.watchers,
                space: options.space.clone(),
                timing: Arc::clone(&timing),
                counters: Arc::clone(&counters),
                ready: ready.clone(),
                stop: stopped,
            };
            crew.push((stop, scope.spawn(move || station.run())));
        }
        for _ in 0..threads {
            opened.recv().map_err(|_| LoadError::Thread)??;
        }
        let setup_seconds = await_created(options.watchers, opening, &counters)?;
        let puts = WatchedPuts {
            space: options.space.clone(),
            value_bytes: options.value_bytes,
            timing: Arc::clone(&timing),
        };
        let put_plan = Plan { threads: 1, ..plan.clone() };
        let measured = measure(&puts, &put_plan)?;
        await_events(options, &measured, &counters);
        let seen = collect(crew)?;
        let watch = sum_up(options, streams, setup_seconds, &measured, seen);
        Ok(Report { watch: Some(watch), ..Report::new("watch", &measured) })
    })
}

/// Waits until the server has confirmed all watchers; answers how long it took since `start`.
fn await_created(watchers: usize, start: Instant, counters: &Counters) -> Result<f64, LoadError> {
    loop {
        let created = counters.created.load(Ordering::Relaxed);
        if created >= watchers as u64 {
            return Ok(start.elapsed().as_secs_f64());
        }
        if start.elapsed() > CREATE_TIME_MAX {
            let text = format!("only {created} of {watchers} watchers confirmed in time");
            return Err(LoadError::Usage(text));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Waits until every watcher has had the chance to see every acknowledged put.
fn await_events(options: &WatchOptions, measured: &Measured<Vec<PutLog>>, counters: &Counters) {
    let expected: u64 = logs(measured)
        .enumerate()
        .map(|(key, log)| log.acknowledged.len() * watchers_of(options, key))
        .sum();
    let deadline = Instant::now() + options.grace;
    while counters.received.load(Ordering::Relaxed) < expected && Instant::now() < deadline {
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Watchers on a key, when they are dealt out in turn.
fn watchers_of(options: &WatchOptions, key: usize) -> u64 {
    let keys = options.space.count() as usize;
    options.watchers.saturating_sub(key).div_ceil(keys) as u64
}

/// The puts' logs; all putters are on one thread, so there is one set of them.
fn logs(measured: &Measured<Vec<PutLog>>) -> impl Iterator<Item = &PutLog> {
    measured.harvests.iter().flatten()
}

type Crew<'scope> = Vec<(oneshot::Sender<()>, ScopedJoinHandle<'scope, Result<Seen, LoadError>>)>;

/// Stops the threads and brings together what they saw.
fn collect(crew: Crew<'_>) -> Result<Seen, LoadError> {
    let mut all = Seen {
        accounts: Vec::new(),
        latencies: Latencies::new(),
        events_in_window: 0,
        errors: BTreeMap::new(),
    };
    for (stop, handle) in crew {
        // Dropping it is the order to stop.
        drop(stop);
        let part = handle.join().map_err(|_| LoadError::Thread)??;
        all.accounts.extend(part.accounts);
        all.latencies.merge(&part.latencies);
        all.events_in_window += part.events_in_window;
        for (text, times) in part.errors {
            *all.errors.entry(text).or_default() += times;
        }
    }
    Ok(all)
}

fn sum_up(
    options: &WatchOptions,
    streams: usize,
    setup_seconds: f64,
    measured: &Measured<Vec<PutLog>>,
    seen: Seen,
) -> WatchReport {
    let logs: Vec<&PutLog> = logs(measured).collect();
    let sum = |of: &dyn Fn(&(u64, super::ledger::Account)) -> u64| -> u64 {
        seen.accounts.iter().map(of).sum()
    };
    let events = seen.events_in_window;
    let per_event = |cpu: Duration| cpu.as_secs_f64() * 1e6 / (events.max(1) as f64);
    WatchReport {
        watchers: options.watchers,
        streams,
        keys: options.space.count(),
        setup_seconds,
        events,
        events_per_second: events as f64 / measured.seconds,
        latency: seen.latencies.summary(),
        server_cpu_us_per_event: (!measured.cost.servers.is_empty())
            .then(|| per_event(measured.cost.servers.iter().map(|server| server.cpu).sum())),
        generator_cpu_us_per_event: per_event(measured.cost.generator_cpu),
        missing: sum(&|(key, account)| account.missing(logs[*key as usize])),
        doubled: sum(&|(_, account)| account.doubled),
        disordered: sum(&|(_, account)| account.disordered),
        foreign: sum(&|(_, account)| account.foreign),
        errors: seen.errors,
    }
}
