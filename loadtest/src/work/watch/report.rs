//! What a run of watchers found out.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::latency::LatencySummary;
use crate::process::{Cost, Memory};
use crate::report::{latency_text, mebibytes, row};

/// What the watchers saw.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct WatchReport {
    /// Who watched what.
    pub(crate) scenario: &'static str,
    /// Watchers, those that stop left out.
    pub(crate) watchers: usize,
    /// Their streams.
    pub(crate) streams: usize,
    /// Watched keys.
    pub(crate) keys: u64,
    /// How the watchers came to be.
    pub(crate) creation: Creation,
    /// What they cost at rest, where the server's process is known.
    pub(crate) memory: Option<WatchMemory>,
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
    /// Those that began in the past.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) past: Option<PastReport>,
    /// Those that stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slow: Option<SlowReport>,
    /// Streams that were cut on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cuts: Option<u64>,
    /// Events of acknowledged puts that never came, over the whole run.
    pub(crate) missing: u64,
    /// Events that came more than once.
    pub(crate) doubled: u64,
    /// Events that came after one of a later revision.
    pub(crate) disordered: u64,
    /// Responses in the midst of a revision.
    pub(crate) split: u64,
    /// Events that no put of the run explains.
    pub(crate) foreign: u64,
    /// Broken streams and cancelled watchers, by reason.
    pub(crate) errors: BTreeMap<String, u64>,
}

/// How the watchers came to be: from the first request to the last confirmation, requests
/// going out on all streams at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Creation {
    /// Watchers, those that stop included.
    pub(crate) watchers: u64,
    /// Until all were confirmed.
    pub(crate) seconds: f64,
    /// Watchers a second.
    pub(crate) per_second: f64,
    /// Server CPU a watcher.
    pub(crate) server_cpu_us: Option<f64>,
    /// Generator CPU a watcher.
    pub(crate) generator_cpu_us: f64,
}

/// Memory of the server before there was any watcher or connection for one, and with all
/// watchers open and nothing put yet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct WatchMemory {
    /// Before.
    pub(crate) before: Memory,
    /// With all watchers open.
    pub(crate) open: Memory,
    /// The difference for each watcher, resident.
    pub(crate) rss_bytes_per_watcher: f64,
    /// The same of memory that is not backed by a file.
    pub(crate) anon_bytes_per_watcher: f64,
}

/// How watchers from the past came up to the present.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct PastReport {
    /// Events of what had been written before, all watchers together.
    pub(crate) events: u64,
    /// Those that were still to come when patience was at its end; what is missing is not
    /// known then.
    pub(crate) pending: u64,
    /// From the first request until the last of them had come.
    pub(crate) seconds: f64,
    /// Events a second.
    pub(crate) events_per_second: f64,
    /// Server CPU an event.
    pub(crate) server_cpu_us_per_event: Option<f64>,
}

/// What watchers that stop do to the server and to the others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct SlowReport {
    /// Those that stop, each on a stream of its own.
    pub(crate) stopped: usize,
    /// How long they do not read.
    pub(crate) stop_seconds: f64,
    /// The others' latencies as long as all read.
    pub(crate) before: LatencySummary,
    /// The same while those have stopped.
    pub(crate) during: LatencySummary,
    /// The same after that, while those make up for it.
    pub(crate) after: LatencySummary,
    /// From when they read again until they had everything, watcher by watcher.
    pub(crate) recovery: LatencySummary,
    /// Events they received in the window.
    pub(crate) events: u64,
    /// The server's resident memory just before they stopped.
    pub(crate) rss_before_bytes: Option<u64>,
    /// The most of it from then until the end.
    pub(crate) rss_peak_bytes: Option<u64>,
    /// At the end.
    pub(crate) rss_after_bytes: Option<u64>,
}

impl WatchReport {
    /// All that went wrong.
    pub(crate) fn faults(&self) -> u64 {
        let errors: u64 = self.errors.values().sum();
        self.missing + self.doubled + self.disordered + self.split + self.foreign + errors
    }

