//! A run of watchers and putters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::desk::{Class, Counters, STOPPED_PHASE, Seen};
use super::history;
use super::interest::Scenario;
use super::putter::{Ahead, Puts, WatchedPuts};
use super::report::{
    Creation, PastReport, SlowReport, WatchMemory, WatchReport, server_us, us_each,
};
use super::stream::{Group, Station, await_until};
use super::timing::Timing;
use crate::driver::{Measured, Plan, measure};
use crate::error::LoadError;
use crate::keys::KeySpace;
use crate::latency::{Latencies, LatencySummary};
use crate::process::{Memory, Usage, memory};
use crate::report::Report;

/// How long the watchers may take to be confirmed.
const CREATE_TIME_MAX: Duration = Duration::from_secs(300);
/// How often the counters are looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How often the server's memory is looked at while watchers have stopped.
const MEMORY_INTERVAL: Duration = Duration::from_millis(50);
/// What a server gets to settle before its memory at rest is read.
const REST_TIME: Duration = Duration::from_secs(1);

/// The watchers of a run; the puts are the plan's.
#[derive(Debug, Clone)]
pub(crate) struct WatchOptions {
    /// Who watches what.
    pub(crate) scenario: Scenario,
    /// Watchers, over all streams; those that stop come on top.
    pub(crate) watchers: usize,
    /// Streams, over all connections.
    pub(crate) streams: usize,
    /// Connections of the streams; the putters have their own, and those that stop too.
    pub(crate) connections: usize,
    /// The watched keys, as many as the scenario says.
    pub(crate) space: KeySpace,
    /// Size of a value.
    pub(crate) value_bytes: usize,
    /// The putters wait when so many puts have not been seen by all (where all see all).
    pub(crate) ahead: Option<u64>,
    /// How long after the last put its events are waited for.
    pub(crate) grace: Duration,
}

/// Opens the watchers, puts as `plan` says, waits for the events, and sums up. The report is
/// that of the puts, with the watchers' beside it.
///
/// # Errors
/// When the server cannot be reached, or does not confirm the watchers.
pub(crate) fn run(options: &WatchOptions, plan: &Plan) -> Result<Report, LoadError> {
    let mut run = Run::new(options, plan);
    if let Scenario::Past { history, .. } = options.scenario {
        run.puts = history::write(&run.work(), history, plan)?;
    }
    let before = run.memory()?;
    std::thread::scope(|scope| {
        let crew = Crew::start(scope, &run)?;
        let (creation, asked) = run.create(&crew)?;
        let past = run.come_up(&asked)?;
        let memory = before.map(|before| run.at_rest(before)).transpose()?;
        let (measured, peak) = run.measure(scope)?;
        let is_behind = past.as_ref().is_some_and(|past| past.pending > 0);
        if !is_behind {
            run.await_events(&measured);
        }
        let seen = crew.collect(run.timing.phases())?;
        let slow = run.slow(&seen, peak)?;
        let mut report = run.sum_up(creation, &measured, &seen);
        if is_behind {
            // What is still to come cannot be told from what will not.
            report.missing = 0;
        }
        let report = WatchReport { memory, past, slow, ..report };
        Ok(Report { watch: Some(report), ..Report::new("watch", &measured) })
    })
}

/// What a run knows of itself.
struct Run<'a> {
    options: &'a WatchOptions,
    /// The puts'.
    plan: Plan,
    groups: Vec<Group>,
    timing: Arc<Timing>,
    counters: Arc<Counters>,
    /// Those that were made before the watchers.
    puts: Puts,
}

/// Resident memory of the server before watchers stopped, and the most of it since.
#[derive(Debug, Clone, Copy)]
struct Peak {
    before: u64,
    peak: u64,
}

impl<'a> Run<'a> {
    fn new(options: &'a WatchOptions, plan: &Plan) -> Self {
        let WatchOptions { watchers, streams, connections, .. } = *options;
        let mut groups = vec![Group::new(Class::Steady, watchers, streams, connections)];
        let mut plan = plan.clone();
        let mut lengths = Vec::new();
        if let Scenario::Slow { stopped, stop_for, .. } = options.scenario {
            groups.push(Group::new(Class::Stopping, stopped, stopped, connections));
            // As long before they stop and after it as was asked for.
            lengths = vec![plan.duration, stop_for];
            plan.duration = plan.duration * 2 + stop_for;
        }
        Self {
            options,
            plan,
            groups,
            timing: Arc::new(Timing::new(lengths)),
            counters: Arc::default(),
            puts: Puts::none(options.space.count()),
        }
    }

    fn watchers(&self) -> u64 {
        self.groups.iter().map(|group| group.watchers as u64).sum()
    }

    fn memory(&self) -> Result<Option<Memory>, LoadError> {
        let pids = &self.plan.pids;
        let sum = || pids.iter().map(|pid| memory(*pid)).sum();
        (!pids.is_empty()).then(sum).transpose()
    }

    fn work(&self) -> WatchedPuts {
        let watchers = self.watchers();
        WatchedPuts {
            space: self.options.space.clone(),
            value_bytes: self.options.value_bytes,
            txn_keys: self.options.scenario.txn_keys(),
            ahead: self.options.ahead.map(|puts| Ahead { puts, watchers }),
            earlier: self.puts.clone(),
            timing: Arc::clone(&self.timing),
            counters: Arc::clone(&self.counters),
        }
    }

    /// Has the watchers created. Answers how that went, and the reading of the clocks when it
    /// began.
    fn create(&self, crew: &Crew<'_>) -> Result<(Creation, Usage), LoadError> {
        let watchers = self.watchers();
        let before = Usage::sample(&self.plan.pids)?;
        crew.go();
        let created = || self.counters.created.load(Ordering::Acquire);
        let deadline = Instant::now() + CREATE_TIME_MAX;
        if !await_until(deadline, POLL_INTERVAL, || created() >= watchers) {
            let text = format!("only {} of {watchers} watchers confirmed in time", created());
            return Err(LoadError::Usage(text));
        }
        let cost = Usage::sample(&self.plan.pids)?.since(&before);
        let last = self.counters.last_created.load(Ordering::Relaxed);
        let first = self.counters.first_asked.load(Ordering::Relaxed);
        let seconds = Duration::from_nanos(last.saturating_sub(first)).as_secs_f64();
        let creation = Creation {
            watchers,
            seconds,
            per_second: watchers as f64 / seconds.max(1e-9),
            server_cpu_us: server_us(&cost, watchers),
            generator_cpu_us: us_each(cost.generator_cpu, watchers),
        };
        Ok((creation, before))
    }

    /// Waits until watchers from the past have seen all that was written before them, as long
    /// as patience lasts.
    fn come_up(&self, asked: &Usage) -> Result<Option<PastReport>, LoadError> {
        let Scenario::Past { patience, .. } = self.options.scenario else { return Ok(None) };
        let events = self.expected(&self.puts);
        let received = || self.counters.received.load(Ordering::Acquire);
        let deadline = Instant::now() + patience;
        await_until(deadline, POLL_INTERVAL, || received() >= events);
        let cost = Usage::sample(&self.plan.pids)?.since(asked);
        let last = self.counters.last_received.load(Ordering::Relaxed);
        let first = self.counters.first_asked.load(Ordering::Relaxed);
        let time = Duration::from_nanos(last.saturating_sub(first));
        let came = received();
        Ok(Some(PastReport::new(came, events.saturating_sub(came), time, &cost)))
    }

    /// What the watchers cost at rest.
    fn at_rest(&self, before: Memory) -> Result<WatchMemory, LoadError> {
        std::thread::sleep(REST_TIME);
        let open = self.memory()?.unwrap_or_default();
        Ok(WatchMemory::new(before, open, self.watchers()))
    }

    /// Puts, and meanwhile keeps an eye on the server's memory if watchers stop.
    fn measure<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Result<(Measured<Puts>, Option<Peak>), LoadError> {
        let over = Arc::new(AtomicBool::new(false));
        let stops = matches!(self.options.scenario, Scenario::Slow { .. });
        let eye = (stops && !self.plan.pids.is_empty()).then(|| {
            let over = Arc::clone(&over);
            scope.spawn(move || self.peak(&over))
        });
        let plan = Plan { threads: 1, ..self.plan.clone() };
        let measured = measure(&self.work(), &plan);
        over.store(true, Ordering::Relaxed);
        let peak = eye.map(|eye| eye.join().map_err(|_| LoadError::Thread)?).transpose()?;
        Ok((measured?, peak))
    }

    /// The server's memory before watchers stop, and the most of it until `over`.
    fn peak(&self, over: &AtomicBool) -> Result<Peak, LoadError> {
        let mut found = Peak { before: 0, peak: 0 };
        while !over.load(Ordering::Relaxed) {
            let now = self.memory()?.unwrap_or_default().rss_bytes;
            match self.timing.now() < self.timing.begin(STOPPED_PHASE) {
                true => found = Peak { before: now, peak: now },
                false => found.peak = found.peak.max(now),
            }
            std::thread::sleep(MEMORY_INTERVAL);
        }
        Ok(found)
    }

    /// Events that all watchers together are to see of these puts.
    fn expected(&self, puts: &Puts) -> u64 {
        let acknowledged = puts.logs.iter().map(|log| log.acknowledged.len());
        let sums: Vec<u64> = std::iter::once(0)
            .chain(acknowledged.scan(0, |sum, count| {
                *sum += count;
                Some(*sum)
            }))
            .collect();
        let (scenario, space) = (&self.options.scenario, &self.options.space);
        let of = |group: &Group, watcher| {
            let keys = group.interest(scenario, space, watcher).keys;
            sums[keys.end as usize] - sums[keys.start as usize]
        };
        let of_group =
            |group: &Group| (0..group.watchers).map(|watcher| of(group, watcher)).sum::<u64>();
        self.groups.iter().map(of_group).sum()
    }