    /// Adds the lines about watchers to a report for people.
    ///
    /// # Errors
    /// As the formatter's.
    pub(crate) fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = format!(
            "{} {}, {} streams, {} keys",
            self.watchers, self.scenario, self.streams, self.keys
        );
        row(out, "watchers", kind)?;
        let creation = &self.creation;
        let server = microseconds("server", creation.server_cpu_us);
        let created = format!(
            "{} in {:.3} s ({:.0}/s), {server}generator {:.2} us a watcher",
            creation.watchers, creation.seconds, creation.per_second, creation.generator_cpu_us
        );
        row(out, "created", created)?;
        self.memory.as_ref().map_or(Ok(()), |memory| memory.write(out))?;
        self.past.as_ref().map_or(Ok(()), |past| past.write(out))?;
        row(out, "events", format!("{} ({:.0}/s)", self.events, self.events_per_second))?;
        row(out, "event ms", latency_text(&self.latency))?;
        let server = microseconds("server", self.server_cpu_us_per_event);
        let generator = self.generator_cpu_us_per_event;
        row(out, "event CPU", format!("{server}generator {generator:.2} us an event"))?;
        self.slow.as_ref().map_or(Ok(()), |slow| slow.write(out))?;
        if let Some(cuts) = self.cuts {
            row(out, "cuts", cuts)?;
        }
        let faults = format!(
            "{} missing, {} doubled, {} disordered, {} split, {} foreign",
            self.missing, self.doubled, self.disordered, self.split, self.foreign
        );
        row(out, "event faults", faults)?;
        self.errors.iter().try_for_each(|(text, times)| writeln!(out, "  {times:>8} x {text}"))
    }
}

impl WatchMemory {
    /// Two readings, and what lies between them for each of so many watchers.
    pub(super) fn new(before: Memory, open: Memory, watchers: u64) -> Self {
        let each = |then: u64, now: u64| (now as f64 - then as f64) / watchers.max(1) as f64;
        Self {
            before,
            open,
            rss_bytes_per_watcher: each(before.rss_bytes, open.rss_bytes),
            anon_bytes_per_watcher: each(before.anon_bytes, open.anon_bytes),
        }
    }

    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!(
            "{:.1} MiB resident before, {:.1} with all: {:.0} bytes a watcher ({:.0} anonymous)",
            mebibytes(self.before.rss_bytes),
            mebibytes(self.open.rss_bytes),
            self.rss_bytes_per_watcher,
            self.anon_bytes_per_watcher
        );
        row(out, "watch memory", text)
    }
}

impl PastReport {
    /// So many events in that time, at that cost, and so many still to come.
    pub(super) fn new(events: u64, pending: u64, time: Duration, cost: &Cost) -> Self {
        let seconds = time.as_secs_f64();
        Self {
            events,
            pending,
            seconds,
            events_per_second: events as f64 / seconds.max(1e-9),
            server_cpu_us_per_event: server_us(cost, events),
        }
    }

    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = microseconds("server", self.server_cpu_us_per_event);
        let text = format!(
            "{} in {:.3} s ({:.0}/s), {server}{} still to come",
            self.events, self.seconds, self.events_per_second, self.pending
        );
        row(out, "history", text)
    }
}

impl SlowReport {
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stopped, stop_seconds, events, .. } = self;
        row(out, "stopped", format!("{stopped} for {stop_seconds:.1} s, {events} events"))?;
        row(out, "  before", latency_text(&self.before))?;
        row(out, "  during", latency_text(&self.during))?;
        row(out, "  after", latency_text(&self.after))?;
        let made_up = format!("{} watchers, {}", self.recovery.count, latency_text(&self.recovery));
        row(out, "  made up", made_up)?;
        let memory = [self.rss_before_bytes, self.rss_peak_bytes, self.rss_after_bytes];
        if let [Some(before), Some(peak), Some(after)] = memory.map(|bytes| bytes.map(mebibytes)) {
            let text = format!("{before:.1} MiB resident before, peak {peak:.1}, {after:.1} after");
            row(out, "  memory", text)?;
        }
        Ok(())
    }
}

/// CPU of all servers for each of so many things, microseconds; nothing where none is known.
pub(super) fn server_us(cost: &Cost, things: u64) -> Option<f64> {
    let cpu = cost.servers.iter().map(|server| server.cpu).sum();
    (!cost.servers.is_empty()).then(|| us_each(cpu, things))
}

/// A time's share for each of so many things, microseconds.
pub(super) fn us_each(time: Duration, things: u64) -> f64 {
    time.as_secs_f64() * 1e6 / things.max(1) as f64
}

fn microseconds(whose: &str, cpu: Option<f64>) -> String {
    cpu.map_or_else(String::new, |cpu| format!("{whose} {cpu:.2}, "))
}