    /// Waits until every watcher has had the chance to see every acknowledged put.
    fn await_events(&self, measured: &Measured<Puts>) {
        let expected = measured.harvests.first().map_or(0, |puts| self.expected(puts));
        let received = || self.counters.received.load(Ordering::Acquire);
        // What is missing after that is counted as missing.
        let deadline = Instant::now() + self.options.grace;
        await_until(deadline, POLL_INTERVAL, || received() >= expected);
    }

    fn slow(&self, seen: &Seen, peak: Option<Peak>) -> Result<Option<SlowReport>, LoadError> {
        let Scenario::Slow { stopped, stop_for, .. } = self.options.scenario else {
            return Ok(None);
        };
        let phase = |number: usize| {
            seen.steady
                .latencies
                .get(number)
                .map_or_else(LatencySummary::default, Latencies::summary)
        };
        Ok(Some(SlowReport {
            stopped,
            stop_seconds: stop_for.as_secs_f64(),
            before: phase(STOPPED_PHASE - 1),
            during: phase(STOPPED_PHASE),
            after: phase(STOPPED_PHASE + 1),
            recovery: seen.stopping.recoveries.summary(),
            events: seen.stopping.events_in_window,
            rss_before_bytes: peak.map(|peak| peak.before),
            rss_peak_bytes: peak.map(|peak| peak.peak),
            rss_after_bytes: self.memory()?.map(|memory| memory.rss_bytes),
        }))
    }

    fn sum_up(&self, creation: Creation, measured: &Measured<Puts>, seen: &Seen) -> WatchReport {
        let logs = measured.harvests.first().map_or(&[][..], |puts| &puts.logs);
        let mut faults = super::ledger::Faults::default();
        seen.accounts.iter().for_each(|account| faults += account.faults);
        let mut latencies = Latencies::new();
        seen.steady.latencies.iter().for_each(|phase| latencies.merge(phase));
        let events = seen.steady.events_in_window + seen.stopping.events_in_window;
        let cuts = matches!(self.options.scenario, Scenario::Resume { .. }).then_some(seen.cuts);
        WatchReport {
            scenario: self.options.scenario.name(),
            watchers: self.options.watchers,
            streams: self.groups[0].streams,
            keys: self.options.space.count(),
            creation,
            memory: None,
            events,
            events_per_second: events as f64 / measured.seconds.max(1e-9),
            latency: latencies.summary(),
            server_cpu_us_per_event: server_us(&measured.cost, events),
            generator_cpu_us_per_event: us_each(measured.cost.generator_cpu, events),
            past: None,
            slow: None,
            cuts,
            missing: seen.accounts.iter().map(|account| account.missing(logs)).sum(),
            doubled: faults.doubled,
            disordered: faults.disordered,
            split: faults.split,
            foreign: faults.foreign,
            errors: seen.errors.clone(),
        }
    }
}

/// A thread with watch streams.
struct Member<'scope> {
    stop: oneshot::Sender<()>,
    handle: ScopedJoinHandle<'scope, Result<Seen, LoadError>>,
}

/// All of them.
struct Crew<'scope> {
    members: Vec<Member<'scope>>,
    orders: std::cell::RefCell<Vec<oneshot::Sender<()>>>,
}

impl<'scope> Crew<'scope> {
    /// Starts the threads and waits until all streams are open.
    fn start(scope: &'scope Scope<'scope, '_>, run: &Run<'_>) -> Result<Self, LoadError> {
        let connections = run.groups.iter().map(|group| group.connections).max().unwrap_or(1);
        let threads = run.plan.threads.clamp(1, connections);
        let (ready, opened) = sync_channel(threads);
        let (mut members, mut orders) = (Vec::new(), Vec::new());
        for thread in 0..threads {
            let (go, going) = oneshot::channel();
            let (stop, stopped) = oneshot::channel();
            let station = Station {
                plan: Plan { threads, ..run.plan.clone() },
                thread,
                groups: run.groups.clone(),
                scenario: run.options.scenario,
                space: run.options.space.clone(),
                start_revision: run.puts.first_revision.unwrap_or(0),
                timing: Arc::clone(&run.timing),
                counters: Arc::clone(&run.counters),
                ready: ready.clone(),
                go: going,
                stop: stopped,
            };
            orders.push(go);
            members.push(Member { stop, handle: scope.spawn(move || station.run()) });
        }
        for _ in 0..threads {
            opened.recv().map_err(|_| LoadError::Thread)??;
        }
        Ok(Self { members, orders: orders.into() })
    }

    /// The order to ask for the watchers.
    fn go(&self) {
        for order in self.orders.take() {
            // A thread that has gone is found out when it is joined.
            let _ = order.send(());
        }
    }

    /// Stops the threads and brings together what they saw.
    fn collect(self, phases: usize) -> Result<Seen, LoadError> {
        let mut all = Seen::nothing(phases);
        for Member { stop, handle } in self.members {
            // Dropping it is the order to stop.
            drop(stop);
            all.merge(handle.join().map_err(|_| LoadError::Thread)??);
        }
        Ok(all)
    }
}
